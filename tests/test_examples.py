"""The examples: each runs as a script, in any folder, makes the figures it promises, and is a notebook as it stands."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "examples"

EXAMPLES = sorted(path.name for path in FOLDER.glob("*.py"))

PRINTED = {
    "compare_on_digits.py": ("P(better than nuts)", "standard_error", "probability_better", "held_out:8,9"),
    "plain_numpyro.py": ("MCMC:", "negative ELBO", "R-hat over all eight chains", "total variation"),
    "posteriors_in_arviz.py": ("out.kernel[0, 0]", "mean[3]", "NUTS' verdict", "rows of too high k-hat"),
    "regression_bands.py": ("nuts, gp", "svi, mlp", "coverage", "gap"),
    "your_own_model.py": ("nuts:", "svi:", "bbb:", "Pareto k-hat", "Wasserstein-2"),
}
"""Words that each prints, so that a cell that fell silent is seen."""

NUMBER = re.compile(r"(?<![\w.])[-+±]?(?:\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?|nan|inf)(?![\w])", re.IGNORECASE)


def promised(source: str) -> set[str]:
    """Stems of the figures that a source saves; a name that a loop fills in is read from the loop's own keys."""
    stems = set()
    for node in ast.walk(ast.parse(source)):
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "save"
        if named and isinstance(node.args[1], ast.Constant):
            stems.add(node.args[1].value)
        if isinstance(node, ast.For) and isinstance(node.iter, ast.Call) and isinstance(node.iter.func, ast.Attribute):
            keys = getattr(node.iter.func.value, "keys", [])
            inside = [part for part in ast.walk(node) if isinstance(part, ast.JoinedStr)]
            starts = [part.values[0].value for part in inside if isinstance(part.values[0], ast.Constant)]
            stems |= {start + key.value for start in starts for key in keys if start.startswith("runs/")}
    return stems


def cells(source: str) -> list[tuple[str, list[str]]]:
    """The cells of a percent-script, (first line, lines beneath); what comes before the first one is its own."""
    found: list[tuple[str, list[str]]] = [("", [])]
    for line in source.splitlines():
        if line.startswith("# %%"):
            found.append((line, []))
        else:
            found[-1][1].append(line)
    return found


def format_faults(source: str) -> list[str]:
    """What keeps a source from being a notebook that opens with a title, one sentence each."""
    (_, before), *rest = cells(source)
    faults = ["there are lines before the first cell"] if any(before) else []
    if not rest or rest[0][0] != "# %% [markdown]" or rest[0][1][:1] == [] or not rest[0][1][0].startswith("# # "):
        faults.append("it does not begin with a title")
    for first, lines in rest:
        full = [line for line in lines if line]
        if first not in ("# %%", "# %% [markdown]"):
            faults.append(f"{first!r} is no kind of cell")
        if not full:
            faults.append("a cell is empty")
        if first == "# %% [markdown]" and not all(line == "#" or line.startswith("# ") for line in full):
            faults.append("a text cell holds code")
        if first == "# %%":
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                try:
                    ast.parse("\n".join(lines))  # each cell on its own: a statement may not go over two
                except SyntaxError as error:
                    faults.append(f"a code cell does not parse: {error.msg}")
    return faults


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name: str, tmp_path: Path) -> None:
    # conftest's compilation cache is in the environment, as for every process that the tests start.
    variables = os.environ | {"HMCVI_TINY": "1", "MPLBACKEND": "Agg", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "error", str(FOLDER / name)]
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    if name != "compare_on_digits.py":  # compare says on standard error how far it is
        assert done.stderr == ""

    assert [words for words in PRINTED[name] if words not in done.stdout] == []
    numbers = [float(text.lstrip("±").replace(",", "")) for text in NUMBER.findall(done.stdout)]
    assert len(numbers) > 10
    assert np.isfinite(numbers).all(), done.stdout

    saved = {str(path.relative_to(tmp_path)) for path in (tmp_path / "runs" / "examples").iterdir()}
    stems = promised((FOLDER / name).read_text())
    assert stems
    assert saved == {f"{stem}.{ending}" for stem in stems for ending in ("png", "svg")}
    for stem in stems:
        assert np.ptp(imread(tmp_path / f"{stem}.png")[..., :3]) > 0.5  # an empty figure is white all over


def test_the_readers_of_numbers_and_figures_see_what_is_there() -> None:
    text = "nuts: 1,176 weights, 0.98 ±0.01, -3e-4, NaN, bands inferred; out.kernel[0, 2] inf 90 %"
    assert NUMBER.findall(text) == ["1,176", "0.98", "±0.01", "-3e-4", "NaN", "0", "2", "inf", "90"]
    source = 'plots.save(a, "runs/x")\nfor n, d in {"p": 1, "q": 2}.items():\n    plots.save(d, f"runs/y-{n}")'
    assert promised(source) == {"runs/x", "runs/y-p", "runs/y-q"}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_is_a_notebook(name: str) -> None:
    source = (FOLDER / name).read_text()
    assert format_faults(source) == []
    assert source.count("HMCVI_TINY") == 1  # one line decides between the settings


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("import os\n# %% [markdown]\n# # Title\n", "there are lines before the first cell"),
        ("# %%\n1 + 1\n", "it does not begin with a title"),
        ("# %% [markdown]\n# Text alone\n", "it does not begin with a title"),
        ("# %% [markdown]\n# # Title\nx = 1\n", "a text cell holds code"),
        ("# %% [markdown]\n# # Title\n# %%\nfor i in range(3):\n# %%\n    print(i)\n", "a code cell does not parse"),
        ("# %% [markdown]\n# # Title\n# %%\n\n", "a cell is empty"),
        ("# %% [markdwon]\n# # Title\n", "'# %% [markdwon]' is no kind of cell"),
    ],
)
def test_the_reader_of_cells_sees_each_fault(source: str, fault: str) -> None:
    assert any(said.startswith(fault) for said in format_faults(source))


def test_list_of_examples_is_the_folder() -> None:
    listed = re.findall(r"^\| \[`(\w+\.py)`\]\((\w+\.py)\) \|", (FOLDER / "README.md").read_text(), re.MULTILINE)
    assert all(name == target for name, target in listed)
    assert sorted(name for name, _ in listed) == EXAMPLES
    assert set(PRINTED) == set(EXAMPLES)
    assert not (FOLDER / "__init__.py").exists()  # scripts, no package
