"""What it was measured on."""

import datetime
import importlib.metadata
import os
import platform
from pathlib import Path

import torch

import skdnn
from skdnn.engine import instruction_set

_PACKAGES = ("numpy", "scikit-learn", "torch", "skorch", "jax", "keras")


def describe():
    """Return the machine, the versions and the date, as a dict of str."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "skdnn's kernels": instruction_set() or "not built",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "load when it began": f"{os.getloadavg()[0]:.2f}",
        "system": f"{platform.system()} {platform.machine()}",
        "Python": platform.python_version(),
        "skdnn": skdnn.__version__,
        **versions,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


def _cpu():
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    fields = dict(part for line in lines if len(part := tuple(p.strip() for p in line.split(":", 1))) == 2)
    name = fields.get("model name") or platform.processor() or platform.machine()
    return f"{name}, family {fields['cpu family']}, model {fields['model']}" if "cpu family" in fields else name
