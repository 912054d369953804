"""The floors of the package: imports run one way, and importing skdnn loads nothing that only some users need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import skdnn
import skdnn.components

ROOT = Path(skdnn.__file__).parent

# From the ground up. A module imports from its own floor and from those below; what is not listed stands on top.
FLOORS = ["ground", "skdnn.components", "skdnn.engine", "skdnn.training", "estimators"]
GROUND = {"skdnn.exceptions", "skdnn._validation"}

# What a floor may know of scikit-learn and skorch, as prefixes of module names.
FOREIGN = {
    "ground": ("sklearn.utils", "sklearn.exceptions"),
    "skdnn.components": ("sklearn.base",),
    "skdnn.engine": (),
    "skdnn.training": ("sklearn.exceptions", "sklearn.metrics", "sklearn.utils", "skorch"),
    "estimators": ("sklearn", "skorch"),
}

HEAVY = ("matplotlib", "pandas", "polars", "IPython", "torch._dynamo", "torch._inductor", "torchvision")


def module_name(path):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor(module):
    if module in GROUND:
        return "ground"
    return next((f for f in FLOORS[1:-1] if module == f or module.startswith(f + ".")), "estimators")


def imported_modules(path):
    """The absolute names of all modules that a file imports, in functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            yield node.module
            # `from skdnn import engine` imports a module too
            submodules = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name for name in submodules if is_module(name))


def is_module(name):
    path = ROOT.parent.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def run(code):
    """Run code in a fresh process and return what it prints."""
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.split()


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_run_downwards(path):
    mine = floor(module_name(path))
    for imported in imported_modules(path):
        if imported == "skdnn" or imported.startswith("skdnn."):
            assert FLOORS.index(floor(imported)) <= FLOORS.index(mine), f"{mine} imports {imported}"


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_a_floor_knows_only_its_share_of_scikit_learn_and_skorch(path):
    mine = floor(module_name(path))
    for imported in imported_modules(path):
        if imported.split(".")[0] in ("sklearn", "skorch"):
            assert any(imported == known or imported.startswith(known + ".") for known in FOREIGN[mine]), imported


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_private_modules_of_scikit_learn_are_imported_in_one_place(path):
    if module_name(path) == "skdnn._validation":
        return
    for imported in imported_modules(path):
        is_private = any(part.startswith("_") for part in imported.split("."))
        assert not (imported.startswith("sklearn.") and is_private), imported


def test_the_floors_are_told_apart():
    # An oracle for the rules above: were every file on one floor, none of them could fail.
    assert [
        floor(f"skdnn.{name}") for name in ("exceptions", "components.losses", "engine", "training.plan", "_base")
    ] == FLOORS
    assert {floor(module_name(path)) for path in FILES} == set(FLOORS)


def test_import_loads_only_what_is_needed():
    # scikit-learn itself imports pandas where it is installed: what counts is what skdnn adds.
    dependencies = "import sys, sklearn.model_selection, torch, skorch; before = set(sys.modules); import skdnn; "
    loaded = run(dependencies + "print(*set(sys.modules) - before, *set(sys.modules) & {'matplotlib'})")
    assert "skdnn.classifier" in loaded
    assert not [name for name in loaded if name.startswith(HEAVY)]


def test_pandas_and_matplotlib_are_optional():
    script = """
import sys
sys.modules.update(dict.fromkeys(("pandas", "polars", "matplotlib")))
from skdnn import MLPDeepClassifier
clf = MLPDeepClassifier((3,), max_iter=1, n_iter_no_change=1).fit([[0.0], [1.0]], ["no", "yes"])
print(len(clf.predict([[0.0], [1.0]])))
"""
    assert run(script) == ["2"]


@pytest.mark.parametrize("package", [skdnn, skdnn.components], ids=lambda package: package.__name__)
def test_public_names_exist(package):
    assert len(set(package.__all__)) == len(package.__all__)
    for name in package.__all__:
        assert hasattr(package, name)


def test_every_component_is_public():
    classes = [value for value in vars(skdnn.components).values() if isinstance(value, type)]
    assert {cls.__name__ for cls in classes} <= set(skdnn.components.__all__)
