"""Searchers of no model, and Optuna's."""

from pathlib import Path

import pytest
import torch
from search_toys import Bowl, SaveAfter, fit, module

from common.base.objective import Coordinate, Space
from common.search import module as search_module
from common.search.peers import SobolSearch, TPESearch


@pytest.fixture(autouse=True)
def one_round_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "ROUND_SECONDS", 0.0)


def mixed() -> Space:
    coordinates = (Coordinate((0.125, 0.375, 0.625, 0.875), False), Coordinate(only_if=(0, 1)))
    return Space(torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64), None, coordinates)


def test_sobol_points_are_those_of_one_sequence_however_many_a_round_takes(tmp_path: Path) -> None:
    one = fit(module(method=SobolSearch(), initial=0, batch=1, evaluations=8), tmp_path).seen.x
    four = fit(module(method=SobolSearch(), initial=0, batch=4, evaluations=8), tmp_path).seen.x
    assert torch.equal(one, four)
    # two points fall into each quarter of the square
    assert (one[0] * 2).floor().unique(dim=0, return_counts=True)[1].tolist() == [2, 2, 2, 2]


def test_tpe_comes_nearer_than_its_first_points_and_values_are_what_coordinates_allow(tmp_path: Path) -> None:
    m = fit(module(Bowl(noise=0.0, space=mixed()), TPESearch(), evaluations=40, batch=1), tmp_path)
    x, f = m.seen.x[0], m.f[0]
    assert torch.equal(mixed().snapped(x), x)
    assert f[20:].max() >= f[:10].max()


def test_a_search_by_tpe_that_goes_on_is_the_one_that_was_not_interrupted(tmp_path: Path) -> None:
    whole = fit(module(method=TPESearch()), tmp_path)
    kept = tmp_path / "kept.ckpt"
    fit(module(method=TPESearch()), tmp_path, SaveAfter(3, kept))
    again = fit(module(method=TPESearch()), tmp_path, resume=kept)
    assert torch.equal(again.seen.x, whole.seen.x)
