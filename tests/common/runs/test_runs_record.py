import json
import multiprocessing
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.runs.catalogue import read
from common.runs.environment import cpu
from common.runs.evidence import Evidence
from common.runs.record import POINTS, record, record_all, thinned
from common.runs.replay import TOLERANCE, close, seconds, timed
from common.tables.tables import ROOT, papers

Run = Callable[..., subprocess.CompletedProcess[str]]


def result(seed: int = 0, **changes: Any) -> dict[str, Any]:
    words = ["paper=yogi", f"seed={seed}", "logger=none", "data_dir=/somewhere/else"]
    made = {"entries": [], "overrides": words, "asked": [["paper=yogi", f"seed={seed}"]], "seed": seed}
    made |= {"paper": "yogi", "choices": {}, "scale": "smoke", "code": "", "finished": "", "reported": {}}
    made |= {"config": {}, "device": "cpu", "wall_seconds": 1.0}
    return {**made, "metrics": {"loss": 0.1 + 0.2}, "history": {"step": [0.0, 1.0]}, **changes}


def test_a_record_is_found_again_with_its_numbers_as_they_are(tmp_path: Path) -> None:
    path = record("yogi/0123456789ab", result(), tmp_path)
    assert path == tmp_path / "yogi/0123456789ab.json"
    found = Evidence.read(tmp_path / "none", tmp_path).find(["paper=yogi", "seed=0"])
    assert found is not None
    assert found["metrics"] == {"loss": 0.1 + 0.2}


def test_a_record_names_no_place_on_this_machine(tmp_path: Path) -> None:
    path = record("yogi/0123456789ab", result(), tmp_path)
    assert json.loads(path.read_text())["overrides"] == ["paper=yogi", "seed=0"]
    assert "somewhere" not in path.read_text()


def test_the_words_and_entries_of_an_earlier_record_stay(tmp_path: Path) -> None:
    record("yogi/aaa", result(entries=["yogi.t.a"], reported={"yogi.t.a": {"x": 1}}), tmp_path)
    other = result(entries=["yogi.t.b"], asked=[["entry=yogi.t.b"]], reported={"yogi.t.b": {"x": 2}})
    content = json.loads(record("yogi/aaa", other, tmp_path).read_text())
    assert content["entries"] == ["yogi.t.a", "yogi.t.b"]
    assert content["asked"] == [["paper=yogi", "seed=0"], ["entry=yogi.t.b"]]
    assert set(content["reported"]) == {"yogi.t.a", "yogi.t.b"}
    assert json.loads(record("yogi/aaa", other, tmp_path).read_text()) == content


def test_what_a_run_needed_first_is_recorded_with_it_but_not_what_lies_elsewhere(tmp_path: Path) -> None:
    outputs, elsewhere = tmp_path / "outputs", tmp_path / "elsewhere"
    made = {
        outputs / "yogi/ccc": result(1, stages={}),
        outputs / "yogi/bbb": result(2, stages={"start": {"key": "yogi/ccc"}}),
        elsewhere: result(3, stages={}),
    }
    for folder, content in made.items():
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(json.dumps(content))
    keys = {"teacher": "yogi/bbb", "start": str(elsewhere), "features": "yogi/gone"}
    whole = result(stages={name: {"key": key} for name, key in keys.items()})
    record_all("yogi/aaa", whole, outputs, tmp_path / "results")
    recorded = sorted((tmp_path / "results").rglob("*.json"))
    assert [path.stem for path in recorded] == ["aaa", "bbb", "ccc"]
    assert [json.loads(path.read_text())["seed"] for path in recorded] == [0, 2, 1]


@given(st.integers(0, 2000), st.integers(2, 300))
def test_a_thinned_curve_keeps_its_ends_and_its_order(size: int, points: int) -> None:
    curve = list(range(size))
    thin = thinned({"loss": curve}, points)["loss"]
    assert len(thin) == min(size, points)
    assert thin == sorted(set(thin))
    assert thin[:1] == curve[:1]
    assert thin[-1:] == curve[-1:]


def test_curves_of_one_length_are_thinned_alike(tmp_path: Path) -> None:
    history = {"step": list(range(1000)), "loss": [2 * i for i in range(1000)]}
    content = json.loads(record("yogi/aaa", result(history=history), tmp_path).read_text())
    assert len(content["history"]["step"]) == POINTS
    assert content["history"]["loss"] == [2 * step for step in content["history"]["step"]]


def record_many(worker: int, folder: str) -> None:
    """Twenty results of this worker's own, each followed by its words for one run that all share."""
    for i in range(20):
        record(f"yogi/{worker:02d}{i:02d}", result(seed=100 * worker + i), Path(folder))
        record("yogi/shared", result(asked=[[f"seed={100 * worker + i}"]]), Path(folder))


def test_eight_processes_that_record_at_once_lose_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=record_many, args=(w, str(tmp_path))) for w in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    evidence = Evidence.read(tmp_path / "none", tmp_path)
    assert len(evidence.all()) == 8 * 20 + 1
    assert len(evidence.by_key["yogi/shared"]["asked"]) == 8 * 20
    assert not list(tmp_path.rglob("*.partial"))


# ---- the committed evidence

WITHOUT_FILES = (
    "common.data.images.digits.",
    "common.data.tables.bundled.",
    "common.data.tables.synthetic.",
    "papers.spider.data.",
    "papers.yogi.online.",
)


@cache
def recorded(key: str) -> dict[str, Any]:
    """The committed result of a run key."""
    found: dict[str, Any] = json.loads((ROOT / "results" / f"{key}.json").read_text())
    return found


def quickest(paper: str) -> dict[str, Any] | None:
    """The quickest result of a paper that a test can make again: small, on one CPU thread, without files.

    Its time counts that of the runs which it needs first. One that was made on such a processor comes before
    all others, as its numbers come out to rounding.
    """

    def fits(one: dict[str, Any]) -> bool:
        target = str(read("dataset", one["choices"]["dataset"])["_target_"])
        here = one["device"] == "cpu" and one["threads"] == 1 and target.startswith(WITHOUT_FILES)
        return here and one["scale"] in ("smoke", "laptop") and seconds(one, recorded) < 10

    def cost(one: dict[str, Any]) -> tuple[bool, float]:
        return one.get("cpu") != cpu(), seconds(one, recorded)

    paths = sorted((ROOT / "results" / paper).glob("*.json"))
    return min(filter(fits, [recorded(f"{paper}/{path.stem}") for path in paths]), key=cost, default=None)


# on another processor sums are rounded otherwise
ELSEWHERE = (0.2, 1e-9)
# percents of a few hundred examples
POINTS_ELSEWHERE = 2.0


def same(name: str, old: Any, new: Any, here: bool) -> bool:
    """Equal, floats within the tolerance."""
    if isinstance(old, list):
        return len(old) == len(new) and all(same(name, *two, here) for two in zip(old, new, strict=True))
    relative, least = TOLERANCE if here else ELSEWHERE
    return close(old, new, (relative, POINTS_ELSEWHERE if not here and name.endswith("_error") else least))


@pytest.mark.parametrize("paper", papers())
def test_committed_evidence_comes_out_again(paper: str, quick: Run, tmp_path: Path) -> None:
    old = quickest(paper)
    if old is None:
        pytest.skip(f"results/{paper} holds no result that is small enough to make again")
    done = quick(*old["overrides"], "trainer=cpu")
    assert done.returncode == 0, done.stderr
    new = json.loads((tmp_path / done.stdout.splitlines()[-1].removeprefix("result: ")).read_text())
    assert set(new["metrics"]) == set(old["metrics"])
    here = old.get("cpu") == new["cpu"]
    # training carries rounding on from step to step: elsewhere it may end anywhere that is as good
    trained = not here and "train_loss" in old["metrics"]
    differing = {
        name: (value, new["metrics"][name])
        for name, value in old["metrics"].items()
        if not timed(name)
        and not (trained and isinstance(value, float))
        and not same(name, value, new["metrics"][name], here)
    }
    assert not differing, old["overrides"]


def test_no_committed_result_names_a_folder_of_the_machine_that_made_it() -> None:
    for path in (ROOT / "results").rglob("*.json"):
        text = path.read_text()
        assert '"data_dir"' not in text and "/home/" not in text and str(ROOT) not in text, path
