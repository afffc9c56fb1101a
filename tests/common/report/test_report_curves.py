import math
import re
from pathlib import Path

import numpy as np
import pytest
from runs_made_up import over_seeds, result, runs
from scipy import stats

from common.base.errors import UserError
from common.report import comparison
from common.report.comparison import Comparison, compare
from common.report.curves import common_places, draw, panels


@pytest.fixture(autouse=True)
def current_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "stale", lambda one: False)


def with_curves(*curves: list[float], steps: list[list[float]] | None = None) -> list[dict[str, object]]:
    found = over_seeds([0.1] * len(curves), "method=optimizer/adam")
    for i, (one, curve) in enumerate(zip(found, curves, strict=True)):
        one["history"] = {"step": steps[i] if steps else [1.0, 2.0, 3.0], "running_loss": curve}
    return found


def test_the_band_is_the_interval_over_seeds_and_the_line_their_mean() -> None:
    curves = [[1.0, 2.0, 3.0], [2.0, 2.0, 5.0], [3.0, 2.0, 4.0]]
    (panel,) = panels(compare(runs(*with_curves(*curves))), "running_loss")
    (curve,) = panel.curves
    assert (curve.x, curve.mean, curve.n) == ([1.0, 2.0, 3.0], [2.0, 2.0, 4.0], 3)
    half = stats.t.ppf(0.975, 2) * np.std(curves, axis=0, ddof=1) / math.sqrt(3)
    assert curve.high is not None and np.allclose(np.array(curve.high) - curve.mean, half)
    (wide,) = panels(compare(runs(*with_curves(*curves)), spread="std"), "running_loss")[0].curves
    assert wide.low is not None and np.allclose(np.array(wide.low), [1.0, 2.0, 3.0])


def test_curves_at_other_places_are_joined_by_lines_within_the_shortest() -> None:
    found = with_curves([0.0, 10.0], [0.0, 2.0, 6.0], steps=[[0.0, 10.0], [0.0, 2.0, 6.0]])
    (curve,) = panels(compare(runs(*found)), "running_loss")[0].curves
    assert curve.x == [0.0, 2.0, 6.0] and curve.mean == [0.0, 2.0, 6.0]
    assert common_places([[0.0, 1.0, 2.0], [1.0, 1.5, 3.0]]) == [1.0, 1.5, 2.0]


def test_points_without_a_value_are_left_out_and_a_single_run_has_no_band() -> None:
    (one,) = with_curves([1.0, None, 3.0])  # type: ignore[list-item]
    (curve,) = panels(compare(runs(one)), "running_loss")[0].curves
    assert (curve.x, curve.low, curve.n) == ([1.0, 3.0], None, 1)


def test_a_single_run_of_replicates_has_the_band_that_it_recorded() -> None:
    (one,) = with_curves([2.0, 3.0, 4.0])
    one["history"] |= {"running_loss_low": [1.0, 2.0, 3.0], "running_loss_high": [4.0, 5.0, 6.0]}  # type: ignore[operator]
    (curve,) = panels(compare(runs(one)), "running_loss")[0].curves
    assert (curve.low, curve.high) == ([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])


def test_seconds_are_the_wall_time_spread_over_the_steps() -> None:
    (curve,) = panels(compare(runs(result(0))), "running_loss", "seconds")[0].curves
    assert curve.x == [2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("curve", "axis", "line"),
    [
        ("runing_loss", "step", "unknown curve=runing_loss; did you mean running_loss"),
        ("running_loss", "epoch", "these runs count no epochs"),
        ("running_loss", "steps", "unknown x=steps; did you mean step"),
    ],
)
def test_a_curve_that_is_not_there_gets_one_line(curve: str, axis: str, line: str) -> None:
    with pytest.raises(UserError, match=line):
        panels(compare(runs(result(0))), curve, axis)


def shown(tmp_path: Path, found: Comparison, **more: str) -> str:
    draw(found, "running_loss", more.get("x", "step"), more.get("log"), tmp_path / "a.svg")
    return (tmp_path / "a.svg").read_text()


def test_pictures_are_svg_and_pdf_the_same_each_time(tmp_path: Path) -> None:
    found = compare(runs(*with_curves([1.0, 2.0, 3.0], [2.0, 2.0, 5.0]), *over_seeds([0.2, 0.3])))
    first = shown(tmp_path, found)
    assert first.startswith("<?xml") and first == shown(tmp_path, found)
    for _ in range(2):
        draw(found, "running_loss", "step", "xy", tmp_path / "a.pdf")
    text = (tmp_path / "a.pdf").read_bytes()
    assert text[:5] == b"%PDF-" and b"/Type3" not in text and b"CreationDate" not in text


def test_the_steps_of_optimizers_are_steps_and_those_of_counts_are_calls(tmp_path: Path) -> None:
    def label(one: dict[str, object]) -> list[str]:
        # each text stands above its paths
        return re.findall(r"<!-- (.*?) -->", shown(tmp_path, compare(runs(one), ["test_error"])))

    assert "steps" in label(result(0))
    assert "gradient calls" in label(result(0, test_error=0.1, gradient_calls=3))


def test_a_value_of_zero_or_below_does_not_break_a_logarithmic_axis(tmp_path: Path) -> None:
    found = compare(runs(*with_curves([1.0, 1e-3, 1e-9], [2.0, 0.5e-3, 3e-9])))
    assert "<svg" in shown(tmp_path, found, log="xy")
    assert "<svg" in shown(tmp_path, compare(runs(*with_curves([0.0, -1.0, -2.0]))), log="xy")
