"""Clouds of points with a class each: each normalised by itself, turned and stretched in training."""

import math
from typing import Any, ClassVar, Literal, Unpack

import torch
from torch import Tensor

from common.base.dataset import Batch, SplitName, check
from common.data.shared.in_memory import Options, Split, TensorData

Augment = Literal["none", "rotate_scale"]
# of "rotate_scale": the largest angle, in units of pi, and the range of the factors of each axis
ANGLE, SMALLEST, LARGEST = 0.1, 0.8, 1.25
# points of which clouds are drawn: part of the data, not of a run
SEED_OF_POINTS = 0
# what an absolute deviation is bounded by, in units of its mean, as in the code of DeepSets
OUTLIER = 100


class PointClouds(TensorData):
    """Clouds [points, 3] in memory, all of as many points.

    Args:
        points: of each cloud, at least 2.
        augment: "rotate_scale" for what the code of DeepSets does in training, behind the normalisation: a
            turn about the z axis by an angle uniform in [-0.1, 0.1] pi, then a factor uniform in
            [0.8, 1.25) for each axis; or "none".
        normalise: each cloud by itself, so that neither its place nor its unit of length matters:
            "standard": the mean of each axis is 0, the standard deviation over all coordinates 1
            (coordinates beyond 100 times their mean absolute value are first set to that);
            "unit_interval": the least of each axis is 0, and the longest extent 1;
            "unit_rows": divided by the Euclidean norm of all its coordinates; "none": as stored.
        The others as in `TensorData`.

    Raises:
        UserError: fewer than two points; what `TensorData` refuses.
    """

    KIND: ClassVar = "point_cloud_classification"
    # of any number of points
    SHAPE: ClassVar = (0, 3)

    def __init__(self, *, points: int, augment: Augment, **options: Unpack[Options]) -> None:
        check("points", points, points >= 2, "give at least 2")
        super().__init__(**options)
        self.points, self.augment = points, augment
        self.shape = (points, 3)

    def statistics(self, train: Split) -> tuple[Tensor, Tensor]:
        """(0, 1): what a cloud is moved and divided by is its own, see `normalised`."""
        return torch.zeros(()), torch.ones(())

    def normalised(self, inputs: Tensor) -> Tensor:
        """Stored clouds [b, p, 3] as float32, normalised."""
        if self.normalise == "none":
            return inputs.to(torch.float32, copy=True)
        if self.normalise == "standard":
            return standardised(inputs.float())
        if self.normalise == "unit_interval":
            return in_unit_cube(inputs.float())
        scaled = at_scale_one(inputs.float())
        return scaled / scaled.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1)

    def batch(self, split: SplitName, index: Tensor | slice, augment: bool) -> Batch:
        """Clouds float32 [b, points, 3] and their classes [b]; `augment` works on what is normalised."""
        inputs, targets = super().batch(split, index, augment=False)
        return (rotated_and_scaled(inputs) if augment and self.augment != "none" else inputs), targets

    def encoding(self) -> dict[str, Any]:
        """How a cloud becomes an input, in words."""
        how = {
            "standard": "moved so that the mean of each axis is 0, divided by the standard deviation of all "
            "coordinates",
            "unit_interval": "moved so that the least of each axis is 0, divided by the longest extent",
            "unit_rows": "divided by the Euclidean norm of all coordinates",
            "none": "as it is",
        }[self.normalise]
        return {"preparation": f"{self.points} points of the cloud, [{self.points}, 3]; the cloud {how}"}


def at_scale_one(clouds: Tensor) -> Tensor:
    """Clouds [b, p, 3] divided by their largest absolute coordinates: no square overflows or vanishes."""
    return clouds / _or_one(clouds.abs().amax((1, 2), keepdim=True))


def standardised(clouds: Tensor) -> Tensor:
    """Clouds [b, p, 3], each with mean 0 along each axis and standard deviation 1 over all coordinates.

    First z = at_scale_one(x) is clipped to 100 mean|z|, as in the code of DeepSets, which also takes one mean
    for the three axes; that of each axis is what its paper says (Zaheer et al., "Deep Sets", 2017).
    """
    scaled = at_scale_one(clouds)
    bound = OUTLIER * scaled.abs().mean((1, 2), keepdim=True)
    clipped = scaled.clamp(-bound, bound)
    centred = at_scale_one(clipped - clipped.mean(1, keepdim=True))
    return centred / _or_one(centred.square().mean((1, 2), keepdim=True).sqrt())


def in_unit_cube(clouds: Tensor) -> Tensor:
    """Clouds [b, p, 3] in [0, 1]: (x - least of the axis) / longest extent."""
    moved = at_scale_one(clouds)
    moved = moved - moved.amin(1, keepdim=True)
    return at_scale_one(moved)


def rotated_and_scaled(clouds: Tensor) -> Tensor:
    """Clouds [b, p, 3], each turned about the z axis and stretched along the axes at random.

    The angle is uniform in [-0.1, 0.1] pi, each factor in [0.8, 1.25), drawn from torch's global generator
    of the device.
    """
    count, device = len(clouds), clouds.device
    angles = (2 * torch.rand(count, device=device) - 1) * ANGLE * math.pi
    factors = SMALLEST + (LARGEST - SMALLEST) * torch.rand(count, 1, 3, device=device)
    return rotated(clouds, angles) * factors


def rotated(clouds: Tensor, angles: Tensor) -> Tensor:
    """Clouds [b, p, 3] turned about the z axis by angles [b] in radians, x towards y."""
    sine, cosine = angles.sin().view(-1, 1), angles.cos().view(-1, 1)
    x, y, z = clouds.unbind(2)
    return torch.stack([cosine * x - sine * y, sine * x + cosine * y, z], 2)


def _or_one(values: Tensor) -> Tensor:
    return torch.where(values > 0, values, 1.0)
