"""The contestants of `speed.py` do the same work: that is what a comparison of their speed stands on. None is timed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hmcvi.benchmarks import speed, speed_driver, speed_gp, speed_gradient, speed_nuts, speed_vi
from hmcvi.benchmarks.peer_protocol import Ready, inputs
from hmcvi.benchmarks.speed_models import cnn_by_hand, log_joint_of, plain
from hmcvi.benchmarks.speed_process import check_facts
from hmcvi.benchmarks.speed_reference import Probes, until_converged
from hmcvi.inference import NUTS, fit

FLAX_WARNING = "ignore::DeprecationWarning"


def gradients(name, rows, shape):
    """Return the log joint and its gradient by our sites, at the weights that all begin with."""
    x, y = (jnp.asarray(part) for part in inputs(rows, shape, speed_gradient.CLASSES))
    log_joint, z = log_joint_of(speed_gradient.MODELS[name], x, y)
    value, gradient = jax.value_and_grad(log_joint)(z, x, y)
    return float(value), {plain(site): np.asarray(part) for site, part in gradient.items()}


def check_same(ours, theirs):
    assert theirs[0] == pytest.approx(ours[0], rel=1e-5)
    assert set(theirs[1]) == set(ours[1])
    for site, part in ours[1].items():
        np.testing.assert_allclose(theirs[1][site], part, rtol=1e-3, atol=1e-3 * np.abs(part).max(), err_msg=site)


def test_an_mlp_by_hand_has_our_log_joint_and_gradient():
    check_same(gradients("hmcvi mlp", 7, (784,)), gradients("numpyro, by hand", 7, (784,)))


@pytest.mark.parametrize(("data", "model"), [("digits", "mlp"), ("diabetes", "mlp"), ("diabetes", "gp")])
def test_what_samplers_are_given_by_hand_has_our_log_joint_and_gradient(data, model):
    probes = Probes(data, model, 40)
    found = []
    for given in (probes.model, probes.by_hand):
        log_joint, z = log_joint_of(given, probes.x, probes.y)
        value, gradient = jax.value_and_grad(log_joint)(z, probes.x, probes.y)
        assert probes.facts(given)["its log joint"] == pytest.approx(float(value), rel=1e-5)
        found.append((float(value), {site: np.asarray(part) for site, part in gradient.items()}))
    check_same(*found)


@pytest.mark.filterwarnings(FLAX_WARNING)
def test_convolutions_of_all_libraries_have_our_log_joint_and_gradient(monkeypatch):
    monkeypatch.setattr(speed_gradient, "CHANNELS", (3, 4))
    monkeypatch.setattr(speed_gradient, "WIDTH", 5)
    ours = functools.partial(speed_gradient.cnn, channels=(3, 4), kernel_size=5, widths=(5,), num_classes=10)
    monkeypatch.setitem(speed_gradient.MODELS, "hmcvi cnn", ours)
    by_hand = functools.partial(cnn_by_hand, channels=(3, 4), kernel_size=5, width=5, num_classes=10)
    monkeypatch.setitem(speed_gradient.MODELS, "numpyro, jax.lax", by_hand)
    found = gradients("hmcvi cnn", 2, (28, 28, 1))
    for name in ("numpyro, flax.linen", "numpyro, flax.nnx", "numpyro, jax.lax"):
        check_same(found, gradients(name, 2, (28, 28, 1)))


def test_the_torch_peer_has_our_log_joint_and_gradient():
    pytest.importorskip("torch")
    import sys
    from pathlib import Path

    sys.path.insert(0, str(Path(speed_gradient.__file__).parent))
    try:
        import peer_torch
    finally:
        sys.path.pop(0)
    for name, theirs in (("hmcvi mlp", peer_torch.mlp), ("hmcvi cnn", peer_torch.cnn)):
        ours = speed_gradient.network(name, rows=3, seconds=0.0)
        check_facts({"ours": ours.facts, "theirs": theirs(rows=3, seconds=0.0).facts}, {})


def test_the_products_alone_are_those_that_are_counted():
    """Forward 784 × 100 and 100 × 10, backward the same but for the gradient of the inputs."""
    assert speed_gradient.mlp_operations(10_000) == 2 * 10_000 * (2 * 78_400 + 3 * 1_000)
    operations = jax.jit(
        lambda first, second, x: (x.T @ ((hidden := x @ first) @ second @ second.T), hidden.T @ (hidden @ second))
    )
    shapes = [jax.ShapeDtypeStruct(shape, np.float32) for shape in ((784, 100), (100, 10), (50, 784))]
    assert operations.lower(*shapes).compile().cost_analysis()["flops"] == pytest.approx(
        speed_gradient.mlp_operations(50), rel=1e-3
    )
    ready = speed_gradient.products_alone(rows=5, seconds=0.0)
    assert ready.run(0)["count"] % (speed_gradient.mlp_operations(5) / 1e9) == pytest.approx(0)
    assert speed_gradient.square_product(seconds=0.0, square=8).run(0)["count"] >= 2 * 8**3 / 1e9


def test_likelihoods_and_predictions_of_gaussian_processes_agree():
    pytest.importorskip("tinygp")
    for task in ("gradient", "predict"):
        facts = {name: make(task=task, rows=40, seconds=0.0).facts for name, make in speed_gp.CONTESTANTS.items()}
        assert all(len(of) == 2 for of in facts.values())
        for name, of in facts.items():
            check_facts({"hmcvi gp": facts["hmcvi gp"], name: of}, {})


def test_a_gp_s_gradient_is_that_of_the_likelihood():
    """Against differences, in the logarithms: the facts are no private agreement."""
    problem = speed_gp.Problem(30)
    ready = speed_gp.scikit_learn(task="gradient", rows=30, seconds=0.0)
    total = 0.0
    for name, value in problem.logs.items():
        for place in np.ndindex(np.shape(value)):
            ends = []
            for step in (1e-4, -1e-4):
                moved = np.array(value, np.float64)
                moved[place] += step
                monkey = speed_gp.Problem(30)
                monkey.logs = problem.logs | {name: moved}
                ends.append(_log_likelihood(monkey))
            total += ((ends[0] - ends[1]) / 2e-4) ** 2
    assert ready.facts["the length of its gradient"] == pytest.approx(total**0.5, rel=1e-3)


def _log_likelihood(problem):
    """Return log N(y; 0, K) in NumPy."""
    scale = {name: np.exp(np.asarray(value, np.float64)) for name, value in problem.logs.items()}
    x, y = problem.x.astype(np.float64) / scale["lengthscale"], problem.y.astype(np.float64)
    r = np.sqrt(5 * ((x[:, None] - x[None]) ** 2).sum(2))
    kernel = scale["amplitude"] ** 2 * ((1 + r + r**2 / 3) * np.exp(-r) + problem.jitter * np.eye(len(x)))
    covariance = kernel + scale["noise_scale"] ** 2 * np.eye(len(x))
    _, determinant = np.linalg.slogdet(covariance)
    return -0.5 * (y @ np.linalg.solve(covariance, y) + determinant + len(y) * np.log(2 * np.pi))


def test_the_bare_loop_makes_the_draws_of_the_driver():
    probes = Probes("digits", "mlp", 30)
    key = jax.random.key(3)
    method = speed_driver.method_of("sequential", 5, 4)
    bare, *_ = speed_driver.bare_draws(key, probes, method)
    result = fit(key, probes.model, probes.x, probes.y, method, progress=False)
    assert set(bare) == set(result.draws)
    for site, values in bare.items():
        assert values.shape == result.draws[site].shape
        np.testing.assert_allclose(values, result.draws[site], rtol=1e-3, atol=1e-4, err_msg=site)


def blocks_of(random, seconds, shift=0.0):
    """Return blocks of 200 draws of four chains, the first of which lies elsewhere by `shift`, with seconds so far."""
    for end in seconds:
        values = random.standard_normal((4, 200, 6))
        values[0] += shift
        yield end, {"log-likelihoods": values, "outputs": values[..., :3]}


def test_the_seconds_are_those_of_the_first_block_that_has_converged():
    random = np.random.default_rng(0)
    assert until_converged(blocks_of(random, (2.0, 4.0, 6.0)), cap=100, most=10_000)["seconds"] == 2.0
    # 5 draws a chain cannot hold 400 effective ones, whatever they look like
    few = ((end, {kind: of[:, :5] for kind, of in values.items()}) for end, values in blocks_of(random, (1.0, 2.0)))
    assert "not converged within 10 draws a chain" in until_converged(few, cap=100, most=10)["failure"]


def test_chains_that_disagree_have_not_converged_and_the_table_says_how_far_they_came():
    random = np.random.default_rng(1)
    answer = until_converged(blocks_of(random, (2.0, 4.0, 6.0), shift=3.0), cap=5.0, most=10_000)
    assert answer["failure"].startswith("not converged within 5 s: 400 draws a chain had R-hat 1.")
    nothing = until_converged(iter(()), cap=5.0, most=10)["failure"]
    assert nothing == "not converged within 5 s: no draw after the warm-up came in time"


def test_runs_from_the_beginning_are_judged_alone_and_the_last_within_the_cap_is_told():
    runs = [(1.0, 30), (2.0, 60), (9.0, 120)]

    def blocks():
        random = np.random.default_rng(2)
        for end, length in runs:
            values = random.standard_normal((4, length, 6)) + 3 * (np.arange(4) == 0)[:, None, None]
            yield end, {"log-likelihoods": values, "outputs": values[..., :3]}

    assert "within 5 s: 60 draws a chain had" in until_converged(blocks(), cap=5.0, most=1000, anew=True)["failure"]
    assert "within 5 s: 90 draws a chain had" in until_converged(blocks(), cap=5.0, most=1000)["failure"]


def test_the_log_likelihood_is_told_with_its_monte_carlo_error():
    random = np.random.default_rng(3)
    note = until_converged(blocks_of(random, (2.0, 4.0)), cap=100, most=10_000)["note"]
    mean, error = map(float, note.split("held-out row ")[1].split(" ± "))
    assert abs(mean) < 5 * error
    assert error == pytest.approx(1 / np.sqrt(6 * 800), rel=0.3)  # 6 rows of 800 independent draws of variance 1


def test_our_sampler_is_judged_by_when_its_driver_said_that_draws_were_made(monkeypatch):
    calls = []

    def noted(blocks, cap, most):
        calls.append((most, [(seconds, values["log-likelihoods"]) for seconds, values in blocks]))
        return {"failure": "too few"} if most < 120 else {"count": 1, "seconds": calls[-1][1][-1][0]}

    monkeypatch.setattr(speed_nuts, "until_converged", noted)
    ready = speed_nuts.hmcvi(NUTS, 20, 20, Probes("wave", "gp", 20), cap=600.0, block=10, most=240)
    answer = ready.run(0)
    assert [(most, len(judged)) for most, judged in calls] == [(30, 3), (120, 12)]  # the last of 240 is not needed
    for _, judged in calls:
        seconds = [of for of, _ in judged]
        assert 0 < seconds[0] <= seconds[1] <= seconds[2]  # a lap is as long as a compiled call
        assert all(values.shape[:2] == (4, 10) for _, values in judged)
    for (_, few), (_, more) in zip(*(judged for _, judged in calls), strict=False):
        np.testing.assert_allclose(few, more, rtol=1e-3, atol=1e-3)  # the same draws
    assert answer["compile"] > 0


def test_our_sampler_that_spent_its_cap_is_not_asked_for_more_draws(monkeypatch):
    calls = []

    def noted(blocks, cap, most):
        calls.append(list(blocks))
        return {"failure": "not converged"}

    monkeypatch.setattr(speed_nuts, "until_converged", noted)
    ready = speed_nuts.hmcvi(NUTS, 20, 20, Probes("wave", "gp", 20), cap=1e-6, block=10, most=240)
    assert "failure" in ready.run(0)
    assert calls == [[]]


@pytest.fixture(scope="module")
def reference():
    """Return probes of a small GP, and its amplitudes by our NUTS."""
    probes, method = Probes("wave", "gp", 20), NUTS(num_warmup=300, num_draws=500)
    return probes, fit(jax.random.key(1), probes.model, probes.x, probes.y, method, progress=False).draws["amplitude"]


@pytest.mark.parametrize("name", ["numpyro nuts", "blackjax nuts", "blackjax mclmc", "nutpie"])
@pytest.mark.filterwarnings("ignore")  # of other people's samplers
def test_peers_draw_from_the_same_posterior(name, reference, monkeypatch):
    """Few draws of a GP's amplitude: its mean within what the sampling allows, and every draw positive."""
    pytest.importorskip("blackjax")
    if name == "nutpie":
        pytest.importorskip("nutpie")
    make = {
        "numpyro nuts": lambda probes, **sizes: speed_nuts.numpyro_nuts(probes.by_hand, "by hand", probes, **sizes),
        "blackjax nuts": speed_nuts.blackjax_nuts,
        "blackjax mclmc": speed_nuts.blackjax_mclmc,
        "nutpie": speed_nuts.nutpie,
    }[name]
    probes, wanted = reference
    seen = []
    values = probes.values
    monkeypatch.setattr(jax, "pmap", lambda function: jax.jit(jax.vmap(function)))  # this process has one device
    monkeypatch.setattr(probes, "values", lambda draws: (seen.append(draws), values(draws))[1])
    answer = make(probes=probes, warmup=200, cap=600.0, block=100, most=800).run(0)
    assert answer.get("failure", "") == "" or "R-hat" in answer["failure"]
    amplitude = np.concatenate([np.asarray(of["amplitude"]) for of in seen], axis=1)
    assert (amplitude > 0).all()
    log_mean, log_sd = np.log(wanted).mean(), np.log(wanted).std()
    assert abs(np.log(amplitude).mean() - log_mean) < 0.5 * log_sd  # 4 standard errors of 64 independent draws


def test_everybody_trains_as_many_numbers_and_takes_the_steps_asked_for(monkeypatch):
    linear = functools.partial(speed_vi.mlp, widths=())
    monkeypatch.setitem(speed_vi.MODELS, "mlp", (linear, (3,), "a linear model"))
    monkeypatch.setattr(speed_vi, "keep_programs", lambda: "a cache")
    size = {"model": "mlp", "rows": 64, "batch": 16, "steps": 6}
    for name in ("hmcvi bbb, local", "numpyro SVI.run", "numpyro SVI, scanned"):
        ready = speed_vi.CONTESTANTS[name](**size)
        assert ready.facts == {"numbers optimised": 2 * (3 * 10 + 10)}, name
        answer = ready.run(0)
        assert answer["count"] == (8 if "scanned" in name else 6), name  # whole epochs of four steps
        assert answer["seconds"] > 0


def test_every_contestant_of_every_case_is_there():
    import importlib

    for quick in (False, True):
        for case in speed.all_cases(quick).values():
            assert any(one.ours for one in case.contestants), case.name
            assert len({one.name for one in case.contestants}) == len(case.contestants)
            for one in case.contestants:
                if one.is_script:
                    assert (speed_process_folder() / one.module).is_file()
                else:
                    module = importlib.import_module(f"hmcvi.benchmarks.{one.module}")
                    assert one.name in module.CONTESTANTS, (case.name, one.name)


def speed_process_folder():
    from pathlib import Path

    return Path(speed.__file__).parent


def test_ready_has_defaults_of_nothing():
    assert Ready(run=dict).facts == {}
