"""Through the command: a search, the timing and the side signals at smoke scale."""

import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("ablr.fig1.quadratic_ablr_nn_transfer_context", "regret_at_3 "),
        ("ablr.fig1_time.time_ablr_nn", "slope_of_seconds "),
        ("ablr.fig3.sonar_ablr_train_loss", "test_error "),
    ],
)
def test_rows_run_at_smoke_scale(quick: Run, entry: str, shown: str) -> None:
    done = quick(f"entry={entry}", "scale=smoke")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
