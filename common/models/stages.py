"""Where the stages of a chain of layers end, and what they give."""

from collections.abc import Sequence

from torch import Tensor, nn

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


def chained(stages: nn.Sequential, inputs: Tensor) -> list[Tensor]:
    """The outputs of the stages of a chain, in order."""
    found: list[Tensor] = []
    for stage in stages:
        inputs = stage(inputs)
        found.append(inputs)
    return found


def ends_of_stages(layers: nn.Sequential, features: Sequence[str], inputs: Tensor) -> list[Tensor]:
    """The outputs of those layers of a chain that end a stage.

    Args:
        layers: the chain.
        features: "chain.i", ...: i is the position of each stage's last layer.
        inputs: of the first layer.
    """
    ends = {name.rsplit(".", 1)[1] for name in features}
    found: list[Tensor] = []
    for name, layer in layers.named_children():
        inputs = layer(inputs)
        if name in ends:
            found.append(inputs)
    return found
