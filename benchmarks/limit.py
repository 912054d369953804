"""The limit of the machine: how fast torch multiplies matrices here, and what that allows a fit to take."""

import contextlib
import statistics
import time

import torch

# Products that any float32 work could be cut into, beside those of the workload itself.
_LARGE = (1024, 1024, 1024)

# Relative error of a float32 product; one in bfloat16 or TF32 has 1e-3 or more.
_EXACT = 1e-5


@contextlib.contextmanager
def _default():
    yield


@contextlib.contextmanager
def _onednn():
    before = torch.backends.mkldnn.matmul.fp32_precision
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        torch.backends.mkldnn.matmul.fp32_precision = before


SETTINGS = {"default": _default, "oneDNN": _onednn}


def exact_settings(dtype):
    """Return the names of the settings whose products have the dtype's own precision."""
    if dtype != torch.float32:
        return ["default"]
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    exact, names = a @ b, []
    for name, setting in SETTINGS.items():
        with setting():
            error = (a.float() @ b.float()).double().sub_(exact).abs().max() / exact.abs().max()
        if error < _EXACT:
            names.append(name)
    return names


def products_of(task):
    """Return the products of a training step as (m, k, n, layout): outputs, kernels' gradients, inputs' gradients."""
    b = min(task.workload.batch_size, len(task.X))
    products = []
    for i, (n_in, n_out) in enumerate(zip(task.widths, task.widths[1:], strict=False)):
        products += [(b, n_in, n_out, "nt"), (n_out, b, n_in, "tn")]
        if i:
            products.append((b, n_out, n_in, "nn"))
    return products


class Product:
    """One product into a buffer, on its own memory; ``"t"`` in the layout says which factor is a transposed view."""

    def __init__(self, m, k, n, layout, dtype):
        a = torch.randn(k, m, dtype=dtype).t() if layout[0] == "t" else torch.randn(m, k, dtype=dtype)
        b = torch.randn(n, k, dtype=dtype).t() if layout[1] == "t" else torch.randn(k, n, dtype=dtype)
        self._factors, self._out = (a, b), torch.empty(m, n, dtype=dtype)
        self.flop = 2 * m * k * n

    def rate(self, budget=0.02):
        """Return floating-point operations a second, over about `budget` seconds."""
        n_calls = 1
        while True:
            start = time.perf_counter()
            for _ in range(n_calls):
                torch.mm(*self._factors, out=self._out)
            seconds = time.perf_counter() - start
            if seconds >= budget / 2:
                return n_calls * self.flop / seconds
            n_calls = max(2 * n_calls, int(n_calls * budget / max(seconds, 1e-9)))


class MatrixRates:
    """Rates of a task's products and of a large one, measured once a round beside the contestants.

    Parameters
    ----------
    task : Task
    """

    def __init__(self, task):
        dtype = getattr(torch, task.workload.dtype)
        self._settings = exact_settings(dtype)
        self._own = products_of(task)
        shapes = dict.fromkeys([*self._own, (*_LARGE, "nn"), (*_LARGE, "nt")])
        self._products = {shape: Product(*shape, dtype) for shape in shapes}
        self._rates = {(shape, setting): [] for shape in shapes for setting in self._settings}

    def measure(self):
        """Measure every product once, under every setting."""
        with torch.inference_mode():
            for (shape, setting), rates in self._rates.items():
                with SETTINGS[setting]():
                    rates.append(self._products[shape].rate())

    def summary(self, task):
        """Return the fastest rate, what reached it, and the seconds of a fit's products at it and at their own rates.

        Rates are medians over the rounds.
        """
        medians = {key: statistics.median(rates) for key, rates in self._rates.items()}
        (shape, setting), rate = max(medians.items(), key=lambda item: item[1])
        best = {shape: max(medians[shape, s] for s in self._settings) for shape in self._products}
        n_steps = task.flop / sum(self._products[shape].flop for shape in self._own)
        return {
            "flop": task.flop,
            "rate": rate,
            "product": "x".join(map(str, shape[:3])),
            "setting": setting,
            "settings": {name: max(r for (_, s), r in medians.items() if s == name) for name in self._settings},
            "seconds": task.flop / rate,
            "own_seconds": n_steps * sum(self._products[shape].flop / best[shape] for shape in self._own),
        }
