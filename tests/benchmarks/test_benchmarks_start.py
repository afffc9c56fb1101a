import os

import pytest

from benchmarks.start import LIMIT, PEER, cpu_seconds, main


@pytest.mark.slow
def test_a_command_that_ends_otherwise_than_it_should_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        cpu_seconds(["-c", "raise SystemExit(3)"], dict(os.environ))
    with pytest.raises(RuntimeError, match="exit code 0"):
        cpu_seconds(["-c", ""], dict(os.environ), fails=True)


def test_a_smoke_run_is_measured_against_the_bare_import(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {PEER: 2.0, "smoke run": 3.0, "already done": 0.5}
    monkeypatch.setattr("benchmarks.start.measure", lambda rounds: seconds)
    figures = main()
    assert (figures["smoke run"].value, figures["smoke run"].at_most) == (1.5, LIMIT)
    assert figures["already done"].value == 0.5
