"""Texts of parameters: the same in every process, and another for whatever means something else."""

import functools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, make_scorer

from skdnn import MLPDeepClassifier
from skdnn.components import L1, Exponential, LeakyReLU, Momentum, TorchOptimizer
from skdnn.model_selection._text_of import NoStableTextError, text_of


def swish(x, beta=1.0):
    return x * torch.sigmoid(beta * x)


def square(x):
    return x * x


def cube(x):
    return x * x * x


def power(n):
    return lambda x: x**n


class Leaky(LeakyReLU):
    """A user's own."""

    def inner(self):
        return super().__repr__()


class Steeper(Leaky):
    """One more."""

    @property
    def slope(self):
        return 2.0

    @staticmethod
    def twice(x):
        return 2 * x


def make_values():
    return {
        "none": None,
        "true": True,
        "one": 1,
        "one_float": 1.0,
        "text_one": "1",
        "numpy_one": np.float64(1.0),
        "inf": np.inf,
        "nan": np.nan,
        "list": [1, None],
        "tuple": (1, None),
        "single": (1,),
        "nested": [[1], None],
        "dict": {"a": 1, "b": 2.0},
        "set": {"a", "b", "c"},
        "frozen": frozenset("abc"),
        "array": np.arange(3),
        "float_array": np.arange(3.0),
        "column": np.arange(3)[:, np.newaxis],
        "objects": np.array(["a", None], dtype=object),
        "tensor": torch.arange(3),
        "device": torch.device("cpu"),
        "dtype": torch.float32,
        "component": Momentum(0.5),
        "other_component": Momentum(0.6),
        "penalty": L1(0.5),
        "schedule": Exponential(0.5, 1),
        "torch_optimizer": TorchOptimizer(torch.optim.SGD, momentum=0.9),
        "class": torch.optim.SGD,
        "builtin": torch.sin,
        "other_builtin": torch.cos,
        "len": len,
        "known_function": torch.nn.init.xavier_normal_,
        "module": torch.nn.SiLU(),
        "function": swish,
        "partial": functools.partial(swish, beta=2.0),
        "square": square,
        "cube": cube,
        "power": power(2),
        "other_power": power(3),
        "lambda": lambda x: x + 1,
        "other_lambda": lambda x: x + 2,
        "own_class": Leaky(0.1),
        "own_subclass": Steeper(0.1),
        "scorer": make_scorer(accuracy_score),
        "other_scorer": make_scorer(accuracy_score, normalize=False),
        "generator": np.random.RandomState(0),
        "other_generator": np.random.RandomState(1),
        "new_generator": np.random.default_rng(0),
        "estimator": MLPDeepClassifier(random_state=np.random.RandomState(0), activation=[LeakyReLU(0.3)]),
    }


def test_texts_differ_where_values_do():
    texts = {name: text_of(value) for name, value in make_values().items()}
    assert len(set(texts.values())) == len(texts)


def test_texts_are_those_of_another_process():
    here = [text_of(value) for value in make_values().values()]
    code = "import test_text_of as t\nfor value in t.make_values().values(): print(t.text_of(value))"
    path = Path(__file__)
    environment = {"PYTHONPATH": f"{path.parents[2]}:{path.parent}", "PYTHONHASHSEED": "7"}
    there = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.splitlines() == here


def test_texts_can_be_read():
    assert text_of([Momentum(0.5), "adam", (1,)]) == "[skdnn.components.optimizers.Momentum(momentum=0.5), 'adam', (1,)]"
    assert text_of({"b": 1, "a": 2}) == text_of({"a": 2, "b": 1}) == "{'a': 2, 'b': 1}"
    assert text_of(swish).startswith(f"{__name__}.swish<")


def test_arrays_are_known_by_content():
    array = np.arange(12).reshape(3, 4)
    assert text_of(array) == text_of(np.asfortranarray(array)) == text_of(array[::1].copy())
    assert text_of(array) != text_of(array.T)
    assert text_of(array) != text_of(array + 1)


def redefine(source, name="f"):
    """What a user's own module has by a name."""
    scope = {"__name__": "users", "LeakyReLU": LeakyReLU}
    exec(source, scope)
    return scope[name]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("def f(x): return x", "def f(x): return -x"),
        ("def f(x): return 2 * x", "def f(x): return 3 * x"),
        ("def f(x, a=1): return x", "def f(x, a=2): return x"),
        ("def f(x, *, a=1): return x", "def f(x, *, a=2): return x"),
        ("def f(x): return [2 * e for e in x]", "def f(x): return [3 * e for e in x]"),
        ("class f(LeakyReLU):\n def g(self): return 1", "class f(LeakyReLU):\n def g(self): return 2"),
        ("class f(LeakyReLU):\n g = 1", "class f(LeakyReLU):\n g = 2"),
        ("class b(LeakyReLU):\n g = 1\nclass f(b): pass", "class b(LeakyReLU):\n g = 2\nclass f(b): pass"),
        ("class f:\n @property\n def g(self): return 1", "class f:\n @property\n def g(self): return 2"),
        ("class f:\n @classmethod\n def g(self): return 1", "class f:\n @classmethod\n def g(self): return 2"),
    ],
)
def test_changed_code_is_other_code(before, after):
    assert text_of(redefine(before)) == text_of(redefine("# moved\n\n" + before))
    assert text_of(redefine(before)) != text_of(redefine(after))


def test_what_has_no_stable_text():
    class Local(LeakyReLU):
        pass

    endless = []
    endless.append(endless)
    for value in (Local(), Local, (letter for letter in "abc"), endless):
        with pytest.raises(NoStableTextError):
            text_of(value)
