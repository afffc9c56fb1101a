"""What a search over runs may vary: forms, values, conditions, refusals."""

import pytest
import torch

from common.base.errors import UserError
from common.search.cube import assigned, cube
from common.search.settings import is_setting, setting, settings, words_at


@pytest.mark.parametrize(
    ("word", "values"),
    [
        ("a.b=float(-1,3)", {0.0: "-1", 0.25: "0", 1.0: "3"}),
        ("a=log(1e-4,1)", {0.0: "0.0001", 0.5: "0.01", 1.0: "1"}),
        ("a=int(1,4)", {0.0: "1", 0.2499: "1", 0.25: "2", 0.999: "4", 1.0: "4"}),
        ("a=logint(1,1000)", {0.0: "1", 1.0: "1000"}),
        ("a=choice(optimizer/adam, [1,2],'x,y')", {0.0: "optimizer/adam", 0.5: "[1,2]", 1.0: "'x,y'"}),
    ],
)
def test_a_unit_is_the_value_that_the_form_says(word: str, values: dict[float, str]) -> None:
    assert is_setting(word)
    assert {unit: setting(word).value(unit) for unit in values} == values


@pytest.mark.parametrize("word", ["a=int(-3,17)", "a=logint(1,300)", "a=choice(p,q,r)", "a=logint(900,1000)"])
def test_each_of_several_values_has_one_unit_which_gives_it_back(word: str) -> None:
    one = setting(word)
    units = one.units()
    assert units is not None and one.levels == len(units)
    values = [one.value(unit) for unit in units]
    assert len(set(values)) == len(units) and [one.unit(value) for value in values] == list(units)


@pytest.mark.parametrize("word", ["a=float(-2,5)", "a=log(1e-6,10)"])
def test_a_numbers_unit_gives_it_back_and_nothing_outside_has_one(word: str) -> None:
    one = setting(word)
    for unit in (0.0, 0.3, 1.0):
        assert one.unit(one.value(unit)) == pytest.approx(unit, abs=1e-5)
    assert one.unit("11") is None and one.unit("words") is None


def test_whole_numbers_have_equal_shares_of_the_unit_interval() -> None:
    found = [setting("a=int(1,3)").value((i + 0.5) / 300) for i in range(300)]
    assert [found.count(value) for value in "123"] == [100, 100, 100]


def test_a_key_with_a_condition_exists_under_its_choice_alone() -> None:
    found = settings(["eps=log(1e-8,1) if m=adam", "m=choice(adam,yogi)", "lr=float(0,1)"])
    assert [one.key for one in found] == ["m", "lr", "eps"]
    assert words_at(found, {"m": 0.0}) == ["m=adam", "lr=0.5", "eps=0.0001"]
    assert words_at(found, {"m": 0.9}) == ["m=yogi", "lr=0.5"]
    space = cube(found)
    points = torch.tensor([[0.1, 0.5, 0.5], [0.7, 0.5, 0.9]], dtype=torch.float64)
    assert [assigned(found, space, point) for point in points] == [
        {"m": "adam", "lr": "0.5", "eps": "0.0001"},
        {"m": "yogi", "lr": "0.5"},
    ]


def test_points_that_mean_the_same_run_are_one_point_once_they_are_snapped() -> None:
    found = settings(["m=choice(a,b)", "n=logint(1,9)", "k=int(0,4) if m=a", "j=float(0,1) if m=b"])
    space = cube(found)
    x = torch.rand(2000, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    snapped = space.snapped(x)
    meant = [assigned(found, space, point) for point in x]
    assert meant == [assigned(found, space, point) for point in snapped]
    assert torch.equal(space.snapped(snapped), snapped)
    of_a = [tuple(one.values()) for one in meant if one["m"] == "a"]
    points_of_a = snapped[[one["m"] == "a" for one in meant]]
    assert len(points_of_a.unique(dim=0)) == len(set(of_a)) == 45


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["a=log(0,1)"], "low > 0"),
        (["a=float(1,1)"], "low < high"),
        (["a=float(2,1)"], "low < high"),
        (["a=float(0,inf)"], "both finite"),
        (["a=float(0)"], "two numbers"),
        (["a=int(0.5,2)"], "whole numbers"),
        (["a=choice(x)"], "at least two choices"),
        (["a=choice(x,x)"], "at least two choices"),
        (["a=uniform(0,1)"], "a=uniform(0,1): valid: KEY=float(low,high)"),
        (["a=int(1,2)", "a=int(1,3)"], "a is given 2 times"),
        (["a=int(1,2) if b=x"], "none, nothing is a choice"),
        (["a=int(1,2) if b=z", "b=choice(x,y)"], "valid: b=x, b=y"),
        (["a=choice(p,q) if b=x", "b=choice(x,y) if a=p"], "no such choice"),
        (["a=int(1,2) when b=x", "b=choice(x,y)"], "valid: KEY="),
    ],
)
def test_settings_that_make_no_sense_get_one_line(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as raised:
        settings(words)
    assert line in str(raised.value) and "\n" not in str(raised.value)
