"""What a network says of a picture, from its raw outputs, in torch. `whole_onnx` writes the same as ONNX."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from common.data.images.prepared import resized

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


Answer = Classes | Mask


def answers_of(
    task: str,
    outputs: Any,
    *,
    size: tuple[int, int],
    filled: list[tuple[int, int]],
    wholes: list[tuple[int, int]],
    classes: int,
) -> list[Answer]:
    """What the outputs of a batch say of its pictures.

    Args:
        task: a key of `common.runs.whole_onnx.ANSWERS`.
        outputs: of the network.
        size: (height, width) of its inputs.
        filled: which (height, width) of its input each picture fills, see `Prepared`.
        wholes: (height, width) of each picture.
        classes: of the data set; a network may have more outputs.
    """
    if task == "classification":
        return [Classes(row.numpy()) for row in outputs.float().softmax(1).cpu()]
    return [
        Mask(classes_of_pixels(logits, size, part, whole, classes))
        for logits, part, whole in zip(outputs, filled, wholes, strict=True)
    ]


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
