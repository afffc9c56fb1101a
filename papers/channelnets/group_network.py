"""Group modules alone, pooling and a linear layer: what they can tell of channels in different groups."""

from typing import ClassVar, Literal

from torch import Tensor, nn

from common.base.errors import UserError
from common.models.shapes import require_classes, require_image
from common.models.split import SpatialMean, cut
from papers.channelnets.blocks import GroupChannelwiseModule, GroupModule
from papers.channelnets.layers import require_choice
from papers.channelnets.network import initialise, naming


class GroupNetwork(nn.Module):
    """Group modules one after the other on the channels of the inputs, average pooling, logits.

    With GM alone the channels of different groups meet in the linear layer only: logits are sums of what
    each group gives.

    `features`: each module's outputs.

    Args:
        shape: (channels, height, width).
        classes: number of logits.
        modules: "gm" or "gcwm" each.
        groups: g, divides the channels.
        gcw_kernel: d_c of the GCWM.

    Raises:
        UserError: inputs that are no images, no classes, no modules; what a layer refuses, with its place.
    """

    task: ClassVar[Literal["classification"]] = "classification"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        modules: list[str],
        groups: int,
        gcw_kernel: int,
    ) -> None:
        super().__init__()
        channels, _, _ = require_image("group_network", shape, smallest=1)
        if not modules:
            raise UserError("model.modules=[]; valid: one or more of gm, gcwm")
        self.blocks = nn.Sequential()
        for number, kind in enumerate(modules):
            with naming(f"blocks.{number}"):
                require_choice("modules", str(number), kind, ("gm", "gcwm"))
                if kind == "gm":
                    self.blocks.append(GroupModule(channels, groups))
                else:
                    self.blocks.append(GroupChannelwiseModule(channels, groups, gcw_kernel))
        self.features = tuple(f"blocks.{number}" for number in range(len(modules)))
        self.classifier = nn.Sequential(
            SpatialMean(), nn.Linear(channels, require_classes("group_network", classes))
        )
        initialise(self)

    def forward(self, inputs: Tensor) -> Tensor:
        """Maps [b, channels, h, w] to logits [b, classes]."""
        return self.classifier(self.blocks(inputs))

    def split(self, unshared: int) -> tuple[nn.Module, nn.Module]:
        """The network cut before its last `unshared` modules (`common.models.split`)."""
        low, high = cut(self.blocks, self.features, unshared)
        return low, nn.Sequential(high, self.classifier)
