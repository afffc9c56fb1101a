import json
from pathlib import Path
from typing import Any

import pytest
from runs_made_up import over_seeds, result

from common.base.errors import UserError
from common.report import selection
from common.report.selection import Selection, select
from common.runs.evidence import Evidence
from common.runs.sweep import leave_status, read_statuses

ADAM, SGD = "method=optimizer/adam", "method=optimizer/sgd"


def evidence(*results: dict[str, Any]) -> Evidence:
    return Evidence.of(
        {f"yogi/{i:012x}": one for i, one in enumerate(results)}, frozenset(["yogi/" + "0" * 12])
    )


ALL = evidence(
    *over_seeds([0.1, 0.2, 0.3], ADAM),
    *over_seeds([0.1, 0.2], SGD, "method.lr=0.5"),
    *over_seeds([0.1], SGD, "dataset=mnist"),
)


def chosen(*words: str) -> list[tuple[str, int]]:
    found = select(words, ALL, Path("nowhere"))
    return [(run.result["choices"]["method"].split("/")[1], run.result["seed"]) for run in found.runs]


def write(folder: Path, *results: dict[str, Any]) -> list[Path]:
    """Runs of an outputs folder."""
    paths = []
    for i, one in enumerate(results):
        path = folder / "yogi" / f"{i + 100:012x}" / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(one))
        paths.append(path)
    return paths


@pytest.mark.parametrize(
    ("words", "count"),
    [
        (["paper=yogi"], 6),
        (["method=optimizer/sgd"], 3),
        (["method=optimizer/adam,optimizer/sgd", "dataset=digits"], 5),
        (["method.lr=0.50"], 2),
        (["method!=optimizer/sgd"], 3),
        (["seed=0,1"], 5),
        (["method=optimizer/adam seed=0", "method=optimizer/sgd dataset=mnist"], 2),
        (["method=optimizer/adam seed=0", "method=optimizer/sgd", "seed=0"], 1),
        (["Ours: method=optimizer/adam", "Base:method=optimizer/sgd", "dataset=digits"], 5),
    ],
)
def test_words_choose_the_runs_that_have_them(words: list[str], count: int) -> None:
    if words == ["method=optimizer/adam seed=0", "method=optimizer/sgd", "seed=0"]:
        with pytest.raises(UserError, match="of 1 runs none has it"):
            chosen(*words)
        return
    assert len(chosen(*words)) == count


def test_names_in_front_are_those_of_the_rows() -> None:
    found = select(["Ours: method=optimizer/adam", SGD.replace("method", "Base: method")], ALL, Path("x"))
    assert [run.label for run in found.runs] == ["Ours"] * 3 + ["Base"] * 3
    assert not found.ordered


def test_committed_evidence_is_known_as_such() -> None:
    assert [run.recorded for run in select(["paper=yogi"], ALL, Path("x")).runs] == [True] + [False] * 5


def test_globs_choose_the_runs_of_entries() -> None:
    first, second = result(0, ADAM), result(0, SGD)
    first["entries"], second["entries"] = ["yogi.t.a"], ["yogi.t.b", "yogi.u.b"]
    known = evidence(first, second)
    assert len(select(["yogi.t.*"], known, Path("x")).runs) == 2
    assert len(select(["entry=yogi.u.*"], known, Path("x")).runs) == 1
    with pytest.raises(UserError, match=r"did you mean yogi\.t\.[ab]"):
        select(["yogi.t.c"], known, Path("x"))


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("method=optimizer/adm", "of 6 runs none has it; did you mean optimizer/adam?"),
        ("method=optimizer/adm", "(there: optimizer/adam, optimizer/sgd)"),
        ("method=adam", "did you mean optimizer/adam?"),
        ("method.lrr=1", "none has a key method.lrr; did you mean method.lr"),
        ("method.lr=7", "(there: 0.01, 0.5)"),
        ("paper!=yogi", "of 6 runs all have it"),
        ("method=optimizer/adam,optimizer/sdg", "no run matches method=optimizer/sdg"),
        ("seed=0,1,7", "no run matches seed=7: of 6 runs none has it (there: 0, 1, 2)"),
        ("outptus/sweeps/x", "outptus/sweeps/x does not exist (there is"),
    ],
)
def test_what_matches_nothing_is_named_with_what_there_is(word: str, line: str) -> None:
    with pytest.raises(UserError) as raised:
        select([word], ALL, Path("nowhere"))
    assert line in str(raised.value)


def test_a_word_that_leaves_nothing_behind_others_is_the_one_that_is_named() -> None:
    with pytest.raises(UserError, match="no run matches dataset=mnist: of 3 runs with method=optimizer/adam"):
        select([ADAM, "dataset=mnist"], ALL, Path("nowhere"))


def test_folders_of_runs_at_any_depth_single_runs_and_results_are_read(tmp_path: Path) -> None:
    paths = write(tmp_path / "elsewhere", *over_seeds([0.1, 0.2], ADAM))
    none = evidence()
    for word in (tmp_path, tmp_path / "elsewhere" / "yogi", tmp_path / "else*"):
        assert len(select([str(word)], none, Path("x")).runs) == 2
    for word in (paths[0], paths[0].parent):
        assert len(select([str(word)], none, Path("x")).runs) == 1
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no result of a run in"):
        select([str(tmp_path / "empty")], none, Path("x"))


def test_a_debug_run_is_no_fault_among_others(tmp_path: Path) -> None:
    paths = write(tmp_path, result(0, ADAM), result(1, ADAM))
    debug = json.loads(paths[1].read_text())
    debug["config"]["debug"] = {"steps": 1}
    paths[1].write_text(json.dumps(debug))
    found = select([str(path.parent) for path in paths], evidence(), Path("x"))
    assert len(found.runs) == 1
    assert [job.why for job in found.unfinished] == [f"a debug run, which is no result: {paths[1].parent}"]


def test_a_run_that_is_under_way_is_no_fault_among_others(tmp_path: Path) -> None:
    paths = write(tmp_path, result(0, ADAM))
    begun = tmp_path / "yogi" / "0123456789ab"
    begun.mkdir()
    found = select([str(paths[0].parent), str(begun)], evidence(), Path("x"))
    assert len(found.runs) == 1 and [job.why for job in found.unfinished] == [f"no result yet in {begun}"]
    with pytest.raises(UserError, match="no run has a result yet in"):
        select([str(begun)], evidence(), Path("x"))


def test_a_path_with_a_colon_is_a_path(tmp_path: Path) -> None:
    write(tmp_path / "at: noon", result(0, ADAM))
    found = select([str(tmp_path / "at: noon")], evidence(), Path("x"))
    assert [run.label for run in found.runs] == [""]


def sweep(outputs: Path, name: str, *jobs: dict[str, Any]) -> Path:
    folder = outputs / "sweeps" / name
    for i, job in enumerate(jobs):
        leave_status(folder, i, job)
    return folder


def test_a_sweep_gives_its_finished_jobs_in_their_order_and_the_others_as_unfinished(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    paths = write(outputs, *over_seeds([0.1, 0.2], SGD))
    failed = {"state": "failed", "overrides": ["paper=yogi", SGD, "seed=2"]}
    killed = {"state": "running", "overrides": ["paper=yogi", SGD, "seed=3"]}
    # as seen from the folder where the sweep was started
    done = [{"state": "passed", "result": f"outputs/{path.relative_to(outputs)}"} for path in paths]
    folder = sweep(outputs, "1", done[1], failed, done[0], killed)
    found = select([str(folder)], evidence(), outputs)
    assert [run.result["seed"] for run in found.runs] == [1, 0] and found.ordered
    assert [job.why for job in found.unfinished] == ["failed", "running or killed"]


def test_a_job_that_failed_and_was_made_later_counts_as_made(tmp_path: Path) -> None:
    failed = {"state": "failed", "overrides": ["paper=yogi", ADAM, "seed=2"]}
    folder = sweep(tmp_path, "1", failed)
    found = select([str(folder)], ALL, tmp_path)
    assert [run.result["seed"] for run in found.runs] == [2] and not found.unfinished


def test_without_words_the_newest_sweep_is_meant(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no sweep in .*run\.py -m makes one"):
        select([], ALL, tmp_path)
    (path,) = write(tmp_path, result(7, ADAM))
    sweep(tmp_path, "20250101", {"state": "failed", "overrides": []})
    sweep(tmp_path, "20260101", {"state": "passed", "result": str(path)})
    found: Selection = select([], ALL, tmp_path)
    assert [run.result["seed"] for run in found.runs] == [7]


def test_a_sweep_without_a_finished_job_says_what_became_of_them(tmp_path: Path) -> None:
    jobs = [{"state": state, "overrides": ["paper=yogi", "seed=99"]} for state in ("failed", "running")]
    with pytest.raises(UserError, match="2 jobs, 1 running or killed, 1 failed"):
        select([str(sweep(tmp_path, "1", *jobs))], evidence(), tmp_path)


def test_unfinished_jobs_of_any_sweep_are_known_beside_words(tmp_path: Path) -> None:
    made = {"state": "failed", "overrides": ["paper=yogi", ADAM, "seed=2"]}
    lost = {"state": "failed", "overrides": ["paper=yogi", ADAM, "seed=9"]}
    sweep(tmp_path, "1", made, lost)
    assert [job.words[-1] for job in select([ADAM], ALL, tmp_path).unfinished] == ["seed=9"]


def test_the_statuses_of_sweeps_are_read_once_for_all_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1", "2"):
        sweep(tmp_path, name, {"state": "failed", "overrides": ["paper=yogi", ADAM, "seed=9"]})
    read: list[str] = []

    def counting(folder: Path) -> list[dict[str, Any]]:
        read.append(folder.name)
        return read_statuses(folder)

    monkeypatch.setattr(selection, "read_statuses", counting)
    found = select([f"A: {ADAM} seed=0", f"B: {ADAM} seed=1", f"C: {SGD} dataset=mnist"], ALL, tmp_path)
    assert (len(found.runs), len(found.unfinished), read) == (3, 1, ["1", "2"])
