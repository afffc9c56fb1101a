"""Test images with what a detector finds in them, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from common.base.dataset import DataSet
from common.detection.nms import Detections, detections

# surest boxes alone are drawn; the other settings are those of the paper's evaluation
SCORE, TOP, IOU, KEEP = 0.4, 400, 0.45, 200
# the longer side that a small image is enlarged to at least, in whole multiples
LEAST_SIDE = 256
COLOURS = ("#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4", "#008080", "#9a6324", "#800000")


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
    found = detections(offsets, logits, priors, score=SCORE, top=TOP, iou=IOU, keep=KEEP)
    names = data.class_names() or [str(label) for label in range(data.classes or 0)]
    target = Path(folder) / "pictures"
    target.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (pixels, boxes) in enumerate(zip(pictures_of(inputs, data.facts()), found, strict=True)):
        paths.append(target / f"test_{number:03}.png")
        drawn(pixels, boxes, names).save(paths[-1])
    return paths


def pictures_of(inputs: Tensor, facts: dict[str, Any]) -> list[Image.Image]:
    """A network's inputs [b, 1 or 3, h, w] as the pictures that they were made of, see `DataSet.facts`."""
    offset, scale = (torch.tensor(facts[key], dtype=torch.float32) for key in ("offset", "scale"))
    stored = torch.where(scale == 0, 0.0, inputs.cpu() / scale) + offset
    lowest, highest = facts["input_range"] or (float(stored.min()), float(stored.max()))
    grey = (stored - lowest) / max(highest - lowest, torch.finfo(torch.float32).tiny)
    pixels = (255 * grey.clamp(0, 1)).round().byte().expand(-1, 3, -1, -1)
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]


def drawn(picture: Image.Image, found: Detections, names: Sequence[str]) -> Image.Image:
    """A picture with boxes, each with its class and score, the surest on top; a small one is enlarged."""
    times = max(1, -(-LEAST_SIDE // max(picture.size)))
    image = picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(image)
    size = found.boxes.new_tensor([image.width, image.height] * 2).cpu()
    for box, score, label in reversed(list(zip(found.boxes.cpu(), found.scores, found.labels, strict=True))):
        left, top, right, bottom = (box * size).round().int().tolist()
        colour = COLOURS[int(label) % len(COLOURS)]
        draw.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=colour, width=2)
        text = f"{names[int(label)]} {float(score):.2f}"
        corner = (left, max(0, top - 11))
        draw.rectangle(draw.textbbox(corner, text), fill=colour)
        draw.text(corner, text, fill="white")
    return image
