"""The operations of a convolutional cell: their names, and their numbers in the two official codes."""

from typing import NamedTuple


class Operation(NamedTuple):
    """An operation as the tokens of the first official code have it.

    Attributes:
        type: what it does, "conv", "sep_conv", ...
        kernel: the size of its window, "1x1" to "7x7", or two one-dimensional ones in a row, "1x3+3x1".
    """

    type: str
    kernel: str


# the name of an operation is its type and its kernel; poolings count zeros around the map as numbers but for
# `avg_pool_3x3_inside`, which the weight-sharing space has in their place
OPERATIONS: dict[str, Operation] = {
    "sep_conv_3x3": Operation("sep_conv", "3x3"),
    "sep_conv_5x5": Operation("sep_conv", "5x5"),
    "avg_pool_3x3_inside": Operation("avg_pool", "3x3"),
    "identity": Operation("identity", "1x1"),
    "conv_1x1": Operation("conv", "1x1"),
    "conv_3x3": Operation("conv", "3x3"),
    "conv_1x3_3x1": Operation("conv", "1x3+3x1"),
    "conv_1x7_7x1": Operation("conv", "1x7+7x1"),
    "max_pool_2x2": Operation("max_pool", "2x2"),
    "max_pool_3x3": Operation("max_pool", "3x3"),
    "max_pool_5x5": Operation("max_pool", "5x5"),
    "avg_pool_2x2": Operation("avg_pool", "2x2"),
    "avg_pool_3x3": Operation("avg_pool", "3x3"),
    "avg_pool_5x5": Operation("avg_pool", "5x5"),
    "sep_conv_7x7": Operation("sep_conv", "7x7"),
    "dil_sep_conv_3x3": Operation("dil_sep_conv", "3x3"),
    "dil_sep_conv_5x5": Operation("dil_sep_conv", "5x5"),
    "dil_sep_conv_7x7": Operation("dil_sep_conv", "7x7"),
    "max_pool_7x7": Operation("max_pool", "7x7"),
    "min_pool_3x3": Operation("min_pool", "3x3"),
}

# the space of NAO-WS, and that of NAO, in the order of their numbers in the second code: 0 to 4, 5 to 15
NAO_WS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3_inside", "max_pool_3x3", "identity")
NAO = (
    "identity",
    "conv_1x1",
    "conv_3x3",
    "conv_1x3_3x1",
    "conv_1x7_7x1",
    "max_pool_2x2",
    "max_pool_3x3",
    "max_pool_5x5",
    "avg_pool_2x2",
    "avg_pool_3x3",
    "avg_pool_5x5",
)
# by number; a name that both spaces have stands twice
BY_NUMBER = (*NAO_WS, *NAO)

# the words of the first official code, in the order of their tokens from 7 and from 14 on
TYPES = ("identity", "sep_conv", "conv", "dil_sep_conv", "avg_pool", "max_pool", "min_pool")
KERNELS = ("1x1", "2x2", "3x3", "5x5", "7x7", "1x3+3x1", "1x7+7x1")
FIRST_TYPE, FIRST_KERNEL, TOKENS = 7, 14, 21

# operations by what their tokens stand for; that code's poolings are the padded ones of the space of NAO
BY_TOKENS = {pair: name for name, pair in OPERATIONS.items() if name != "avg_pool_3x3_inside"}


def first_number(operations: tuple[str, ...]) -> int:
    """The number of the first of a space's operations in the second official code; 0 of any other space."""
    return len(NAO_WS) if operations == NAO else 0
