import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.runs.evidence import (
    Evidence,
    asked,
    asked_forms,
    folders_of,
    neutral,
    results_folder,
    values_of,
)
from common.tables.tables import ROOT


def result(*words: str, **changes: Any) -> dict[str, Any]:
    made = {"overrides": list(words), "asked": [list(asked(words))], "entries": [], "seed": 0}
    made |= {"paper": "yogi", "choices": {}, "scale": "smoke", "code": "", "finished": "2026-01-01T00:00:00Z"}
    made |= {"reported": {}, "history": {}, "config": {}, "device": "cpu", "wall_seconds": 1.0}
    return {**made, "metrics": {"loss": 1.0}, **changes}


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


NEUTRAL = [
    *("logger=none", "logger.project=x", "output_dir=a", "data_dir=b", "force=true", "checkpoint_every=1"),
    *("trainer=cpu", "record=true", "results_dir=c", "objective=loss", "hydra/launcher=joblib"),
    *("hydra.launcher.n_jobs=2", "++hydra.job.env_set.A=1", "dataset.verify=false", "dataset.workers=4"),
    *("dataset.data_dir=d", "trainer.accelerator=gpu", "trainer.devices=2", "-m"),
]
DECIDING = [
    *("paper=yogi", "entry=x", "seed=0", "scale=laptop", "dataset=mnist", "trainer.precision=bf16-true"),
    *("~paper.x", "+paper.y=1"),
]


@pytest.mark.parametrize("word", NEUTRAL)
def test_words_that_change_no_result_are_not_asked_for(word: str) -> None:
    assert asked([word]) == ()


@pytest.mark.parametrize("word", DECIDING)
def test_words_that_decide_a_result_are(word: str) -> None:
    assert asked([word]) == (word,)


@given(st.permutations(["paper=yogi", "seed=1", "logger=none", "paper.epochs=3"]))
def test_the_order_of_words_does_not_matter(words: list[str]) -> None:
    assert asked(words) == ("paper.epochs=3", "paper=yogi", "seed=1")


def test_the_last_of_two_words_with_one_key_counts() -> None:
    assert asked(["seed=1", "++seed=2"]) == ("++seed=2",)
    assert asked(asked(["b=2", "a=1", "b=3"])) == ("a=1", "b=3")


def test_every_neutral_key_of_the_run_key_is_a_neutral_word() -> None:
    """Two lists say what changes no result: one of config keys, one of words."""
    from common.runs.neutral import NEUTRAL as KEYS
    from common.runs.neutral import NEUTRAL_IN

    # these count through the nodes that use them
    by_name = KEYS - {"scale", "accepts", "teacher", "gpu_precision"}
    inside = {f"{group}.{key}" for group, keys in NEUTRAL_IN.items() for key in keys - {"_target_"}}
    assert all(neutral(f"{key}=x") for key in by_name | inside)


def test_evidence_is_read_from_both_folders_and_outputs_win(tmp_path: Path) -> None:
    outputs, results = tmp_path / "outputs", tmp_path / "results"
    write(outputs / "yogi/aaa/result.json", result("paper=yogi", "seed=0", scale="laptop"))
    write(results / "yogi/aaa.json", result("paper=yogi", "seed=0", scale="paper"))
    write(results / "yogi/bbb.json", result("paper=yogi", "seed=1", entries=["yogi.t.r"]))
    evidence = Evidence.read(outputs, results)
    assert len(evidence.all()) == 2
    found = evidence.find(["seed=0", "logger=none", "paper=yogi"])
    assert found is not None
    assert found["scale"] == "laptop"
    assert evidence.key(["paper=yogi", "seed=1"]) == "yogi/bbb"
    assert evidence.recorded == {"yogi/aaa", "yogi/bbb"}
    assert [one["overrides"] for one in evidence.of_entry("yogi.t.r")] == [["paper=yogi", "seed=1"]]
    assert evidence.find(["paper=yogi"]) is None
    assert evidence.of_entry("yogi.t.other") == []


def test_a_run_made_anew_keeps_the_words_and_entries_of_its_record_and_has_its_own_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs, results = tmp_path / "outputs", tmp_path / "results"
    words = ["entry=yogi.t.a", "scale=laptop", "seed=0"]
    there = result(*words, entries=["yogi.t.a", "yogi.t.b"], reported={"yogi.t.a": {"x": 1}, "yogi.t.b": {}})
    there["asked"] += [["paper.epochs=3", "paper=yogi"]]
    anew = result("entry=yogi.t.a", entries=["yogi.t.a"], reported={"yogi.t.a": {"x": 1}})
    anew |= {"metrics": {"loss": 2.0}, "finished": "2026-02-01T00:00:00Z"}
    write(results / "yogi/aaa.json", there)
    write(outputs / "yogi/aaa/result.json", anew)
    evidence = Evidence.read(outputs, results)
    for asked_for in (words, ["entry=yogi.t.a"], ["paper=yogi", "paper.epochs=3"]):
        found = evidence.find(asked_for)
        assert found is not None
        assert found["metrics"] == {"loss": 2.0}
    assert len(evidence.of_entry("yogi.t.b")) == 1
    assert found["reported"] == there["reported"]
    evidence.say_replaced()
    assert "1 run was made anew in outputs: those numbers count" in capsys.readouterr().err


def test_nothing_is_said_of_a_run_that_was_recorded_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "results/yogi/aaa.json", result("paper=yogi"))
    write(tmp_path / "outputs/yogi/aaa/result.json", result("paper=yogi"))
    Evidence.read(tmp_path / "outputs", tmp_path / "results").say_replaced()
    assert capsys.readouterr().err == ""


def test_a_run_is_found_by_each_of_the_words_that_asked_for_it(tmp_path: Path) -> None:
    both = result("paper=yogi", asked=[["paper=yogi"], ["paper=yogi", "scale=paper"]])
    evidence = Evidence.of({"yogi/aaa": both})
    assert evidence.find(["paper=yogi"]) is both
    assert evidence.find(["scale=paper", "paper=yogi"]) is both


def test_a_result_without_asked_is_found_by_its_overrides() -> None:
    old = result("seed=1", "logger=none", "paper=yogi")
    del old["asked"]
    assert asked_forms(old) == [("paper=yogi", "seed=1")]
    assert Evidence.of({"yogi/aaa": old}).find(["paper=yogi", "seed=1"]) is old


def test_of_two_runs_asked_for_alike_the_newer_is_found() -> None:
    older, newer = (result("paper=yogi", finished=f"2026-01-0{day}T00:00:00Z") for day in (1, 2))
    for order in ([("k/a", older), ("k/b", newer)], [("k/a", newer), ("k/b", older)]):
        assert Evidence.of(dict(order)).find(["paper=yogi"]) is newer


@pytest.mark.parametrize("content", ["", "{", "[]", '{"metrics": {}}', '{"entries": []}'])
def test_a_file_that_is_no_result_is_passed_over_and_named(
    content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "outputs/yogi/bad/result.json", content)
    write(tmp_path / "outputs/yogi/good/result.json", result("paper=yogi"))
    assert len(Evidence.read(tmp_path / "outputs", tmp_path / "none").all()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "yogi/bad/result.json" in lines[0]


def test_two_thousand_results_are_each_read_once_and_found_by_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history = {name: [float(i) / 7 for i in range(200)] for name in ("step", "loss", "grad_norm")}
    text = json.dumps(result("paper=yogi", history=history), indent=1)
    for i in range(2_000):
        write(tmp_path / f"yogi/{i:012x}.json", text.replace('"paper=yogi"', f'"paper=yogi", "seed={i}"'))
    read: Counter[Path] = Counter()
    read_text = Path.read_text

    def counted(path: Path, *words: Any, **more: Any) -> str:
        read[path] += 1
        return read_text(path, *words, **more)

    monkeypatch.setattr(Path, "read_text", counted)
    evidence = Evidence.read(tmp_path / "none", tmp_path)
    assert evidence.find(["paper=yogi", "seed=1999"]) is not None
    of_results = {path: count for path, count in read.items() if path.is_relative_to(tmp_path)}
    assert set(of_results.values()) == {1} and len(of_results) == 2_000


def test_results_dir_is_seen_from_the_projects_folder(tmp_path: Path) -> None:
    assert results_folder("results") == ROOT / "results"
    assert results_folder(str(tmp_path)) == tmp_path


def test_folders_in_the_home_folder_are_found_by_every_command_that_reads_results() -> None:
    named = values_of(["output_dir=~/runs", "results_dir=~/kept", "trainer=cpu"])
    assert folders_of(named) == (Path.home() / "runs", Path.home() / "kept")
    assert folders_of({}) == (Path("outputs"), ROOT / "results")
