"""Names of test cases."""

import re


def name_of(value):
    """What a value looks like, without memory addresses: the workers of a parallel run must agree on it."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", str(value))[:50]
