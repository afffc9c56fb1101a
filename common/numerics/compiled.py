"""Loops over numbers in machine code, by Numba.

A module of such loops is imported where they are called and not at the head of another, as Numba takes a
third of a second to be imported: a run without them is not to wait for it.
"""

from collections.abc import Callable
from functools import wraps
from pickle import UnpicklingError
from typing import ParamSpec, TypeVar

import numba

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def compiled(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """A function of numbers and NumPy arrays that becomes machine code at its first call.

    That takes a second or two for each set of types that it is called with; the code is kept on disk for
    other processes, in `__pycache__` beside the module or where NUMBA_CACHE_DIR says. Where it cannot be kept
    or read, each process makes its own. Arithmetic is that of NumPy: in the order and the precision that are
    written, and a division by zero gives infinity or NaN. Other threads go on meanwhile.
    """
    make = numba.njit(error_model="numpy", nogil=True)
    try:
        kept = numba.njit(error_model="numpy", nogil=True, cache=True)(function)
    except RuntimeError:
        # Numba's own where there is no folder that can be written
        return make(function)
    unkept = make(function)

    @wraps(function)
    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Result:
        try:
            return kept(*arguments, **named)
        except (OSError, EOFError, UnpicklingError):
            # a full disk, or a file that was cut off
            return unkept(*arguments, **named)

    return call
