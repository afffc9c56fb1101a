import os

import pytest

from benchmarks.start import LIMIT, PEER, cpu_seconds, judged, main


def test_the_tiny_form_measures_what_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    seconds = main(tiny=True)
    assert set(seconds) == {"refused word", "refused key"}
    assert 0 < seconds["refused word"] < seconds["refused key"]
    assert capsys.readouterr().out.count("CPU s") == 2


def test_a_command_that_ends_otherwise_than_it_should_is_no_measurement() -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        cpu_seconds(["-c", "raise SystemExit(3)"], dict(os.environ))
    with pytest.raises(RuntimeError, match="exit code 0"):
        cpu_seconds(["-c", ""], dict(os.environ), fails=True)


@pytest.mark.parametrize(("seconds", "code"), [(LIMIT, 0), (LIMIT + 0.01, 1)])
def test_the_ratio_is_judged(seconds: float, code: int) -> None:
    assert judged({PEER: 1.0, "smoke run": seconds}) == code
