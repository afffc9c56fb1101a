"""Where the stages of a chain of layers end."""

from common.base.errors import UserError


def require_strides(strides: list[int], layers: int) -> None:
    """Refuse a list of strides with other values than 1 and 2, or not one for each of the layers.

    Raises:
        UserError: see above.
    """
    if len(strides) != layers or not set(strides) <= {1, 2}:
        raise UserError(f"model: the strides are {list(strides)}; valid: {layers} numbers, each 1 or 2")


def stage_ends(strides: list[int]) -> list[int]:
    """The positions of the last layer of each stage: a stage is the layers whose outputs have one size.

    The first layer starts the first stage whatever its stride; every later one with stride 2 starts another.
    """
    last = len(strides) - 1
    return [i for i in range(len(strides)) if i == last or strides[i + 1] == 2]
