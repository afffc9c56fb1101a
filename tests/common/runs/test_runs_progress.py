import pytest

from common.base.module import Progress
from common.base.phases import Phase
from common.runs.progress import EMPTIED, Narrator, clock, told


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(0.0191898, 3.0, "epochs", "loss 2.3"), "0.0192/3 epochs, loss 2.3, ETA 0:00:09"),
        (Progress(26, 300, "steps of learning", ""), "26/300 steps of learning, ETA 0:00:09"),
        (Progress(123456.7, 1e6, "calls", ""), "123,457/1,000,000 calls, ETA 0:00:09"),
    ],
)
def test_progress_is_told_in_round_numbers_and_without_empty_parts(progress: Progress, line: str) -> None:
    assert told(progress, "ETA 0:00:09") == line


def test_a_terminal_is_told_of_a_phase_after_a_second_and_its_line_is_emptied() -> None:
    written: list[str] = []
    narrator = Narrator("yogi", True, written.append)
    found = Phase("testing", done=3, total=10, unit="batches", started=100.0)
    narrator.look(found, 100.5)
    assert written == []
    narrator.look(found, 102.0)
    narrator.look(None, 103.0)
    narrator.look(None, 104.0)
    assert written == [f"{EMPTIED}[yogi] testing, 3/10 batches (0:00:02)", EMPTIED]


def test_a_bar_shows_what_is_done_between_two_steps_and_the_line_stays_its_own() -> None:
    written: list[str] = []
    shown: list[str] = []
    narrator = Narrator("yogi", True, written.append)
    narrator.bar = shown.append
    narrator.look(Phase("validating", started=100.0), 101.5)
    narrator.look(None, 102.0)
    assert (shown, written) == (["validating", ""], [])


def test_elsewhere_a_phase_has_a_line_every_ten_seconds() -> None:
    written: list[str] = []
    narrator = Narrator("yogi", False, written.append)
    found = Phase("reading digits", started=100.0)
    for now in (101.0, 109.9, 110.0, 115.0, 119.9, 120.5):
        narrator.look(found, now)
    assert written == ["[yogi] reading digits\n"] * 2


def test_a_run_within_a_run_tells_of_itself_alone() -> None:
    with Narrator("outer", False, lambda text: None) as outer:
        with Narrator("inner", False, lambda text: None) as inner:
            assert Narrator._active == [outer, inner]
        assert Narrator._active == [outer]
    assert Narrator._active == []


def test_times_are_hours_minutes_and_seconds() -> None:
    assert (clock(3725.4), clock(float("nan"))) == ("1:02:05", "unknown")
