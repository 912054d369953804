"""Direct access to torch's kernels."""


def kernel_of(overload):
    """Return the compiled function behind an overload of ``torch.ops.aten``, or the overload itself where torch hides it.

    The overload is a Python object whose call costs as much as a small kernel does.
    """
    return getattr(overload, "_op", overload)
