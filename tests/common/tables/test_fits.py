import json
from pathlib import Path

import pytest

from common.tables.fits import rows_with_slopes, slope


def test_the_slope_of_a_power_law_is_its_exponent() -> None:
    assert slope([(x, 3 * x**-2.5) for x in (0.1, 0.2, 0.4)]) == pytest.approx(-2.5)


def test_seeds_enter_as_their_median_and_one_x_gives_no_slope() -> None:
    points = [(1.0, 1.0), (1.0, 5.0), (1.0, 2.0), (10.0, 20.0)]
    assert slope(points) == pytest.approx(1.0)
    assert slope([(1.0, 2.0), (1.0, 3.0)]) is None


def test_a_row_takes_the_slope_of_its_measured_entries(tmp_path: Path) -> None:
    for n in (1000, 100_000):
        folder = tmp_path / "spider" / str(n)
        folder.mkdir(parents=True)
        result = {
            "entries": [f"spider.ifo.synthetic_logistic_n{n}_gd_eps0p01"],
            "choices": {"method": "variance_reduction/gd", "dataset": f"synthetic_logistic_n{n}"},
            "config": {"paper": {"eps": 0.01}},
            "metrics": {"n": n, "ifo_over_n": 7.0},
        }
        (folder / "result.json").write_text(json.dumps(result))
    rows = {row[0]: row for row in rows_with_slopes(tmp_path, "spider", "table1")}
    assert rows["gd_sgd"][-1] == "eps 0.01: 1.00 (theory 1.0)"
    assert rows["spider_sfo"][-1] == "-"
