"""A detector's loss beside its network, and non-maximum suppression against the usual loop.

    python -m benchmarks.detection_parts [turns=3]

The loss is that of 32 images with 50 objects each at the 5,142 priors of SSD at 304x304, with matching and
hard negative mining, forward and backward; the network is SSD on MobileNet v1, which is of Pelee's size.
Suppression is of 32 images x 20 classes with 200 candidates each, with IoU 0.45; candidates
are scattered, or crowd around 12 objects. The loop goes over the boxes of each image and class and compares
each with all that are left by NumPy. All are measured in turn; times are the least of the turns.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from benchmarks.figures import Figure, command, elapsed
from common.detection.loss import multibox_loss
from common.detection.nms import suppress
from common.detection.ssd import SSD
from common.models.mobilenet import MobileNetV1

CONF = Path(__file__).parents[1] / "conf" / "model"
IMAGES, OBJECTS, CLASSES, SIZE, TURNS = 32, 50, 20, 304, 3
CANDIDATES, IOU, PLACES = 200, 0.45, 12
SHARE, LIMIT_MS, FASTER = 0.15, 50.0, 10.0


def settings(name: str) -> dict[str, Any]:
    """A file of conf/model, without what Hydra alone reads."""
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return {key: value for key, value in config.items() if key not in ("defaults", "_target_", "backbone")}


def detector() -> SSD:
    """SSD on MobileNet v1 at 304x304, 20 classes."""
    backbone = partial(MobileNetV1, **settings("mobilenet_v1_imagenet"))
    return SSD(shape=(3, SIZE, SIZE), classes=CLASSES, backbone=backbone, **settings("ssd"))


def scattered(*shape: int) -> Tensor:
    """Boxes anywhere, with sides up to half the image: [*shape, 4]."""
    low = torch.rand(*shape, 2)
    return torch.cat([low, low + 0.5 * torch.rand(*shape, 2)], dim=-1)


def crowded(images: int) -> Tensor:
    """Candidates around few objects, as a trained detector has them: [images, classes, candidates, 4]."""
    places = scattered(images, CLASSES, PLACES)
    which = torch.randint(PLACES, (images, CLASSES, CANDIDATES, 1)).expand(-1, -1, -1, 4)
    return places.gather(2, which) + 0.01 * torch.randn(images, CLASSES, CANDIDATES, 4)


def loop(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Which of the boxes [n, 4] stay, the best first."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    kept, left = np.zeros(len(boxes), dtype=bool), np.arange(len(boxes))
    while len(left):
        best, left = left[0], left[1:]
        kept[best] = True
        low = np.maximum(boxes[best, :2], boxes[left, :2])
        high = np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(high - low, 0).prod(1)
        left = left[shared / (areas[best] + areas[left] - shared) <= iou]
    return kept


def loops(boxes: np.ndarray, iou: float) -> np.ndarray:
    """The loop for each image and class."""
    groups = boxes.reshape(-1, *boxes.shape[-2:])
    return np.stack([loop(group, iou) for group in groups]).reshape(boxes.shape[:-1])


def main(tiny: bool = False, turns: int = TURNS) -> dict[str, Figure]:
    """Measure the loss, then suppression."""
    images, turns = (2, 1) if tiny else (IMAGES, turns)
    torch.manual_seed(0)
    return {**loss_share(images, turns), **suppression(images, turns)}


def loss_share(images: int, turns: int) -> dict[str, Figure]:
    """The part of a step that the loss takes."""
    net, inputs = detector(), torch.randn(images, 3, SIZE, SIZE)
    boxes = scattered(images, OBJECTS).clamp_max(1) * SIZE
    labels = torch.randint(CLASSES, (images, OBJECTS, 1))
    targets = torch.cat([boxes, labels, torch.zeros_like(labels)], dim=-1)
    network, loss = [], []
    for _ in range(turns):
        start = time.perf_counter()
        outputs = net(inputs)
        passed = time.perf_counter()
        offsets, logits = (one.detach().requires_grad_() for one in outputs)
        multibox_loss(offsets, logits, net.priors, targets, (SIZE, SIZE), True).backward()
        judged = time.perf_counter()
        torch.autograd.backward(outputs, [offsets.grad, logits.grad])
        loss.append(judged - passed)
        network.append(time.perf_counter() - start - loss[-1])
    print(f"network {min(network):.2f} s, loss {min(loss):.3f} s, {images} images of {OBJECTS} objects")
    return {
        "loss": Figure(
            min(loss) / min(network),
            "of its time",
            f"detection: matching and loss of {IMAGES} images, {OBJECTS} objects, {len(net.priors):,} priors",
            "forward and backward pass of SSD on MobileNet v1",
            at_most=SHARE,
        )
    }


def suppression(images: int, turns: int) -> dict[str, Figure]:
    """Suppression of scattered and of crowded candidates."""
    figures = {}
    cases = {"scattered": scattered(images, CLASSES, CANDIDATES), "crowded": crowded(images)}
    for name, boxes in cases.items():
        there = torch.ones(boxes.shape[:-1], dtype=torch.bool)
        array = boxes.numpy()
        if not (suppress(boxes, there, IOU).numpy() == loops(array, IOU)).all():
            raise AssertionError(f"{name}: suppression and the loop keep other boxes")
        pairs = [
            (elapsed(lambda b=boxes, t=there: suppress(b, t, IOU)), elapsed(lambda a=array: loops(a, IOU)))
            for _ in range(turns)
        ]
        ours, theirs = (min(times) for times in zip(*pairs, strict=True))
        print(f"suppression, {name}: ours {1e3 * ours:.1f} ms, the loop {1e3 * theirs:.0f} ms")
        what = f"detection: suppression, {IMAGES} images x {CLASSES} classes x {CANDIDATES} {name} candidates"
        figures[f"suppression_{name}"] = Figure(
            theirs / ours,
            "x as fast",
            what,
            "a loop over boxes in NumPy, which keeps the same",
            at_least=FASTER,
        )
        figures[f"suppression_{name}_ms"] = Figure(1e3 * ours, "ms", what, at_most=LIMIT_MS)
    return figures


if __name__ == "__main__":
    command(main)
