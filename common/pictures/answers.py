"""What a network says of a picture, from its raw outputs; `runs.whole_onnx` writes the same as ONNX."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from common.data.images.prepared import resized
from common.detection.nms import Detections, above, detections

# a pixel that no class was given to; masks of classes are uint8
NO_CLASS = 255


@dataclass(frozen=True)
class Classes:
    """The probabilities of all classes, float32 [k]."""

    probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class Mask:
    """The class of each pixel of the picture, uint8 [H, W]; `NO_CLASS` where there is none."""

    classes: NDArray[np.uint8]


@dataclass(frozen=True)
class Objects:
    """What was found, the surest first.

    Shapes: boxes float32 [n, 4], corners (x0, y0, x1, y1) in pixels of the picture, within it; scores
    float32 [n], probabilities; labels int64 [n].
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


Answer = Classes | Mask | Objects


class WithPriors(nn.Module):
    """A detector that gives its priors too, which its offsets are from: offsets, logits, priors [P, 4].

    Args:
        network: gives offsets [b, P, 4] and logits [b, P, classes + 1].
        priors: (cx, cy, w, h) relative to the image, [P, 4].
    """

    priors: Tensor

    def __init__(self, network: nn.Module, priors: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("priors", priors)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See the class."""
        offsets, logits = self.network(images)
        return offsets, logits, self.priors


def answers_of(
    task: str,
    outputs: Any,
    *,
    size: tuple[int, int],
    filled: list[tuple[int, int]],
    wholes: list[tuple[int, int]],
    classes: int,
    score: float,
) -> list[Answer]:
    """What the outputs of a batch say of its pictures.

    Args:
        task: a key of `common.runs.whole_onnx.ANSWERS`.
        outputs: of the network; of detection those of `WithPriors`.
        size: (height, width) of its inputs.
        filled: which (height, width) of its input each picture fills, see `Prepared`.
        wholes: (height, width) of each picture.
        classes: of the data set; a network may have more outputs.
        score: boxes of a lower probability are left out.
    """
    if task == "classification":
        return [Classes(row.numpy()) for row in outputs.float().softmax(1).cpu()]
    if task == "detection":
        return _objects(outputs, wholes, score)
    return [
        Mask(classes_of_pixels(logits, size, part, whole, classes))
        for logits, part, whole in zip(outputs, filled, wholes, strict=True)
    ]


def _objects(outputs: Sequence[Tensor], wholes: list[tuple[int, int]], score: float) -> list[Answer]:
    """The boxes of a batch, in pixels of the pictures."""
    offsets, logits, priors = outputs
    found = detections(offsets, logits, priors, **above(score))
    return [objects(one, whole) for one, whole in zip(found, wholes, strict=True)]


def objects(found: Detections, whole: tuple[int, ...]) -> Objects:
    """What was found in a picture of (height, width), in its pixels."""
    height, width = whole
    boxes = found.boxes.cpu() * torch.tensor([width, height, width, height])
    return Objects(boxes.numpy(), found.scores.cpu().numpy(), found.labels.cpu().numpy())


def classes_of_pixels(
    logits: Tensor, size: tuple[int, int], filled: tuple[int, int], whole: tuple[int, int], classes: int
) -> NDArray[np.uint8]:
    """The class of each pixel of a picture, uint8 [H, W]: that of the largest logit once all are resized.

    Logits are brought to the network's input, cut to what the picture fills of it, and brought to the
    picture, bilinearly and antialiased; class by class, as all at once would fill gigabytes.

    Shapes: logits float32 [k, h, w], k at least `classes`; those beyond stand for no class.
    """
    large = resized(logits.float(), size)[:, : filled[0], : filled[1]]
    best = resized(large[:1], whole)[0]
    found = torch.zeros(whole, dtype=torch.uint8, device=logits.device)
    for label in range(1, len(large)):
        plane = resized(large[label : label + 1], whole)[0]
        found[plane > best] = label if label < classes else NO_CLASS
        best = torch.maximum(best, plane)
    return found.cpu().numpy()
