"""CURVES: images of smooth random curves, generated (Hinton and Salakhutdinov 2006, supporting text).

The original images are of curves drawn from three random points in the plane, so the data have six
degrees of freedom: the width of the code layer of the autoencoders trained on them. The original
generator is not published; here is one of the same description.
"""

from typing import ClassVar

import torch
from torch import Tensor

from common.data.shared.in_memory import ImageData, Part, Split
from common.data.shared.subsets import stratified_subset

SIDE = 28
# a parabola through three points leaves their frame by at most an eighth of its 22 pixels
MARGIN = 3.0
PEN_RADIUS = 0.7
STROKE_POINTS = 96
GENERATOR_SEED = 2006
CHUNK = 500


def control_points(part: Part) -> Tensor:
    """The three points of every curve of a part, uniform in the frame less its margin: [n, 3, 2] in pixels.

    All 30,000 come from one stream with a seed of its own: the set is the same in every run.
    """
    total = Curves.TRAIN_SIZE + Curves.TEST_SIZE
    generator = torch.Generator().manual_seed(GENERATOR_SEED)
    points = MARGIN + (SIDE - 2 * MARGIN) * torch.rand(total, 3, 2, generator=generator)
    return points[: Curves.TRAIN_SIZE] if part == "train" else points[Curves.TRAIN_SIZE :]


def draw(points: Tensor) -> Tensor:
    """Draw the parabola through each triple of points with a soft round pen, anti-aliased.

    c(t) = (1-t)(1-2t) p0 + 4t(1-t) p1 + t(2t-1) p2 passes p0, p1, p2 at t = 0, 1/2, 1. The grey value at
    pixel centre z is min(1, ∫ exp(-|z - c(t)|^2 / 2 r^2) |c'(t)| dt / (sqrt(2 pi) r)), r the pen's radius:
    1 on the line, whatever its speed. The Gaussian separates into rows and columns, so an image is one
    matrix product.

    Shapes: [n, 3, 2] (x, y in pixels) -> uint8 [n, 1, 28, 28].
    """
    return torch.cat([_draw_chunk(chunk) for chunk in points.split(CHUNK)])


def _draw_chunk(points: Tensor) -> Tensor:
    time = (torch.arange(STROKE_POINTS) + 0.5) / STROKE_POINTS
    position = torch.stack([(1 - time) * (1 - 2 * time), 4 * time * (1 - time), time * (2 * time - 1)], dim=1)
    velocity = torch.stack([4 * time - 3, 4 - 8 * time, 4 * time - 1], dim=1)
    place, speed = position @ points, (velocity @ points).norm(dim=-1, keepdim=True)

    centres = torch.arange(SIDE) + 0.5
    distance = (place[..., None] - centres) ** 2 / (2 * PEN_RADIUS**2)
    # denormal numbers are slow, and exp(-40) is no ink
    pen = torch.exp(-distance.clamp(max=40))
    columns, rows = pen[:, :, 0], pen[:, :, 1] * speed / (STROKE_POINTS * PEN_RADIUS * (2 * torch.pi) ** 0.5)
    ink = rows.transpose(1, 2) @ columns
    return (ink.clamp(max=1) * 255).round().to(torch.uint8)[:, None]


class Curves(ImageData):
    """28x28 grey images of smooth curves through random points: 20,000 for training, 10,000 for testing."""

    NAME: ClassVar = "curves"
    KIND: ClassVar = "image_reconstruction"
    SHAPE: ClassVar = (1, SIDE, SIDE)
    CLASSES: ClassVar = None
    TRAIN_SIZE: ClassVar = 20_000
    TEST_SIZE: ClassVar = 10_000
    MEAN: ClassVar = (0.0525,)
    STD: ClassVar = (0.1853,)
    READS_TEST_IN_SETUP: ClassVar = False

    def read(self, part: Part) -> Split:
        """Draw all of one part."""
        return Split(draw(control_points(part)), None)

    def limited_train(self, generator: torch.Generator) -> Split:
        """Draw only those curves that `limit` asks for."""
        if self.limit is None or self.source == "synthetic":
            return super().limited_train(generator)
        self.check_limit(self.TRAIN_SIZE)
        chosen = stratified_subset(None, self.TRAIN_SIZE, self.limit, generator)
        return Split(draw(control_points("train")[chosen]), None)
