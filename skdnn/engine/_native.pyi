"""Kernels in C; see native/module.c."""

from typing import Any

INSTRUCTION_SETS: tuple[tuple[int, str], ...]
"""Numbers and names of the sets of vector instructions that this processor has, the best first."""

CODES: dict[str, int]
"""The number of each operation."""

N_ELEMENTWISE: int
"""Operations with smaller numbers are elementwise."""

MAX_CHAIN: int
MAX_OPERANDS: int
MAX_NUMBERS: int
OPERATION_SIZE: int

def run(program: Any, numbers: Any, first: int, n_steps: int, is_double: bool, instructions: int, /) -> None: ...
