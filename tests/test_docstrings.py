"""Docstrings against signatures: names, defaults and ranges cannot drift apart."""

import ast
import dataclasses
import inspect
import re

import pytest

import skdnn
from skdnn import MLPDeepClassifier, MLPDeepRegressor, components
from skdnn._validation import Interval

ESTIMATORS = [MLPDeepClassifier, MLPDeepRegressor]
COMPONENTS = [value for value in (getattr(components, name) for name in components.__all__) if inspect.isclass(value)]
CLASSES = ESTIMATORS + COMPONENTS

# What a dataclass is made of, its docstring has under Attributes.
PLAIN = [cls for cls in CLASSES if not dataclasses.is_dataclass(cls)]


def section(docstring, title):
    """The entries of a numpydoc section, a dict from name to (type, text)."""
    lines = inspect.cleandoc(docstring).splitlines()
    rulers = [i for i, line in enumerate(lines) if i and line and set(line) == {"-"}]
    start = next((i for i in rulers if lines[i - 1] == title), None)
    if start is None:
        return {}
    end = next((i - 1 for i in rulers if i > start), len(lines))
    entries, names = {}, []
    for line in lines[start + 1 : end]:
        if line.startswith(" ") and names:
            for name in names:
                entries[name] = (entries[name][0], entries[name][1] + line.strip() + " ")
        elif line:
            names, _, kind = line.partition(" : ")
            names = names.split(", ")
            entries |= dict.fromkeys(names, (kind, ""))
    return entries


def stars(function):
    """The parameters of a signature and their defaults, by the names that numpydoc gives them."""
    parameters = inspect.signature(function).parameters.items()
    return {("**" if p.kind is p.VAR_KEYWORD else "") + name: p.default for name, p in parameters}


def constructor(cls):
    """The parameters of a class and their defaults."""
    return {} if cls.__init__ is object.__init__ else stars(cls)


def ids(cls):
    return cls.__name__


def test_section_reads_numpydoc():
    docstring = """One line.

    Parameters
    ----------
    a, b : int, default=1
        Both.

        Two paragraphs.
    **kwargs
        More.

    Returns
    -------
    c : float
    """
    expected = {"a": ("int, default=1", "Both. Two paragraphs. "), "b": ("int, default=1", "Both. Two paragraphs. ")}
    assert section(docstring, "Parameters") == expected | {"**kwargs": ("", "More. ")}
    assert section(docstring, "Attributes") == {}


@pytest.mark.parametrize("cls", CLASSES, ids=ids)
def test_documented_names_are_those_of_the_signature(cls):
    title = "Attributes" if dataclasses.is_dataclass(cls) else "Parameters"
    assert list(section(cls.__doc__, title)) == list(constructor(cls))


@pytest.mark.parametrize("cls", PLAIN, ids=ids)
def test_documented_defaults_are_those_of_the_signature(cls):
    entries = section(cls.__doc__, "Parameters")
    for name, default in constructor(cls).items():
        _, given, text = entries[name][0].partition("default=")
        if default is inspect.Parameter.empty:
            assert not given, name
        else:
            documented = ast.literal_eval(text)
            assert documented == default, name
            assert type(documented) is type(default), name


@pytest.mark.parametrize("cls", PLAIN, ids=ids)
def test_documented_ranges_are_those_that_are_checked(cls):
    entries = section(cls.__doc__, "Parameters")
    for name, constraints in getattr(cls, "_parameter_constraints", {}).items():
        for constraint in constraints:
            is_bounded = isinstance(constraint, Interval) and (constraint.left, constraint.right) != (None, None)
            if is_bounded:
                (expected,) = re.findall(r"[\[(].*[\])]$", str(constraint))
                kind = entries[name][0]
                documented = [text.replace(".0", "") for text in re.findall(r"[\[(][^\[(]*?[\])]", kind)]
                assert expected.replace(".0", "") in documented, f"{name} : {kind} should say {expected}"


@pytest.mark.parametrize("cls", PLAIN, ids=ids)
def test_every_parameter_has_a_constraint(cls):
    names = {name for name in constructor(cls) if not name.startswith("**")}
    constrained = set(getattr(cls, "_parameter_constraints", {}))
    # TorchOptimizer checks its arguments against those of the torch class.
    assert constrained == names or cls is components.TorchOptimizer


@pytest.mark.parametrize("cls", CLASSES, ids=ids)
def test_docstring_starts_with_one_sentence(cls):
    first, *rest = inspect.cleandoc(cls.__doc__).splitlines()
    assert first[0].isupper() or first[0].isdigit()
    assert "." in first or (rest and rest[0].endswith("."))


CATALOGUES = [name for name in components.__all__ if name.isupper() and isinstance(getattr(components, name), dict)]
ENTRIES = {f"{table}[{name!r}]": type(make()) for table in CATALOGUES for name, make in getattr(components, table).items()}


@pytest.mark.parametrize("cls", [*ENTRIES.values(), *ESTIMATORS], ids=[*ENTRIES, *map(ids, ESTIMATORS)])
def test_what_a_user_can_name_has_an_example(cls):
    assert ">>>" in cls.__doc__.partition("Examples\n")[2]


@pytest.mark.parametrize("cls", ESTIMATORS, ids=ids)
def test_documented_attributes_are_the_fitted_ones(cls):
    pd = pytest.importorskip("pandas")
    clf = cls((3,), max_iter=2, n_iter_no_change=2).fit(pd.DataFrame({"a": [0.0, 1.0, 0.0], "b": [1.0, 1.0, 0.0]}), [0, 1, 0])
    fitted = {name for name in dir(clf) if name.endswith("_") and not name.startswith("_")}
    assert set(section(cls.__doc__, "Attributes")) == fitted


@pytest.mark.parametrize("cls", ESTIMATORS, ids=ids)
def test_public_methods_document_their_arguments(cls):
    for name, method in inspect.getmembers(cls, inspect.isfunction):
        if name.startswith("_") or not method.__module__.startswith("skdnn"):
            continue
        documented = section(method.__doc__, "Parameters")
        assert list(documented) == [parameter for parameter in stars(method) if parameter != "self"], name
        assert section(method.__doc__, "Returns"), name


def test_every_module_and_public_function_says_what_it_is():
    modules = [module for module in vars(components).values() if inspect.ismodule(module)]
    for module in [skdnn, components, *modules]:
        assert module.__doc__, module.__name__
        for name, function in inspect.getmembers(module, inspect.isfunction):
            assert name.startswith("_") or function.__doc__, f"{module.__name__}.{name}"
