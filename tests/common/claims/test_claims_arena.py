"""Arenas: runs with equal budgets, ranks with intervals, and what is not there yet."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.base.errors import UserError
from common.claims.arena import Arena, arenas, load_arena, playing, runs_of, standings, values
from common.claims.judge import mean_interval
from common.report.model import Report
from common.report.site import write
from common.runs.compose import compose
from common.runs.evidence import Evidence

FIELD: dict[str, Any] = {
    "validation": "best",
    "test": "seen",
    "words": ["paper=yogi", "paper.epochs=1"],
    "seeds": [0],
    "grounds": {"left": ["dataset=digits"], "right": ["dataset=mnist"]},
    "contestants": {
        "a": ["method=optimizer/adam"],
        "b": ["method=optimizer/yogi"],
        "c": ["method=optimizer/sgd"],
    },
    "left_out": {"e": "it is no optimizer"},
}


def arena(**changes: Any) -> Arena:
    texts = {"name": "toy", "title": "Toys", "says": "", "unit": "%"}
    return Arena(**texts, fields={"field": FIELD | changes})  # type: ignore[arg-type]


def evidence(fought: Arena, scores: dict[str, tuple[list[float], list[float]]]) -> Evidence:
    """Results of all runs, those of a contestant with the same scores on every ground."""
    found = {}
    (field,) = fought.fields.values()
    for ground in field.grounds:
        for name in scores:
            for number, words in enumerate(field.runs(ground, name)):
                best, seen = scores[name]
                metrics = {"best_by_seed": best, "seen_by_seed": seen}
                if len(field.seeds) > 1:
                    metrics = {"best": best[number], "seen": seen[number]}  # type: ignore[dict-item]
                found[f"yogi/{ground}{name}{number}"] = {
                    "overrides": list(words), "asked": [sorted(words)], "entries": [], "finished": "2026",
                    "metrics": metrics, "paper": "yogi",
                }  # fmt: skip
    return Evidence.of(found)


SCORES = {"a": ([3.0, 3.0, 1.0], [1.0, 1.0, 1.0]), "b": ([2.0, 3.0, 2.0], [2.0, 3.0, 2.0]),
          "c": ([1.0, 1.0, 0.0], [0.0, 5.0, 0.0])}  # fmt: skip


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_ranks_are_means_over_grounds_with_intervals_over_seeds(seeds: list[int]) -> None:
    fought = arena(seeds=seeds)
    (found,) = standings(fought, evidence(fought, SCORES))
    # by seed: a 1, 1.5, 2; b 2, 1.5, 1; c 3
    assert found.rank["a"] == mean_interval([1.0, 1.5, 2.0]) and found.rank["c"].mean == 3
    assert found.rank["c"].low == found.rank["c"].high == 3
    assert found.test_rank["a"] == mean_interval([2.0, 3.0, 2.0])
    assert found.by_ground["left"]["b"].validation == mean_interval([2.0, 3.0, 2.0])
    assert list(found.rank)[-1] == "c" and found.seeds == 3 and found.missing == []
    assert found.absent == {"e": "it is no optimizer"}


def test_the_interval_of_a_rank_holds_the_true_mean_as_often_as_it_says() -> None:
    random, hits = np.random.default_rng(0), 0
    for _ in range(400):
        scores = {name: (random.normal(size=20).tolist(), [0.0] * 20) for name in "abc"}
        fought = arena(grounds={"left": ["dataset=digits"]})
        (found,) = standings(fought, evidence(fought, scores))
        # alike contestants have the mean rank 2
        hits += found.rank["a"].low <= 2 <= found.rank["a"].high
    assert 0.92 <= hits / 400 <= 0.98


def test_a_ground_that_lacks_a_run_is_left_out_and_said() -> None:
    fought = arena()
    there = evidence(fought, SCORES)
    there.by_words.pop(next(words for words in there.by_words if "dataset=mnist" in words))
    (found,) = standings(fought, there)
    assert list(found.by_ground) == ["left"] and len(found.missing) == 1
    (nothing,) = standings(fought, Evidence.of({}))
    assert nothing.rank == {} and len(nothing.missing) == 6 and nothing.seeds == 0


def test_a_contestant_that_is_not_there_yet_is_said_and_the_others_play() -> None:
    fought = arena(contestants={**FIELD["contestants"], "d": ["method=optimizer/to_come"]})
    here, absent = playing(fought.fields["field"])
    assert here == ["a", "b", "c"] and "not here yet" in absent["d"]
    assert len(runs_of(fought)) == 6
    here, absent = playing(arena(needs="papers/none/table.npz").fields["field"])
    assert here == [] and absent["a"] == "not here yet (papers/none/table.npz)"


def test_contestants_with_other_numbers_of_searches_are_refused() -> None:
    fought = arena()
    scores = {**SCORES, "b": ([1.0, 2.0], [1.0, 2.0])}
    with pytest.raises(UserError, match=r"contestants have \[2, 3\] searches"):
        standings(fought, evidence(fought, scores))
    with pytest.raises(UserError, match="measured no best"):
        values([{"metrics": {"best_by_seed": [None]}, "paper": "yogi"}], "best")


def test_words_name_the_ground_and_the_others() -> None:
    field = arena(contestants={"a": ["method.of={ground}", "method.on=[{others}]"]}).fields["field"]
    assert field.runs("left", "a")[0][-3:] == ("method.of=left", "method.on=[right]", "seed=0")


def test_an_arena_with_another_budget_for_one_or_with_an_unknown_key_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "arena"
    folder.mkdir(parents=True)
    text = (
        "title: t\nsays: s\nunit: x\nfields:\n  f:\n"
        "    validation: v\n    test: w\n    words: []\n    seeds: [0]\n"
        "    grounds: {g: []}\n    contestants: {a: [KEY=3]}\n"
    )
    (folder / "mine.yaml").write_text(text.replace("KEY", "paper.trials"))
    with pytest.raises(UserError, match=r"contestant a sets paper.trials=3"):
        load_arena("mine")
    (folder / "mine.yaml").write_text(text.replace("title", "headline"))
    with pytest.raises(UserError, match="headline"):
        load_arena("mine")
    with pytest.raises(UserError, match="unknown arena mime"):
        load_arena("mime")


@pytest.mark.parametrize("name", arenas())
def test_every_run_of_every_arena_composes(name: str) -> None:
    runs = runs_of(load_arena(name))
    budgets = set()
    for words in runs:
        if "ptb" in " ".join(words) or "dataset=cells_table" in words:
            config, _ = compose(list(words))
            budget = (config.paper.designs, config.paper.repeats, config.paper.batch)
            budgets.add((config.dataset._target_, *budget))
    # one of each field
    assert len(budgets) == len(load_arena(name).fields)


def test_the_report_has_a_page_of_each_arena(tmp_path: Path) -> None:
    fought = arena()
    write(Report([], 0, arenas=[(fought, standings(fought, evidence(fought, SCORES)))]), tmp_path, [])
    page, front = (tmp_path / "arena_toy.html").read_text(), (tmp_path / "index.html").read_text()
    assert 'href="arena_toy.html"' in front
    for part in ("python arena.py toy", "it is no optimizer", "2 of 2 grounds", "left", "right"):
        assert part in page
