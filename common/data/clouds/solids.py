"""Clouds drawn from parametric solids: ours, for what needs no file."""

import math
from functools import cache
from typing import ClassVar, Unpack

import numpy as np
import torch

from common.base.dataset import Part, check
from common.data.clouds.cloud_data import Augment, PointClouds
from common.data.clouds.surface import Points, Triangles, revolved, sampled
from common.data.shared.in_memory import Options, Split

# of curves of a profile, and of what is round
CURVE, ROUND = 17, 48
SEEDS = {"train": 1, "test": 2}


def _arc(radius: float, low: float, high: float, right: float = 0.0, up: float = 0.0) -> Points:
    """A profile along an arc about (right, up), between two angles in radians from the equator."""
    angles = np.linspace(low, high, CURVE)
    return np.stack([right + radius * np.cos(angles), up + radius * np.sin(angles)], 1)


_QUARTER = math.pi / 2
_CYLINDER = np.array([[0, -1], [1, -1], [1, 1], [0, 1]], np.float64)
_CONE = np.array([[0, -1], [1, -1], [0, 1]], np.float64)
_TUBE = np.array([[0.6, -1], [1, -1], [1, 1], [0.6, 1], [0.6, -1]], np.float64)
# of each solid: its profile, and on how many sides it is swept around the axis
SOLIDS: dict[str, tuple[Points, int]] = {
    "sphere": (_arc(1.0, -_QUARTER, _QUARTER), ROUND),
    "hemisphere": (np.concatenate([[[0.0, 0.0]], _arc(1.0, 0.0, _QUARTER)]), ROUND),
    "capsule": (
        np.concatenate([_arc(0.6, -_QUARTER, 0.0, 0.0, -0.4), _arc(0.6, 0.0, _QUARTER, 0.0, 0.4)]),
        ROUND,
    ),
    "cylinder": (_CYLINDER, ROUND),
    "cone": (_CONE, ROUND),
    "torus": (_arc(0.35, -math.pi, math.pi, 0.65), ROUND),
    "tube": (_TUBE, ROUND),
    "box": (_CYLINDER, 4),
    "pyramid": (_CONE, 4),
    "prism": (_CYLINDER, 3),
}


class Solids(PointClouds):
    """Ten solids, a class each: 1,000 clouds to train on and 500 to test on, the same for every run.

    A solid is the surface that a profile sweeps around the z axis, on 48 sides or on three or four. Each
    cloud has its own one, stretched along the axes before and behind a turn about z and a tilt; its points
    are uniform by area, with a normal noise of each coordinate.

    Args:
        noise: the standard deviation of the noise, in units of the solid's radius.
        The others as in `PointClouds`.

    Raises:
        UserError: a noise below 0; what `PointClouds` refuses.
    """

    NAME: ClassVar = "solids"
    CLASSES: ClassVar = len(SOLIDS)
    CLASS_NAMES: ClassVar = tuple(SOLIDS)
    TRAIN_SIZE: ClassVar = 1000
    TEST_SIZE: ClassVar = 500

    def __init__(self, *, noise: float, points: int, augment: Augment, **options: Unpack[Options]) -> None:
        check("noise", noise, 0 <= noise < math.inf, "give 0 or more")
        super().__init__(points=points, augment=augment, **options)
        self.noise = noise

    def read(self, part: Part) -> Split:
        """Draw all clouds of one part; cloud n has class n mod 10."""
        size = self.TRAIN_SIZE if part == "train" else self.TEST_SIZE
        names = list(SOLIDS)
        clouds = [
            cloud_of(names[n % len(names)], self.points, self.noise, np.random.default_rng((SEEDS[part], n)))
            for n in range(size)
        ]
        return Split(torch.tensor(np.array(clouds), dtype=torch.float32), torch.arange(size) % len(names))


def cloud_of(name: str, points: int, noise: float, random: np.random.Generator) -> Points:
    """A cloud [points, 3] on a solid of that name."""
    vertices, triangles = _surface(name)
    shape = vertices * random.uniform(0.6, 1.4, 3)
    moved = shape @ _turn(random).T * random.uniform(0.8, 1.25, 3)
    return sampled(moved, triangles, points, random) + noise * random.standard_normal((points, 3))


@cache
def _surface(name: str) -> tuple[Points, Triangles]:
    return revolved(*SOLIDS[name])


def _turn(random: np.random.Generator) -> Points:
    """A turn about z by any angle, and a tilt about x by up to 0.1 pi."""
    angle, tilt = random.uniform(-math.pi, math.pi), random.uniform(-0.1, 0.1) * math.pi
    about_z = np.array(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    )
    about_x = np.array([[1, 0, 0], [0, math.cos(tilt), -math.sin(tilt)], [0, math.sin(tilt), math.cos(tilt)]])
    return about_x @ about_z
