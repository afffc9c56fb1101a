"""Pelee's detector with the weights of another run: a trained classifier, or a detector of other classes."""

from typing import Any, ClassVar

import torch
from torch import nn

from common.base.errors import UserError
from common.base.stages import Stage, require_stage
from common.detection.ssd import SSD

# COCO's label (0..79) of each of VOC's 20 classes
VOC_IN_COCO = (4, 1, 14, 8, 39, 5, 2, 15, 56, 19, 60, 16, 17, 3, 0, 58, 18, 57, 6, 62)
COCO_CLASSES = 80


class Pelee(SSD):
    """SSD as Pelee has it (section 3), which may start from what another run has learnt.

    From a classifier it takes the weights of the backbone. From a detector of the same form it takes all
    weights; where the numbers of classes differ, logits start anew, but for VOC's 20 classes from COCO's 80:
    those take the logits of their own classes and of the background (the authors' "conf layers mapped").

    Args:
        encoder: the run; None starts from random weights.
        settings: of `SSD`.

    Raises:
        UserError: the run's network has other layers; else as SSD.
    """

    STAGES: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        *,
        encoder: Stage | str | None,
        shape: tuple[int, ...],
        classes: int | None,
        backbone: Any,
        sources: int,
        extras: list[tuple[int, int, int, int]],
        maps: list[int],
        scales: list[float],
        ratios: list[float],
        whole_pixels: bool,
        residual: int | None,
        kernel: int,
        norm_eps: float | None,
        norm_momentum: float | None,
    ) -> None:
        super().__init__(
            shape=shape,
            classes=classes,
            backbone=backbone,
            sources=sources,
            extras=extras,
            maps=maps,
            scales=scales,
            ratios=ratios,
            whole_pixels=whole_pixels,
            residual=residual,
            kernel=kernel,
            norm_eps=norm_eps,
            norm_momentum=norm_momentum,
        )
        if encoder is not None:
            self._take_over(require_stage(encoder, "model.encoder"))

    @torch.no_grad()
    def _take_over(self, stage: Stage) -> None:
        if isinstance(stage.model, SSD):
            own, given = self.state_dict(), stage.model.state_dict()
            given = {name: _fitting(name, value, own.get(name)) for name, value in given.items()}
            _load(self, given, stage)
        else:
            needed = set(self.backbone.state_dict())
            given = stage.model.state_dict()
            _load(self.backbone, {name: value for name, value in given.items() if name in needed}, stage)


def _load(module: nn.Module, weights: dict[str, torch.Tensor], stage: Stage) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(
            f"model.encoder={stage.words}: its layers are not those of this detector (valid: a run of a "
            "classifier with the same backbone, as model=peleenet for model=pelee, or of the same detector)"
        ) from error


def _fitting(name: str, given: torch.Tensor, own: torch.Tensor | None) -> torch.Tensor:
    """A tensor of another detector, its logits brought to the classes of this one."""
    if own is None or not name.startswith("logits.") or given.shape == own.shape:
        return given
    voc, coco = len(VOC_IN_COCO) + 1, COCO_CLASSES + 1
    of_cell, rest = divmod(len(own), voc)
    if rest or len(given) != of_cell * coco:
        return own
    rows = torch.tensor([0, *(1 + label for label in VOC_IN_COCO)])
    return given.unflatten(0, (of_cell, coco))[:, rows].flatten(0, 1)
