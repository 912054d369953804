"""What skdnn runs on, for a report of a bug."""

import importlib.metadata
import platform

import torch

from skdnn.engine import instruction_set

_PACKAGES = ("numpy", "scipy", "scikit-learn", "skorch", "joblib", "torch")


def show_versions():
    """Print the versions of skdnn and of what it stands on, and which kernels train networks on this machine's CPU.

    Without kernels of skdnn's own, networks are trained by torch's, which takes small ones several times as long: the package
    was then installed without a C compiler.

    Examples
    --------
    >>> import skdnn
    >>> skdnn.show_versions()  # doctest: +ELLIPSIS
    skdnn: ...
    """
    kernels = instruction_set()
    lines = {
        "skdnn": importlib.metadata.version("skdnn"),
        "kernels": "torch's (installed without a C compiler)" if kernels is None else f"skdnn's, {kernels}",
        "python": f"{platform.python_version()}, {platform.platform()}",
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "threads": str(torch.get_num_threads()),
        "CUDA": torch.version.cuda if torch.cuda.is_available() else "none",
    }
    for name, value in lines.items():
        print(f"{name}: {value}")
