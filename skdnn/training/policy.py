"""How many threads a call uses, and which matrix product: set for the call, put back after it."""

import contextlib
import functools
import threading

import torch

# Multiplications in one product of a batch with all kernels below which one thread is used. Measured on two cores, alone:
# 13 million (784-300-100-10, batch 50) gain nothing from a second thread, 53 million (batch 200) a third, 745 million (three
# layers of 1,024, batch 256) two thirds. Beside a busy process 53 million take four times as long on two threads as on one.
_WORK_FOR_THREADS = 100_000_000

# Threads below which one is used. Threads share a product in equal parts and wait for the slowest: beside a process that keeps
# a core busy, n of them take twice their time. Two then are no faster than one, and alone gain a third here; three still win.
# The number cannot follow the load, for the last bits of a product depend on it.
_FEWEST_THREADS = 3

# Relative error of a product of 256 terms in float32; one in bfloat16 or TF32 has an error of 1e-3 or more.
_FLOAT32_ERROR = 1e-5


class _SharedSetting:
    """A process-wide setting that several threads may want changed at once.

    The first to come saves it and the last to leave restores it; those in between find it changed already.

    Parameters
    ----------
    read, write : callable
    """

    def __init__(self, read, write):
        self._read = read
        self._write = write
        self._lock = threading.Lock()
        self._n_users = 0

    @contextlib.contextmanager
    def set_to(self, value):
        with self._lock:
            if self._n_users == 0:
                self._before = self._read()
                if self._before != value:
                    self._write(value)
            self._n_users += 1
        try:
            yield
        finally:
            with self._lock:
                self._n_users -= 1
                if self._n_users == 0 and self._read() != self._before:
                    self._write(self._before)


def _read_precision():
    return torch.backends.mkldnn.matmul.fp32_precision


def _write_precision(value):
    torch.backends.mkldnn.matmul.fp32_precision = value


_precision = _SharedSetting(_read_precision, _write_precision)


@contextlib.contextmanager
def _one_thread():
    """Use one thread in this thread's kernels. Each thread has a number of its own, so each saves and restores its own."""
    before = torch.get_num_threads()
    if before != 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def uses_one_thread(work):
    """Say whether one thread is used on a CPU.

    Parameters
    ----------
    work : int
        Multiplications in one product of a batch with all kernels.
    """
    return work < _WORK_FOR_THREADS or torch.get_num_threads() < _FEWEST_THREADS


@contextlib.contextmanager
def compute_policy(work, dtype, device):
    """Run a block with the threads and the matrix product that suit it.

    Small work runs on one thread: there a second one costs more than it brings, and beside another busy process it costs a
    hundred times more. Large work keeps the threads that torch has been given, if they are three or more.

    Parameters
    ----------
    work : int
        Multiplications in one product of a batch with all kernels.
    dtype : torch.dtype
    device : torch.device
    """
    is_here, unchanged = device.type == "cpu", contextlib.nullcontext()
    has_fast_product = is_here and work >= _WORK_FOR_THREADS and dtype == torch.float32 and _onednn_pays()
    with (
        _one_thread() if is_here and uses_one_thread(work) else unchanged,
        _precision.set_to("bf16") if has_fast_product else unchanged,
    ):
        yield


def multiplies_bfloat16(device):
    """Say whether a device has instructions for products of bfloat16 numbers. Others would compute them, and take longer.

    Parameters
    ----------
    device : torch.device
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and _has_instructions("avx512_bf16", "amx_bf16")


def _has_instructions(*names):
    return any(torch.cpu.get_capabilities().get(name, False) for name in names)


@functools.cache
def _onednn_pays():
    """Say whether oneDNN's product is the faster one here and still a float32 product.

    With AVX-512 it runs at twice the rate of torch's default product. The setting that selects it also permits bfloat16, which
    a CPU with AMX then uses: there it is not even tried, for another thread may be multiplying. A probe finds out whether
    others do. Time is not probed, so that two runs never choose differently.
    """
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or _has_instructions("amx_bf16"):
        return False
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(256, 256, generator=generator, dtype=torch.float64) for _ in range(2))
    exact = a @ b
    with _precision.set_to("bf16"):
        error = (a.float() @ b.float()).double().sub_(exact).abs().max() / exact.abs().max()
    return float(error) < _FLOAT32_ERROR
