import json
import multiprocessing
import queue
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.runs import cover
from common.runs.cover import OWN, Folders, Sitting, read_words
from common.runs.coverage import Cost, Item
from common.runs.worker import INTERRUPTED

Answer = dict[str, Any] | None


class Fake:
    """A worker whose answers are told by the entry; `slow` ones answer when they are asked to stop.

    A `stubborn` one is in a long step: it ends when it is asked once more. An `old` one has made a quarter of
    its length in a hundred seconds, an `early` one has made no step yet, and a `resumed` one ends what it had
    begun in another sitting.
    """

    made: list[list[str]] = []  # noqa: RUF012
    sitting: Sitting

    def __init__(self, size: int, answers: "queue.Queue[tuple[Fake, Answer]]") -> None:
        self.answers, self.ended, self.last_words = answers, False, "out of memory"
        self.entry, self.asked = "", 0

    def make(self, words: list[str]) -> None:
        Fake.made.append(words)
        answers: dict[str, Answer] = {
            "quick": {"metrics": {"test_loss": 0.25}, "share": 1.0},
            "resumed": {"metrics": {"test_loss": 0.25}, "share": 1.0, "seconds": 300.0},
            "wrong": {"said": "paper.epochs=0: must be positive"},
            "dead": None,
        }
        name = self.entry = words[0].removeprefix("entry=")
        if name == "last":
            self.sitting.ask()
        if name in answers:
            self.answers.put((self, answers[name]))

    def stop(self) -> None:
        self.asked += 1
        if not self.ended and (self.entry != "stubborn" or self.asked > 1):
            known = {"early": {}, "old": {"share": 0.25, "seconds": 100.0}}
            self.answers.put((self, {INTERRUPTED: True, **known.get(self.entry, {"share": 0.25})}))

    def end(self) -> int:
        self.ended = True
        return 0


@pytest.fixture
def sit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., tuple[Sitting, list[str]]]:
    """Make runs of entries by fake workers; the sitting and its lines."""
    monkeypatch.setattr(cover, "Worker", Fake)
    monkeypatch.setattr(cover, "LOOK_EVERY", 0.01)
    Fake.made = []

    def sat(*names: str, cost: Cost | None = None, **settings: float) -> tuple[Sitting, list[str]]:
        items = [Item(name, "laptop", "not measured", "", cost) for name in names]
        folders = Folders([f"output_dir={tmp_path}/outputs", f"results_dir={tmp_path}/results"])
        lines: list[str] = []
        sitting = Sitting(items, OWN | {"jobs": 2.0} | settings, ["trainer=cpu"], folders, lines.append)
        Fake.sitting = sitting
        sitting.run()
        return sitting, lines

    return sat


def costs(folder: Path) -> dict[str, Any]:
    path = folder / "results" / "costs.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def test_each_entry_is_made_recorded_and_its_cost_noted(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    sitting, lines = sit("quick")
    assert Fake.made == [["entry=quick", "scale=laptop", "record=true", "logger=none", "trainer=cpu"]]
    assert lines == ["[1/1] quick scale=laptop: 0 s, test_loss 0.25"]
    assert costs(tmp_path)["quick scale=laptop"]["made"] is True
    assert sitting.failed == 0


def test_a_run_whose_step_is_long_is_asked_once_more_and_then_ends(
    sit: Callable[..., tuple[Sitting, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cover, "PATIENCE", 0.05)
    sitting, lines = sit("stubborn", "quick", within=0.05, jobs=1.0)
    assert lines[0].startswith("[1/2] stubborn scale=laptop: takes")
    assert lines[1].startswith("[2/2] quick")
    assert not sitting.stopping


def test_one_that_takes_longer_is_stopped_and_its_cost_follows_from_what_is_made(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    sitting, lines = sit("slow", "quick", within=0.05)
    assert sitting.failed == 0
    noted = costs(tmp_path)["slow scale=laptop"]
    assert noted["made"] is False
    assert noted["seconds"] > 0.14
    assert any("stopped with a checkpoint" in line for line in lines)
    assert any("quick" in line for line in lines)


def test_a_run_of_several_sittings_costs_what_all_its_pieces_took(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    _, lines = sit("resumed", "old", within=0.05)
    assert costs(tmp_path)["resumed scale=laptop"] == {"made": True, "seconds": 300.0}
    assert costs(tmp_path)["old scale=laptop"] == {"made": False, "seconds": 400.0}
    assert any("takes about 400 s; stopped with a checkpoint" in line for line in lines)


def test_one_that_fails_is_counted_and_the_others_go_on(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    sitting, lines = sit("wrong", "dead", "quick")
    assert sitting.failed == 2
    assert set(costs(tmp_path)) == {"quick scale=laptop"}
    text = "\n".join(lines)
    assert "wrong scale=laptop: failed: paper.epochs=0: must be positive" in text
    assert "dead scale=laptop: failed: its worker ended: out of memory" in text


def test_what_failed_is_known_beside_the_runs_until_it_succeeds(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    sitting, _ = sit("wrong", "dead", "quick")
    folders = sitting.folders
    assert folders.failures() == {
        "dead scale=laptop": "its worker ended: out of memory",
        "wrong scale=laptop": "paper.epochs=0: must be positive",
    }
    assert folders.failures_path.parent == tmp_path / "outputs"
    folders.note(Item("wrong", "laptop", "not measured", "", None), Cost(1.0, True))
    assert list(folders.failures()) == ["dead scale=laptop"]


def test_what_failed_at_its_last_try_comes_last_and_is_not_called_untried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [Item(f"yogi.{name}", "laptop", "not measured", "", None) for name in "abc"]
    monkeypatch.setattr(cover, "chosen", lambda patterns: [])
    monkeypatch.setattr(cover, "items_of", lambda *given: known)
    made: list[list[str]] = []

    def measure(items: list[Item], *_: object) -> int:
        made.append([item.entry for item in items])
        return 0

    monkeypatch.setattr(cover, "measure", measure)
    words = [f"output_dir={tmp_path}/outputs", f"results_dir={tmp_path}/results"]
    Folders(words).note_failure(known[0], "its files are missing")
    assert cover._cover(words) == 0
    assert made == [["yogi.b", "yogi.c", "yogi.a"]]
    assert "2 are untried, and 1 failed here" in capsys.readouterr().out


def test_the_end_stops_what_is_under_way_and_begins_nothing(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    _, lines = sit("slow", "last", "quick")
    assert len(Fake.made) == 2
    assert all("stopped with the sitting" in line for line in lines)
    assert costs(tmp_path) == {}


def test_what_the_end_stops_before_a_step_has_no_checkpoint_to_go_on_from(
    sit: Callable[..., tuple[Sitting, list[str]]],
) -> None:
    _, lines = sit("early", "old", "last", jobs=3.0)
    assert "[1/3] early scale=laptop: stopped with the sitting before it ended a step" in lines[0]
    assert all(line.endswith("it goes on from its checkpoint") for line in lines[1:])


def test_what_has_taken_longer_than_was_known_costs_more_also_where_the_end_stops_it(
    sit: Callable[..., tuple[Sitting, list[str]]], tmp_path: Path
) -> None:
    sit("old", "slow", "last", cost=Cost(60.0, False), jobs=3.0)
    assert costs(tmp_path) == {"old scale=laptop": {"made": False, "seconds": 400.0}}


def test_words_are_settings_names_of_entries_or_pass_on() -> None:
    settings, patterns, passed_on = read_words(["spider.*", "hours=2", "trainer=cpu", "--list", "within=9.5"])
    assert (settings["hours"], settings["within"]) == (2.0, 9.5)
    assert (patterns, passed_on) == (["spider.*"], ["trainer=cpu"])


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("hours=soon", "hours=soon; valid: a number above 0"),
        ("within=0", "within=0; valid: a number above 0"),
        ("jobs=0.5", r"jobs=0\.5; valid: at least 1"),
        ("paper.epochs=3", r"paper\.epochs=3: an entry fixes what it measures"),
        ("force=true", "force=true: an entry fixes what it measures"),
        ("--lst", "--lst: no such option .valid: --list"),
    ],
)
def test_a_wrong_word_is_refused_with_what_is_valid(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_words([word])


def test_costs_are_kept_by_name_in_order(tmp_path: Path) -> None:
    folders = Folders([f"results_dir={tmp_path}"])
    for name, seconds in (("b", 2.0), ("a", 1.0), ("b", 3.0)):
        folders.note(Item(name, "paper", "not measured", "", None), Cost(seconds, True))
    assert list(folders.costs().items()) == [
        ("a scale=paper", Cost(1.0, True)),
        ("b scale=paper", Cost(3.0, True)),
    ]


def note_many(worker: int, folders: Folders) -> None:
    for i in range(8):
        folders.note(Item(f"made.{worker}.{i}", "laptop", "not measured", "", None), Cost(1.0, True))
        folders.note_failure(Item(f"failed.{worker}.{i}", "laptop", "not measured", "", None), "no file")


def test_four_sittings_that_note_in_one_folder_at_once_lose_nothing(tmp_path: Path) -> None:
    folders = Folders([f"output_dir={tmp_path / 'outputs'}", f"results_dir={tmp_path / 'results'}"])
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=note_many, args=(worker, folders)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert (len(folders.costs()), len(folders.failures())) == (32, 32)
