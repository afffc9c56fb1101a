"""Points on surfaces are uniform by area, whatever the unit; swept profiles have their solids' areas."""

import math

import numpy as np
import pytest

from common.data.clouds.solids import SOLIDS, cloud_of
from common.data.clouds.surface import revolved, sampled


def area(vertices: np.ndarray, triangles: np.ndarray) -> float:
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_points_fall_on_triangles_in_proportion_to_their_areas_and_uniformly_within() -> None:
    # areas 1/2 in the plane z = 0 and 3/2 in the plane z = 1
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [3, 0, 1], [0, 1, 1]], np.float64)
    points = sampled(vertices, np.array([[0, 1, 2], [3, 4, 5]]), 40_000, np.random.default_rng(0))
    first = points[points[:, 2] == 0]
    assert len(first) / 40_000 == pytest.approx(0.25, abs=0.01)
    assert (first[:, :2] >= 0).all() and (first[:, :2].sum(1) <= 1 + 1e-12).all()
    # moments of the uniform distribution on that triangle: means 1/3, variances 1/18, covariance -1/36
    assert first[:, :2].mean(0) == pytest.approx([1 / 3, 1 / 3], abs=0.01)
    assert np.cov(first[:, :2].T) == pytest.approx(np.array([[2, -1], [-1, 2]]) / 36, abs=0.003)


@pytest.mark.parametrize("unit", [1e-200, 1e-8, 1e8, 1e200])
def test_the_unit_of_length_changes_nothing(unit: float) -> None:
    vertices, triangles = revolved(*SOLIDS["cone"])
    plain = sampled(vertices, triangles, 50, np.random.default_rng(1))
    scaled = sampled(vertices * unit, triangles, 50, np.random.default_rng(1))
    assert scaled / unit == pytest.approx(plain, rel=1e-12)


def test_a_surface_without_area_is_refused() -> None:
    with pytest.raises(ValueError, match="no area"):
        sampled(np.ones((3, 3)), np.array([[0, 1, 2]]), 5, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("sphere", 4 * math.pi),
        ("hemisphere", 3 * math.pi),
        ("cylinder", 6 * math.pi),
        ("cone", math.pi * (1 + math.sqrt(5))),
        ("torus", 4 * math.pi**2 * 0.65 * 0.35),
        ("capsule", 4 * math.pi * 0.36 + 2 * math.pi * 0.6 * 0.8),
        ("tube", 2 * math.pi * (1.6 * 2 + (1 - 0.36))),
        # a square of diagonal 2 as base, height 2
        ("box", 2 * 2 + 4 * math.sqrt(2) * 2),
        ("prism", 2 * 3 * math.sqrt(3) / 4 + 3 * math.sqrt(3) * 2),
    ],
)
def test_swept_profiles_have_the_areas_of_their_solids(name: str, expected: float) -> None:
    assert area(*revolved(*SOLIDS[name])) == pytest.approx(expected, rel=0.015)


def test_a_cloud_is_the_same_for_the_same_generator_and_noise_moves_its_points() -> None:
    clouds = [cloud_of("torus", 64, noise, np.random.default_rng(3)) for noise in (0.0, 0.0, 0.1)]
    assert np.array_equal(clouds[0], clouds[1])
    assert 0.07 < (clouds[2] - clouds[0]).std() < 0.13
