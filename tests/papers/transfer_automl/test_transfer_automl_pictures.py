"""The picture of a search over several tasks."""

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_transfer_automl_search import controller, family, fit, uniform

from papers.transfer_automl.pictures import picture, places, spread


def result(root: Path, **changes: Any) -> dict[str, Any]:
    module = fit(family(), controller(), root, trials=60, **changes)
    return {"metrics": module.results(), "history": module.history}


def texts(svg: str) -> str:
    return " ".join("".join(part.itertext()) for part in ET.fromstring(svg).findall(".//{*}text"))


def test_a_picture_has_every_task_its_cosines_and_its_curve_with_an_interval(tmp_path: Path) -> None:
    found = result(tmp_path, repeats=3)
    assert {"top_validation_task1_low", "top_validation_task1_high"} <= found["history"].keys()
    svg = picture(found)
    assert svg is not None
    said = texts(svg)
    cosines = np.array(found["metrics"]["embedding_cosines"]).reshape(3, 3)
    # at both sides of the table, on the map and at the end of its curve
    assert all(said.count(f"task{k}") == 4 for k in range(3))
    assert all(f"{value:.2f}" in said for value in cosines.ravel())
    assert svg.count('<g id="FillBetweenPolyCollection') == 3


def test_one_replicate_has_curves_without_intervals(tmp_path: Path) -> None:
    svg = picture(result(tmp_path, repeats=1))
    assert svg is not None and "FillBetween" not in svg and "over replicates" not in texts(svg)


@pytest.mark.parametrize(
    ("choices", "unit"), [({"dataset": "text_table"}, "%"), ({"dataset": "design_family"}, "reward")]
)
def test_the_axis_of_the_curves_says_what_they_are_in_which_unit(choices: dict[str, str], unit: str) -> None:
    metrics = {
        "embedding_correlation_a": 0.0,
        "embedding_correlation_b": 0.0,
        "embedding_cosines": [1, 0, 0, 1],
    }
    svg = picture({"metrics": metrics, "choices": choices, "config": {"paper": {"top": 10}}})
    assert svg is not None and f"validation, mean of the 10 best ({unit})" in texts(svg)


@pytest.mark.parametrize("heights", [[], [5.0], [3.0, 3.0, 3.0], [1.0, 99.0, 98.0, 2.0], [100.0, 100.0]])
def test_no_two_labels_overlap_and_all_keep_their_order(heights: list[float]) -> None:
    found = spread(heights, 9.0, 100.0)
    assert all(-1e-9 <= place <= 100.0 for place in found)
    assert all(b - a >= 9.0 - 1e-9 for a, b in itertools.pairwise(sorted(found)))
    assert sorted(range(len(heights)), key=lambda k: heights[k]) == sorted(
        range(len(heights)), key=lambda k: found[k]
    )


def test_labels_that_have_room_stand_at_their_heights() -> None:
    assert spread([50.0, 10.0], 9.0, 100.0) == [50.0, 10.0]


def test_a_search_without_embeddings_has_no_picture(tmp_path: Path) -> None:
    alone = fit(family(tasks=["task0"]), controller(), tmp_path)
    without = fit(family(), uniform(), tmp_path)
    for module in (alone, without):
        assert picture({"metrics": module.results(), "history": module.history}) is None
    assert picture({}) is None


def test_the_map_is_classical_scaling() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(6, 2, dtype=torch.float64), dim=1).numpy()
    cosines = vectors @ vectors.T
    found = places(cosines)
    apart = np.linalg.norm(found[:, None] - found[None], axis=-1)
    # in two dimensions nothing is lost
    np.testing.assert_allclose(apart**2, 2 - 2 * cosines, atol=1e-12)


@pytest.mark.parametrize("cosines", [np.ones((3, 3)), np.array([[1.0, -1.0], [-1.0, 1.0]])])
def test_tasks_that_are_alike_or_but_two_have_a_map_too(cosines: np.ndarray) -> None:
    found = places(cosines)
    assert found.shape == (len(cosines), 2) and np.isfinite(found).all()
