"""Recorded results made again: which are drawn, what counts as the same, and what is said of the others."""

import json
import math
import queue
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import commands

from common.base.errors import UserError
from common.runs import replay
from common.runs.environment import cpu, versions
from common.runs.evidence import Evidence
from common.runs.replay import OWN, close, compared, draw, made_again, main, read_words, summary, timed


def result(name: str = "spider.ifo.w8a_sarah_eps0p01", **changes: Any) -> dict[str, Any]:
    """A result by the code as it is, which no test asks for."""
    made = {"entries": [name], "overrides": [f"entry={name}"], "paper": name.split(".")[0], "seed": 0}
    made |= {"metrics": {"loss": 0.5, "calls": 7}, "stages": {}, "wall_seconds": 2.0, "device": "cpu"}
    made |= {"cpu": cpu(), "versions": versions(), "threads": 1, "finished": "2026"}
    return made | changes


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "stale", lambda one: "old" in one)


def answered(**metrics: Any) -> dict[str, Any]:
    return {"metrics": metrics, "share": 1.0}


def test_a_number_that_is_the_same_to_five_digits_comes_out() -> None:
    found = compared(result(), answered(loss=0.5000001, calls=7))
    assert str(found) == "the same 2 numbers"
    assert not found.wrong


def test_a_number_that_differs_though_nothing_else_does_is_wrong() -> None:
    found = compared(result(), answered(loss=0.51, calls=7))
    assert str(found) == "1 of 2 differ: loss 0.5 -> 0.51"
    assert found.wrong


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"old": True}, "earlier code"),
        ({"cpu": "another, AVX512"}, "another processor"),
        ({"versions": {"python": "3.9"}}, "other versions"),
    ],
)
def test_a_number_that_differs_with_something_else_has_an_excuse(changes: dict[str, Any], said: str) -> None:
    found = compared(result(**changes), answered(loss=0.51, calls=8))
    assert f"2 of 2 differ ({said}): loss 0.5 -> 0.51, calls 7 -> 8" == str(found)
    assert not found.wrong


def test_a_metric_that_is_no_more_differs_and_times_and_texts_are_not_compared() -> None:
    old = result(
        metrics={"loss": 0.5, "seconds_of_fit": 3.0, "speed_images": 4.0, "best": "ei", "points": [1.0]}
    )
    assert str(compared(old, answered())) == "1 of 1 differ: loss 0.5 -> -"
    assert str(compared(old, answered(loss=0.5, seconds_of_fit=9.0))) == "the same number"


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (math.nan, math.nan, True),
        (math.nan, 1.0, False),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (0.0, 1e-10, True),
        (1.0, 1, True),
        (None, None, True),
        (1.0, None, False),
        (3, 3.1, False),
    ],
)
def test_numbers_that_are_not_finite_or_not_there_are_like_themselves_alone(
    old: Any, new: Any, same: bool
) -> None:
    assert close(old, new) is same


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (None, "failed: its worker ended"),
        ({"interrupted": True}, "failed: its worker ended"),
        ({"said": "data/mnist is missing"}, "failed: data/mnist is missing"),
    ],
)
def test_a_run_that_fails_says_why(answer: dict[str, Any] | None, said: str) -> None:
    found = compared(result(), answer)
    assert str(found) == said
    assert found.wrong


def test_the_summary_counts_each_result_once() -> None:
    one = result()
    found = [
        compared(one, answered(loss=0.5, calls=7)),
        compared(one, answered(loss=0.6, calls=7)),
        compared(one | {"cpu": "another"}, answered(loss=0.6, calls=7)),
        compared(one, None),
    ]
    assert summary(found) == (
        "4 made again: 1 the same; 1 differ as code, processor or versions do, "
        "1 though nothing does; 1 failed"
    )


def evidence(*results: dict[str, Any]) -> Evidence:
    return Evidence.of({f"{one['paper']}/{number:012x}": one for number, one in enumerate(results)})


def test_results_of_each_paper_are_drawn_by_the_seed() -> None:
    all_ = [result(f"spider.ifo.{number}") for number in range(20)] + [result("yogi.ae_small.a")]
    drawn = [draw(evidence(*all_), [], sample=3, seed=seed, within=60) for seed in (0, 0, 1)]
    assert [one["paper"] for one in drawn[0]] == ["spider", "spider", "spider", "yogi"]
    assert drawn[0] == drawn[1] != drawn[2]


def test_what_is_slow_with_all_that_it_needs_or_was_made_on_a_gpu_is_not_drawn() -> None:
    needed = {"teacher": {"key": "spider/000000000000"}}
    unknown = {"teacher": {"key": "spider/ffffffffffff"}}
    all_ = [result("spider.a", wall_seconds=50.0), result("spider.b", wall_seconds=20.0, stages=needed)]
    all_ += [result("spider.c", device="H200"), result("spider.d", stages=unknown)]
    assert draw(evidence(*all_), [], sample=9, seed=0, within=60) == all_[:1]


def test_a_result_of_times_alone_is_not_drawn() -> None:
    timed_alone = result("spider.a", metrics={"cpu_seconds_at_3": 1.5, "curve": [1.0]})
    assert draw(evidence(timed_alone, result("spider.b")), [], sample=9, seed=0, within=60) == [
        result("spider.b")
    ]


def test_no_time_of_the_recorded_metrics_is_compared() -> None:
    found = Evidence.read(Path("no_outputs"), replay.results_folder("results")).all()
    names = {name for one in found for name in one["metrics"]}
    units = re.compile("seconds|minutes|hours|memory|speed_")
    assert {name for name in names if units.search(name)} == {name for name in names if timed(name)}


def test_numbers_that_look_alike_are_told_with_all_their_digits() -> None:
    found = compared(result(metrics={"loss": 1.00001}), answered(loss=1.00003))
    assert str(found) == "1 of 1 differ: loss 1.00001 -> 1.00003"


def test_names_choose_among_the_entries() -> None:
    one, other = "spider.ifo.w8a_sarah_eps0p01", "spider.ifo.w8a_gd_eps0p01"
    drawn = draw(evidence(result(one), result(other)), [other], sample=9, seed=0, within=60)
    assert [found["entries"] for found in drawn] == [[other]]


def test_entries_without_a_quick_result_are_one_line() -> None:
    with pytest.raises(UserError, match="took at most 1 s on a CPU"):
        draw(evidence(result()), ["spider.*"], sample=1, seed=0, within=1)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("sample=0", "sample=0; valid: a whole number from 1 to"),
        ("seed=-1", "seed=-1; valid: a whole number from 0 to"),
        ("within=soon", "within=soon; valid: a whole number from 1 to"),
        ("seed=1000000000", "valid: a whole number from 0 to 999,999,999"),
        ("seed=" + "9" * 5000, "valid: a whole number from 0 to"),
        ("jobs=2", "jobs=2; valid: sample=, seed=, within=, and names of entries"),
        ("--fast", "--fast: no such option"),
    ],
)
def test_a_wrong_word_is_one_line(word: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_words([word])


def test_settings_and_names_are_told_apart() -> None:
    assert read_words(["spider.*", "sample=5"]) == (OWN | {"sample": 5}, ["spider.*"])


class Fake:
    """A worker that says what it was asked for."""

    made: list[list[str]] = []  # noqa: RUF012

    def __init__(self, size: int, answers: "queue.Queue[tuple[Fake, Any]]", threads: int) -> None:
        self.answers = answers
        assert threads == 1

    def make(self, words: list[str]) -> None:
        Fake.made.append(words)
        if "entry=stopped" in words:
            raise KeyboardInterrupt
        self.answers.put((self, answered(loss=0.5, calls=7)))

    def stop(self) -> None:
        pass

    def end(self) -> int:
        return 0


def test_a_run_is_made_by_its_words_in_a_folder_that_is_gone_afterwards(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "Worker", Fake)
    Fake.made = []
    made_again(result())
    entry, folder, trainer, logger = Fake.made[0]
    assert (entry, trainer, logger) == ("entry=spider.ifo.w8a_sarah_eps0p01", "trainer=cpu", "logger=none")
    assert not Path(folder.removeprefix("output_dir=")).exists()


def test_what_was_made_until_ctrl_c_is_summed_up_and_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    drawn = [result(), result(overrides=["entry=stopped"]), result()]
    monkeypatch.setattr(replay, "Worker", Fake)
    monkeypatch.setattr(replay, "draw", lambda *_, **__: drawn)
    monkeypatch.setattr(sys, "argv", ["replay.py"])
    assert main() == 1
    assert capsys.readouterr().out.splitlines() == [
        "[1/3] entry=spider.ifo.w8a_sarah_eps0p01: the same 2 numbers",
        "stopped; 2 were not made again",
        "1 made again: 1 the same; 0 differ as code, processor or versions do, "
        "0 though nothing does; 0 failed",
    ]


def test_each_command_of_the_pages_names_entries_with_recorded_results() -> None:
    shown = commands("python replay.py")
    found = Evidence.read(Path("no_outputs"), replay.results_folder("results"))
    for command in shown:
        settings, patterns = read_words([word.strip("'") for word in command.split()[2:]])
        assert draw(found, patterns, **settings)
    assert len(shown) == 2


def test_a_recorded_result_is_made_again_by_a_process(tmp_path: Path) -> None:
    """SPIDER on digits: the same words give the same numbers within one version of everything."""
    words = ["paper=spider", "scale=smoke", "seed=0"]
    first = made_again(result(overrides=words))
    assert first is not None
    old = result(overrides=words, metrics=json.loads(json.dumps(first["metrics"])))
    found = compared(old, made_again(old))
    assert found.count > 2
    assert not found.differing
