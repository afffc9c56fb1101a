"""Surfaces of triangles, and points on them that are uniform by area."""

import math

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]
Triangles = NDArray[np.int64]


def sampled(vertices: Points, triangles: Triangles, count: int, random: np.random.Generator) -> Points:
    """Points [count, 3] on a surface, independent and uniform by area.

    A triangle (a, b, c) is drawn in proportion to its area |(b - a) x (c - a)| / 2, and in it the point
    (1 - sqrt(u)) a + sqrt(u) (1 - w) b + sqrt(u) w c with u, w uniform in [0, 1) (Osada, Funkhouser,
    Chazelle, Dobkin, "Shape Distributions", 2002).

    Args:
        vertices: [v, 3], in any unit of length.
        triangles: [f, 3], numbers of vertices.
        count: how many points.
        random: where they come from.

    Raises:
        ValueError: no area at all.
    """
    extent = np.ptp(vertices, axis=0).max() if len(vertices) else 0.0
    # areas are squares of lengths: in units of the extent none of them overflows or vanishes
    corners = (vertices / extent if extent > 0 else vertices)[triangles]
    areas = np.linalg.norm(
        np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1
    )  # twice each
    if not areas.sum() > 0:
        raise ValueError("the surface has no area")
    bounds = areas.cumsum()
    chosen = np.searchsorted(bounds, random.random(count) * bounds[-1], side="right")
    root, along = np.sqrt(random.random((count, 1))), random.random((count, 1))
    a, b, c = vertices[triangles[chosen.clip(max=len(triangles) - 1)]].transpose(1, 0, 2)
    return (1 - root) * a + root * (1 - along) * b + root * along * c


def revolved(profile: Points, sides: int) -> tuple[Points, Triangles]:
    """The surface that a profile sweeps around the z axis, with so many flat sides.

    Args:
        profile: [p, 2], (distance from the axis, z) along the curve.
        sides: 3 or more; 4 make a box of a cylinder's profile.

    Returns:
        vertices [p * sides, 3] and triangles [2 (p - 1) sides, 3]; those on the axis have no area.
    """
    angles = 2 * math.pi * np.arange(sides) / sides
    radius, height = profile[:, :1], profile[:, 1:]
    rings = np.stack([radius * np.cos(angles), radius * np.sin(angles), height + 0 * angles], axis=2)
    ring, side = np.meshgrid(np.arange(len(profile) - 1), np.arange(sides), indexing="ij")
    here, there = ring * sides + side, ring * sides + (side + 1) % sides
    lower = np.stack([here, there, here + sides], axis=2)
    upper = np.stack([there, there + sides, here + sides], axis=2)
    return rings.reshape(-1, 3), np.concatenate([lower, upper]).reshape(-1, 3)
