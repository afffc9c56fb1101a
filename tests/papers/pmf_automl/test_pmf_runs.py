"""Through the command: one row of a method, the ranked comparison and the recorded curves at smoke scale."""

import subprocess
from collections.abc import Callable

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize(
    ("entry", "shown"),
    [
        ("pmf_automl.fig_rank.pmf_it10", "mean_rank_pmf_at_10 "),
        ("pmf_automl.askl_raw.askl_equal_it10", "auc_at_10 "),
        ("pmf_automl.fig_missing.missing_90", "nll_per_dataset "),
    ],
)
def test_rows_run_at_smoke_scale(quick: Run, entry: str, shown: str) -> None:
    done = quick(f"entry={entry}", "scale=smoke")
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
