"""Through the command: a row over arms and one in a box at smoke scale."""

import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    "words",
    [
        ["entry=meta_bo.fig4a.pem_bo_pi", "dataset.source=synthetic"],
        ["entry=meta_bo.fig3a.pem_bo_ucb_p01"],
    ],
)
def test_rows_run_at_smoke_scale(quick: Run, words: list[str]) -> None:
    done = quick(*words, "scale=smoke")
    assert done.returncode == 0, done.stderr
    assert "best_at_1 " in done.stdout and "simple_regret_at_1 " in done.stdout
