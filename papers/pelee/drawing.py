"""Test images with what a detector finds in them, as PNG files."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet
from common.data.images.decoding import Picture
from common.detection.nms import above, detections
from common.models.normalised import as_stored
from common.pictures.answers import objects
from common.pictures.drawing import drawn

# surest boxes alone are drawn; the other settings are those of the paper's evaluation
SCORE = 0.4


def draw_detections(network: nn.Module, data: DataSet, count: int, folder: str | Path) -> list[Path]:
    """Draw what a detector finds in the first test images into `folder/pictures/test_000.png`, ...

    Args:
        network: a detector on the data's device, with its `priors`.
        data: with a test split.
        count: of images, at most.
        folder: of the run.

    Returns:
        The files.
    """
    inputs, _ = data.batch("test", slice(0, min(count, data.size("test"))), augment=False)
    network.eval()
    with torch.no_grad():
        offsets, logits = network(inputs)
    priors: Any = network.priors
    found = detections(offsets, logits, priors, **above(SCORE))
    names = data.class_names() or [str(label) for label in range(data.classes or 0)]
    target = Path(folder) / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (pixels, boxes) in enumerate(zip(pictures_of(inputs, data.facts()), found, strict=True)):
        paths.append(target / f"test_{number:03}.png")
        drawn(pixels, objects(boxes, pixels.shape[:2]), names, 0).save(paths[-1])
    return paths


def pictures_of(inputs: Tensor, facts: dict[str, Any]) -> list[Picture]:
    """A network's inputs [b, 1 or 3, h, w] as the pictures that they were made of, see `DataSet.facts`."""
    stored = as_stored(inputs.cpu(), facts)
    lowest, highest = facts["input_range"] or (float(stored.min()), float(stored.max()))
    grey = (stored - lowest) / max(highest - lowest, torch.finfo(torch.float32).tiny)
    pixels = (255 * grey.clamp(0, 1)).round().byte().expand(-1, 3, -1, -1)
    return [image.permute(1, 2, 0).numpy() for image in pixels]
