"""The practical searcher: log EI, mixed spaces, failures, units, repeats, replicates, resuming."""

from pathlib import Path
from typing import Any

import pytest
import torch
from search_toys import Bowl, Broken, SaveAfter, fit, surrogate
from torch import Tensor

from common.base.errors import UserError
from common.base.objective import Coordinate, Objective, Space, box
from common.search.module import SearchModule
from papers.maxacq.practical import Encoding, PracticalSearch

SETTINGS: dict[str, Any] = {
    "seed": 0, "evaluations": 15, "initial": 4, "design": "sobol", "batch": 1, "repeats": 1, "workers": 1,
}  # fmt: skip


def module(data: Objective, **given: Any) -> SearchModule:
    model = surrogate(
        data.space.dim, lengthscale=None, variance=None, noise=None, mean=None, fit="standardised"
    )
    return SearchModule(data=data, model=model, method=PracticalSearch(), **(SETTINGS | given))


def test_two_choices_are_at_distance_one_and_numbers_stay_as_they_are() -> None:
    encode = Encoding((Coordinate((1 / 6, 0.5, 5 / 6), False), Coordinate(), Coordinate((0.25, 0.75))))
    points = encode(
        torch.tensor([[1 / 6, 0.3, 0.25], [0.5, 0.3, 0.25], [5 / 6, 0.9, 0.75]], dtype=torch.float64)
    )
    assert points.shape == (3, 5) and float((points[0] - points[1]).norm()) == pytest.approx(1.0)
    assert points[2, 3:].tolist() == [0.9, 0.75]


def test_it_finds_the_top_of_a_bowl_in_few_evaluations(tmp_path: Path) -> None:
    m = fit(module(Bowl(noise=0.0), repeats=3), tmp_path)
    assert float(-m.f.max(1).values.max()) > -1e-9 and float((-m.f.max(1).values).max()) < 1e-3


class Scaled(Bowl):
    """The bowl in other units."""

    def __init__(self, factor: float, shift: float) -> None:
        super().__init__(noise=0.0)
        self.factor, self.shift = factor, shift

    def values(self, x: Tensor) -> Tensor:
        return self.factor * super().values(x) + self.shift


@pytest.mark.parametrize(("factor", "shift"), [(1e-8, 0.0), (1e8, 0.0), (1e-5, 0.0), (0.1, -2.3)])
def test_the_same_points_come_out_in_any_units(tmp_path: Path, factor: float, shift: float) -> None:
    plain = fit(module(Scaled(1.0, 0.0), evaluations=8), tmp_path).seen.x
    other = fit(module(Scaled(factor, shift), evaluations=8), tmp_path).seen.x
    torch.testing.assert_close(other, plain, rtol=0, atol=1e-3)


class Mixed(Objective):
    """Best with the choice b, the whole number 3 of 1 to 5 and, of b alone, the number 0.3."""

    NAME = "mixed"

    def __init__(self) -> None:
        fifths = tuple((i + 0.5) / 5 for i in range(5))
        coordinates = (Coordinate((1 / 6, 0.5, 5 / 6), False), Coordinate(fifths), Coordinate(only_if=(0, 1)))
        zero = torch.zeros(3, dtype=torch.float64)
        super().__init__(kind="objective", space=Space(zero, zero + 1, None, coordinates), noise=0.0)

    def draw(self, seeds: list[int]) -> None:
        self.seeds = seeds

    def values(self, x: Tensor) -> Tensor:
        choice, whole, number = x.unbind(-1)
        wrong = (choice - 0.5).abs() > 0.1
        return (
            -wrong.to(x) - (whole - 0.5).square() * 4 - torch.where(wrong, 0.0, (number - 0.3).square() * 4)
        )

    def optimum(self) -> None:
        return None


def test_it_searches_choices_whole_numbers_and_conditions_and_repeats_no_point(tmp_path: Path) -> None:
    m = fit(module(Mixed(), evaluations=25, repeats=2), tmp_path)
    assert float(m.f.max(1).values.min()) > -0.01
    assert m.results()["repeated_points"] == 0
    elsewhere = m.seen.x[..., 0] != 0.5
    assert torch.equal(
        m.seen.x[..., 2][elsewhere], torch.full((int(elsewhere.sum()),), 0.5, dtype=torch.float64)
    )


def test_a_finite_space_is_gone_through_before_anything_is_repeated(tmp_path: Path) -> None:
    class Few(Mixed):
        def __init__(self) -> None:
            super().__init__()
            zero = torch.zeros(2, dtype=torch.float64)
            self.space = Space(zero, zero + 1, None, self.space.coordinates[:2])  # type: ignore[index]

        def values(self, x: Tensor) -> Tensor:
            return -x.square().sum(-1)

    m = fit(module(Few(), evaluations=15, initial=1, batch=4), tmp_path)
    assert len(m.seen.x[0].unique(dim=0)) == 15
    assert fit(module(Few(), evaluations=18, initial=1), tmp_path).results()["repeated_points"] > 0


def test_it_turns_away_from_where_evaluations_fail(tmp_path: Path) -> None:
    m = fit(module(Broken(raises=False), evaluations=24), tmp_path)
    assert int(m.seen.y[0, 4:].isnan().sum()) <= 4
    assert float(m.f[m.f.isfinite()].max()) > float(m.f[0, :4][m.f[0, :4].isfinite()].max())


def test_without_a_valid_value_it_goes_on_filling_the_space(tmp_path: Path) -> None:
    class Late(Bowl):
        def values(self, x: Tensor) -> Tensor:
            return torch.where(x[..., 0] < 0.8, torch.nan, super().values(x))

    m = fit(module(Late(), evaluations=9, initial=0), tmp_path)
    assert len(m.seen.x[0].unique(dim=0)) == 9


def test_replicates_do_not_depend_on_each_other_and_a_killed_search_goes_on_as_it_was(tmp_path: Path) -> None:
    together = fit(module(Bowl(), repeats=2, batch=2, evaluations=10), tmp_path)
    alone = fit(module(Bowl(), seed=1, batch=2, evaluations=10), tmp_path)
    assert torch.equal(together.seen.x[1], alone.seen.x[0])
    kept = tmp_path / "kept.ckpt"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.search.module.ROUND_SECONDS", 0.0)
        fit(module(Bowl(), repeats=2, batch=2, evaluations=10), tmp_path, SaveAfter(2, kept))
    again = fit(module(Bowl(), repeats=2, batch=2, evaluations=10), tmp_path, resume=kept)
    assert torch.equal(again.seen.x, together.seen.x)


def test_what_it_cannot_search_gets_one_line(tmp_path: Path) -> None:
    data = Bowl()
    model = surrogate(2, groups="one_dim")
    with pytest.raises(UserError, match=r"method=search/practical takes matern52, se of all"):
        fit(SearchModule(data=data, model=model, method=PracticalSearch(), **SETTINGS), tmp_path)
    assert box(2, 0.0, 1.0).coordinates is None
