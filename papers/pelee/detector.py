"""Pelee's detector, which may start from one of COCO's classes where it is for VOC's."""

import torch
from torch import Tensor

from common.detection.ssd import SSD

# COCO's label (0..79) of each of VOC's 20 classes
VOC_IN_COCO = (4, 1, 14, 8, 39, 5, 2, 15, 56, 19, 60, 16, 17, 3, 0, 58, 18, 57, 6, 62)
COCO_CLASSES = 80


class Pelee(SSD):
    """SSD, with the settings of conf/model/pelee.yaml as the paper has it (section 3).

    Started from a detector for COCO's 80 classes, one for VOC's 20 takes the logits of its own classes and of
    the background over too (the authors' "conf layers mapped"); of other numbers of classes logits start
    anew, as those of every SSD do.
    """

    def start_from(self, weights: dict[str, Tensor]) -> str | None:
        """See `SSD.start_from`."""
        voc = self.classes == len(VOC_IN_COCO)
        return super().start_from({name: _mapped(name, w) if voc else w for name, w in weights.items()})


def _mapped(name: str, weight: Tensor) -> Tensor:
    """The part of a layer of COCO's logits that is for VOC's classes; any other tensor as it is."""
    of_cell, rest = divmod(len(weight), COCO_CLASSES + 1) if weight.dim() else (0, 1)
    if not name.startswith("logits.") or rest:
        return weight
    rows = torch.tensor([0, *(1 + label for label in VOC_IN_COCO)])
    return weight.unflatten(0, (of_cell, COCO_CLASSES + 1))[:, rows].flatten(0, 1)
