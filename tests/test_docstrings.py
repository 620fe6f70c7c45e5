"""Every example in a docstring gives what it says."""

import doctest
import importlib
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("models", "inference", "plots", "benchmarks")

# Read from the text, so that collecting the tests imports nothing.
WITH_EXAMPLES = [
    f"hmcvi.{room}.{path.stem}".removesuffix(".__init__")
    for room in ROOMS
    for path in sorted((ROOT / room).rglob("*.py"))
    if ">>> " in path.read_text()
]


def examples_of(module):
    """The module's doctests that hold examples; names an example does not import are the module's own."""
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what an example saves does not stay in the repository
    module = importlib.import_module(name)
    tests = examples_of(module)
    # A docstring that the finder does not reach would pass in silence: every prompt of the source must be found.
    source = Path(module.__file__).read_text()
    found = sum(len(test.examples) for test in tests)
    assert found == sum(line.lstrip().startswith(">>> ") for line in source.splitlines())

    failures = []
    runner = doctest.DocTestRunner(verbose=False)
    for test in tests:
        report = []
        if runner.run(test, out=report.append).failed:
            failures.append("".join(report))
    plt.close("all")  # pyplot keeps figures, and warns at 20
    assert not failures, "\n".join(failures)


def test_a_wrong_example_is_seen():
    test = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(test, out=lambda text: None).failed == 1


def test_the_models_have_examples():
    assert {"hmcvi.models.mlp", "hmcvi.models.cnn", "hmcvi.models.gp", "hmcvi.inference.fitting"} <= set(WITH_EXAMPLES)
