import json
from pathlib import Path
from typing import Any

import pytest

from common.report.compare import differing, draw, newest_sweep, results_of
from common.runs.sweep import leave_status


def result(method: str, seed: int = 0) -> dict[str, Any]:
    return {
        "paper": "spider",
        "choices": {"method": f"variance_reduction/{method}", "dataset": "digits"},
        "seed": seed,
        "metrics": {"calls": 3},
        "history": {"step": [0.0, 10.0, 20.0], "grad_norm": [1.0, None, 0.1]},
    }


def test_results_are_named_by_what_differs() -> None:
    assert differing([result("gd"), result("svrg")]) == ["gd", "svrg"]
    assert differing([result("gd", 0), result("gd", 1)]) == ["0", "1"]


def test_the_picture_is_a_png_and_leaves_out_missing_points(tmp_path: Path) -> None:
    path = draw([result("gd"), result("svrg")], "step", "grad_norm", tmp_path / "p.png")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_only_finished_jobs_of_the_newest_sweep_are_compared(tmp_path: Path) -> None:
    for name, states in {"20250101": ["passed"], "20260101": ["passed", "failed"]}.items():
        for job, state in enumerate(states):
            path = tmp_path / f"{name}-{job}.json"
            path.write_text(json.dumps(result(name)))
            status = {"state": state} | ({"result": str(path)} if state == "passed" else {})
            leave_status(tmp_path / "sweeps" / name, job, status)
    sweep = newest_sweep(tmp_path)
    assert sweep.name == "20260101"
    assert [r["choices"]["method"] for r in results_of(sweep)] == ["variance_reduction/20260101"]


def test_no_sweep_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"run\.py -m"):
        newest_sweep(tmp_path)
