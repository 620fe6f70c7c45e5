"""Do the tests see what would be wrong: each mutation of a copy of the source must fail a test that passes without."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECK = "Mutations caught"
ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "inference", "plots", "benchmarks")


@dataclass(frozen=True)
class Mutation:
    """A fault, and tests of the default suite that are to see it.

    Attributes:
        path: the file, from the root.
        old: what it replaces, which the file holds once.
        new: what it puts there.
        tests: what pytest is to run, from the folder of the tests.
    """

    path: str
    old: str
    new: str
    tests: str


MUTATIONS = {
    "a minibatch's likelihood is not scaled by N/B": Mutation(
        "models/likelihoods.py",
        "size = rows if num_rows is None else num_rows",
        "size = rows",
        "test_models.py::test_log_joint_of_networks",
    ),
    "the KL counts twice": Mutation(
        "inference/backprop.py",
        "return jnp.asarray(answer.kl), ",
        "return 2 * jnp.asarray(answer.kl), ",
        "test_closed_form.py::test_the_estimated_elbo_is_the_exact_one[flipout]",
    ),
    "blundell's shares rise in place of falling": Mutation(
        "inference/backprop.py",
        "num_batches * 0.5**i / (1 - 0.5**num_batches)",
        "(num_batches * 0.5**i / (1 - 0.5**num_batches))[::-1]",
        "test_backprop_terms.py::test_the_weights_are_those_of_blundell_et_al",
    ),
    "OOD is the negative class": Mutation(
        "inference/scores.py",
        "placement_out = _share_below(np.sort(in_), out)",
        "placement_out = 1.0 - _share_below(np.sort(in_), out)",
        "test_scores.py::test_perfect_and_inverted_detection",
    ),
    "a confident row is called foreign": Mutation(
        "benchmarks/evaluate.py",
        '"1 − confidence": 1 - mixture.probs.max(axis=1)',
        '"1 − confidence": mixture.probs.max(axis=1)',
        "test_evaluate.py::test_ood_rows_tell_sets_apart_and_pair_batches",
    ),
    "a confidence on a bin's right edge falls into the next bin": Mutation(
        "inference/calibration.py",
        'np.searchsorted(edges, confidence, side="left") - 1',
        'np.searchsorted(edges, confidence, side="right") - 1',
        "test_scores.py::test_every_row_is_counted_at_the_ends_of_the_interval",
    ),
    "Bayes-by-Backprop forgets the Jacobian": Mutation(
        "inference/backprop.py",
        "log_p = sum_rightmost(log_jacobian, jnp.ndim(log_jacobian) - len(prior.batch_shape)) + prior.log_prob(value)",
        "log_p = prior.log_prob(value)",
        "test_closed_form.py::test_the_three_back_ends_compute_the_same_log_joint[gp]",
    ),
    "softplus has no derivative": Mutation(
        "inference/variational.py",
        "return jax.nn.softplus(self.rho[...])",
        "return jax.lax.stop_gradient(jax.nn.softplus(self.rho[...]))",
        "test_variational.py::test_a_dense_layer_trained_by_hand_reaches_the_known_evidence_bound[local]",
    ),
    "Flipout's rows share their signs": Mutation(
        "inference/variational.py",
        "shape = (like.shape[0], *(1,)",
        "shape = (1, *(1,)",
        "test_variational.py::test_rows_have_noise_of_their_own_and_every_output_its_exact_variance",
    ),
    "a standard error divides by n": Mutation(
        "inference/score_base.py",
        "standard_error = np.std(values, ddof=1) / np.sqrt(len(values))",
        "standard_error = np.std(values, ddof=0) / np.sqrt(len(values))",
        "test_scores.py::test_the_error_of_a_mean_is_that_of_its_rows",
    ),
    "chains are joined end to end": Mutation(
        "inference/chains.py",
        "lambda *leaves: np.concatenate(leaves, axis=1), *parts",
        "lambda *leaves: np.concatenate(leaves, axis=0), *parts",
        "test_conformance.py::test_draws_have_the_names_and_shapes_of_the_models_own_trace[nuts-linear]",
    ),
    "the warm-up is kept, and the last draws are not": Mutation(
        "inference/chains.py",
        "kept = jax.tree.map(lambda leaf: leaf[:, first:], recorded)",
        "kept = jax.tree.map(lambda leaf: leaf[:, : leaf.shape[1] - first], recorded)",
        "test_conformance.py::test_what_adapts_a_sampler_is_not_among_its_draws[nuts]",
    ),
    "a convolution's kernel is not flipped on the way back": Mutation(
        "models/ops.py",
        "flipped = kernel[::-1, ::-1].swapaxes(2, 3)",
        "flipped = kernel.swapaxes(2, 3)",
        "test_ops.py::test_gradients_are_finite_differences",
    ),
    "a GP's predictions leave out the noise": Mutation(
        "models/gp.py",
        "spread = jnp.hypot(standard_deviation(variance), noise_scale)",
        "spread = standard_deviation(variance)",
        "test_gp.py::test_predictions_of_regression",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that imports of hmcvi find first, with the rooms' source in it."""
    folder = tmp_path_factory.mktemp("mutated")
    skip = shutil.ignore_patterns("results", "__pycache__")
    for room in ROOMS:
        shutil.copytree(ROOT / room, folder / "hmcvi" / room, ignore=skip)
    return folder


def run(folder: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    """Run tests on the copy until the first that fails."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    variables |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", "-p", "no:xdist"]
    command += [f"tests/{test}" for test in tests]
    return subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, text=True, timeout=900)


@pytest.mark.parametrize("name", MUTATIONS)
def test_what_a_mutation_replaces_and_its_test_are_there(name: str) -> None:
    """Not left to the long run: whoever changes such a line writes its mutation anew."""
    mutation = MUTATIONS[name]
    assert (ROOT / mutation.path).read_text().count(mutation.old) == 1, f"{mutation.path} does not hold it once"
    file, test = mutation.tests.split("[")[0].split("::")
    assert f"def {test}(" in (ROOT / "tests" / file).read_text(), f"{file} has no {test}"


@pytest.mark.validate
def test_the_copy_without_a_mutation_passes(copy: Path, record) -> None:
    where = "import hmcvi.inference as i; print(i.__file__)"
    variables = os.environ | {"PYTHONPATH": str(copy)}
    found = subprocess.run([sys.executable, "-c", where], env=variables, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(copy))
    done = run(copy, *dict.fromkeys(mutation.tests for mutation in MUTATIONS.values()))
    assert done.returncode == 0, done.stdout[-3000:]
    record(CHECK, "none: failed tests", done.returncode, high=0.5)


@pytest.mark.validate
@pytest.mark.parametrize("name", MUTATIONS)
def test_a_mutation_fails_a_test(name: str, copy: Path, record) -> None:
    mutation = MUTATIONS[name]
    path = copy / "hmcvi" / mutation.path
    source = path.read_text()
    path.write_text(source.replace(mutation.old, mutation.new))
    try:
        done = run(copy, mutation.tests)
    finally:
        path.write_text(source)
    # A test failed by its own assertion: not the collection, not a fixture, not the mutation's syntax.
    assert " error" not in done.stdout.splitlines()[-1], done.stdout[-3000:]
    number = re.search(r"(\d+) failed", done.stdout.splitlines()[-1])
    record(CHECK, f"{name}: failed tests", int(number[1]) if number else 0, low=0.5)
