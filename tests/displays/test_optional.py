"""Displays cost nothing before one is drawn, and effects need no pandas."""

import subprocess
import sys

import skdnn.displays
import skdnn.model_selection


def run(code):
    completed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    return completed.stdout.split()


def test_importing_displays_does_not_load_matplotlib():
    assert run("import sys, skdnn.displays; print('matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules)") == [
        "False",
        "False",
    ]


def test_effects_without_pandas_and_matplotlib():
    script = """
import sys
sys.modules.update(dict.fromkeys(("pandas", "polars", "matplotlib")))
import skdnn.displays
from skdnn.model_selection import technique_effects
scores = [0.5, 0.75]
effects = technique_effects({"params": [{"a": 0}, {"a": 1}], "split0_test_score": scores, "split1_test_score": scores})
print(effects[1].effect)
try:
    effects.to_frame()
except ImportError:
    print("refused")
"""
    assert run(script) == ["0.25", "refused"]


def test_public_names_exist():
    for package in (skdnn.displays, skdnn.model_selection):
        for name in package.__all__:
            assert getattr(package, name).__doc__
