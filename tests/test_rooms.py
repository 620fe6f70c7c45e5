"""The order of the rooms, the packaging, and what may not be written in them: read from the source, run nowhere."""

import ast
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ROOMS = ("models", "inference", "plots", "benchmarks")
"""In the order of imports: a room may import those before it."""

METHODS = {"nuts", "svi", "bbb", "hmc", "vi", "backprop", "NUTS", "SVI", "BayesByBackprop"}
UNPICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


def modules(room):
    """The files of a room that are imported: the examples are scripts, which import the rooms as a user does."""
    return sorted(path for path in (ROOT / room).rglob("*.py") if path.parent.name != "examples")


SOURCES = [pytest.param(room, path, id=f"{room}/{path.name}") for room in ROOMS for path in modules(room)]


def import_faults(room, source):
    """What is wrong with the imports of a module of this room, one sentence each, with its line."""
    faults = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > 1:
                faults.append((node.lineno, "leaves its room by a relative import"))
            continue
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            within = node.module == "hmcvi"
            modules = [f"hmcvi.{alias.name}" for alias in node.names] if within else [node.module]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("hmcvi."):
            modules = [node.value]  # importlib.import_module("hmcvi.benchmarks")
        else:
            continue
        for module in modules:
            package, *inside = module.split(".")
            if package in (*ROOMS, "tests"):
                faults.append((node.lineno, f"imports {module} by no package: hmcvi.{module}"))
            elif package == "hmcvi" and (not inside or inside[0] not in ROOMS):
                faults.append((node.lineno, f"imports {module}, which is no room"))
            elif package == "hmcvi" and inside[0] == room and not isinstance(node, ast.Constant):
                faults.append((node.lineno, f"imports {module} absolutely inside its own room"))
            elif package == "hmcvi" and ROOMS.index(inside[0]) > ROOMS.index(room):
                faults.append((node.lineno, f"imports {module}, a room that comes later"))
    return faults


@pytest.mark.parametrize(("room", "path"), SOURCES)
def test_imports_follow_the_order_of_the_rooms(room, path):
    assert import_faults(room, path.read_text()) == []


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("from hmcvi.plots import style", "imports hmcvi.plots, a room that comes later"),
        ("from hmcvi import benchmarks", "imports hmcvi.benchmarks, a room that comes later"),
        ("def f():\n import hmcvi.benchmarks.table as t", "imports hmcvi.benchmarks.table, a room that comes later"),
        ("import_module('hmcvi.plots.style')", "imports hmcvi.plots.style, a room that comes later"),
        ("from hmcvi.inference.base import fit", "imports hmcvi.inference.base absolutely inside its own room"),
        ("from ..models import mlp", "leaves its room by a relative import"),
        ("from models import mlp", "imports models by no package: hmcvi.models"),
        ("import tests.targets", "imports tests.targets by no package: hmcvi.tests.targets"),
        ("import hmcvi", "imports hmcvi, which is no room"),
        ("from hmcvi.tests import targets", "imports hmcvi.tests, which is no room"),
        ("from . import base\nfrom .base import fit\nfrom hmcvi.models import mlp\nimport jax", None),
    ],
)
def test_the_reader_of_imports_sees_each_fault(source, fault):
    assert [sentence for _, sentence in import_faults("inference", source)] == ([fault] if fault else [])


# --- packaging


def test_the_packages_are_the_rooms():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    with_code = {".".join(("hmcvi", *path.parent.relative_to(ROOT).parts)) for room in ROOMS for path in modules(room)}
    assert sorted(setuptools["packages"]) == sorted(with_code)
    assert {name.split(".")[1] for name in setuptools["packages"]} == set(ROOMS)
    assert setuptools["package-dir"] == {"hmcvi": "."}
    assert all((ROOT / room / name).is_file() for room in ROOMS for name in ("__init__.py", "py.typed"))


def test_nothing_in_the_root_makes_a_second_package():
    # A root __init__.py breaks pytest's collection, a hmcvi/ folder hides the rooms from an import in the root.
    assert not (ROOT / "__init__.py").exists()
    assert not (ROOT / "hmcvi").exists()


def test_an_installation_adds_one_import_name(tmp_path):
    # From another folder, where neither the working directory nor PYTHONPATH shows the rooms by themselves.
    program = (
        "import importlib.util, json\n"
        f"bare = [room for room in {(*ROOMS, 'tests')!r} if importlib.util.find_spec(room) is not None]\n"
        "import hmcvi.models\n"
        "names = sorted(set(dir(hmcvi.models)) & {'mlp', 'cnn', 'gp'})\n"
        "print(json.dumps([bare, names, hmcvi.models.mlp.__module__]))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == '[[], ["cnn", "gp", "mlp"], "hmcvi.models.mlp"]'


# --- what may not be written


def unsafe_reads(source):
    """Lines that could run code from a file: unpickling, and YAML loaders that build objects."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            unsafe = any(alias.name.split(".")[0] in UNPICKLERS for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            unsafe = (node.module or "").split(".")[0] in UNPICKLERS
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            unsafe = node.value.id == "yaml" and node.attr in {"load", "load_all", "unsafe_load", "full_load"}
            unsafe |= node.attr in {"read_pickle", "to_pickle"}
        elif isinstance(node, ast.keyword):
            unsafe = node.arg == "allow_pickle" and not (
                isinstance(node.value, ast.Constant) and node.value.value is False
            )
        else:
            continue
        if unsafe:
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(("room", "path"), SOURCES)
def test_no_room_unpickles(room, path):
    assert unsafe_reads(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "np.load(f, allow_pickle=True)",
        "np.load(f, allow_pickle=flag)",
        "yaml.load(f)",
        "pd.read_pickle(f)",
    ],
)
def test_the_reader_of_unsafe_reads_sees_each(source):
    assert unsafe_reads(source) == [1]
    assert unsafe_reads("import yaml\nnp.load(f, allow_pickle=False)\nyaml.safe_load(f)") == []


def method_dispatch(source):
    """Lines that ask which method they were given: by its name, by its class, or by a match."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            # `name in ("svi", "bbb")` asks a method which it is; `"nuts" in fits` asks a table whether it has a column.
            membership = isinstance(node.ops[0], ast.In | ast.NotIn)
            asked = node.comparators if membership else [node.left, *node.comparators]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in {"isinstance", "issubclass"}
        ):
            asked = node.args[1:]
        elif isinstance(node, ast.match_case):
            asked = [node.pattern]
        else:
            continue
        words = {part.value for top in asked for part in ast.walk(top) if isinstance(part, ast.Constant)}
        names = {part.id for top in asked for part in ast.walk(top) if isinstance(part, ast.Name)}
        attributes = {part.attr for top in asked for part in ast.walk(top) if isinstance(part, ast.Attribute)}
        if METHODS & {*words, *names, *attributes}:
            lines.append(getattr(node, "lineno", None) or node.pattern.lineno)
    return lines


@pytest.mark.parametrize(("room", "path"), [source for source in SOURCES if source.values[0] != "inference"])
def test_no_dispatch_on_the_method_outside_inference(room, path):
    assert method_dispatch(path.read_text()) == []


@pytest.mark.parametrize(
    "source",
    [
        "if method == 'nuts': pass",
        "x = 1 if fit.method.name != 'svi' else 2",
        "if name in ('svi', 'bbb'): pass",
        "if isinstance(method, NUTS): pass",
        "if isinstance(method, (SVI, inference.BayesByBackprop)): pass",
        "if type(method) is NUTS: pass",
        "match method:  \n case 'nuts': pass",
        "match method:  \n case SVI(): pass",
    ],
)
def test_the_reader_of_dispatch_sees_each(source):
    assert len(method_dispatch(source)) == 1
    innocent = "METHODS = {'nuts': NUTS}\nif kind == 'image': METHODS['nuts']()\nif 'nuts' in fits: pass"
    assert method_dispatch(innocent) == []
