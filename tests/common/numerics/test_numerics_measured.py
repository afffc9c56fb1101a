"""Tables of measurements: kept with all their bits, read by key and seed, refused where they are none."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.base.errors import UserError
from common.numerics.measured import Measured


def table(path: Path, keys: list[str]) -> Measured:
    n = len(keys)
    values = np.arange(n * 4, dtype=np.float32).reshape(n, 2, 2)
    values[0, 1] = np.nan
    seconds = np.ones((n, 2), np.float32)
    seconds[0, 1] = np.nan
    metrics = {"accuracy": values, "loss": -values, "test": values + 1}
    made = Measured(
        {"what": "a toy"}, keys, [0, 5], [10, 20], metrics, seconds, {"parameters": np.arange(n) + 7.0}
    )
    made.save(path)
    return made


def test_a_table_comes_back_with_all_its_bits(tmp_path: Path) -> None:
    made = table(tmp_path / "t.npz", ["a", "b"])
    again = Measured.load(tmp_path / "t.npz")
    assert (again.about, again.keys, again.seeds, again.points) == (
        {"what": "a toy"},
        ["a", "b"],
        [0, 5],
        [10, 20],
    )
    for name, values in made.metrics.items():
        np.testing.assert_array_equal(again.metrics[name], values)
    np.testing.assert_array_equal(again.seconds, made.seconds)
    before = (tmp_path / "t.npz").read_bytes()
    again.save(tmp_path / "t.npz")
    assert (tmp_path / "t.npz").read_bytes() == before
    assert again.complete(0) and not again.complete(5)


def test_a_curve_is_that_of_a_seed_or_the_mean_of_those_that_were_made(tmp_path: Path) -> None:
    made = table(tmp_path / "t.npz", ["a", "b"])
    assert made.curve("b", "accuracy", 5).tolist() == [6.0, 7.0]
    assert made.curve("b", "accuracy").tolist() == [5.0, 6.0]
    assert made.curve("a", "accuracy").tolist() == [0.0, 1.0]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda t: t.curve("c", "accuracy"), "the table of 2 has no c"),
        (lambda t: t.curve("a", "accuracy", 5), "no measurement of a with seed=5"),
        (lambda t: t.curve("a", "accuracy", 3), "seed=3: the table has the seeds 0, 5"),
        (lambda t: t.curve("a", "speed"), "no speed; valid: accuracy, loss, test"),
        (
            lambda t: Measured({}, ["a", "a"], [0], [1], {}, np.ones((2, 1), np.float32)),
            "a key or a seed twice",
        ),
        (lambda t: Measured({}, ["a"], [0], [1], {}, np.ones((2, 1), np.float32)), "has other arrays"),
    ],
)
def test_what_is_not_there_is_one_line(tmp_path: Path, call: Any, says: str) -> None:
    made = table(tmp_path / "t.npz", ["a", "b"])
    with pytest.raises(UserError, match=says):
        call(made)
