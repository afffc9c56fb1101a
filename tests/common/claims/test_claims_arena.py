"""Arenas: runs with equal budgets, ranks with intervals, and what is not there yet."""

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common.base.errors import UserError
from common.claims import arena as arena_module
from common.claims import arena_cli
from common.claims.arena import Arena, all_standings, arenas, load_arena, playing, runs_of, standings, values
from common.claims.judge import mean_interval
from common.report.model import Report
from common.report.site import write
from common.runs.check import check_config
from common.runs.compose import compose
from common.runs.evidence import Evidence
from common.runs.inheritance import stage_keys, stage_run, stage_words
from common.runs.request import Request

FIELD: dict[str, Any] = {
    "says": "a toy",
    "tuned": "nothing",
    "measures": {
        "best": {"says": "accuracy", "unit": "%", "better": "higher"},
        "seen": {"says": "accuracy elsewhere", "unit": "%", "better": "higher"},
    },
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


@pytest.fixture(autouse=True)
def by_the_code_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "stale", lambda result: "old" in result)


def arena(**changes: Any) -> Arena:
    texts = {"name": "toy", "title": "Toys", "says": ""}
    return Arena(**texts, fields={"field": FIELD | changes})  # type: ignore[dict-item]


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
    # an interval ends where the ranks do
    assert found.rank["a"] == replace(mean_interval([1.0, 1.5, 2.0]), low=1.0)
    assert found.rank["c"].mean == 3
    assert found.rank["c"].low == found.rank["c"].high == 3
    assert found.ranks["seen"]["a"] == replace(mean_interval([2.0, 3.0, 2.0]), low=1.0, high=3.0)
    assert found.by_ground["left"]["b"].measured["best"] == mean_interval([2.0, 3.0, 2.0])
    assert list(found.ranks["seen"]) == list(found.rank)
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


def test_a_play_makes_all_runs_of_a_seed_before_those_of_the_next() -> None:
    made = runs_of(arena(seeds=[7, 3, 5]))
    assert [words[-1] for words in made] == ["seed=7"] * 6 + ["seed=3"] * 6 + ["seed=5"] * 6


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
        "title: t\nsays: s\nfields:\n  f:\n"
        "    says: s\n    tuned: nothing\n    measures: {v: {says: v, unit: x, better: lower}}\n"
        "    words: []\n    seeds: [0]\n"
        "    grounds: {g: []}\n    contestants: {a: [KEY=3]}\n"
    )
    (folder / "mine.yaml").write_text(text.replace("KEY", "paper.trials"))
    with pytest.raises(UserError, match=r"contestant a sets paper.trials=3"):
        load_arena("mine")
    (folder / "mine.yaml").write_text(text.replace("title", "headline"))
    with pytest.raises(UserError, match=r"mine.yaml: (title|headline): .*valid: as in conf/arena"):
        load_arena("mine")
    (folder / "mine.yaml").write_text(text.replace("    says: s\n", ""))
    with pytest.raises(UserError, match=r"mine.yaml: fields.f.says: field required .valid: as in conf/arena"):
        load_arena("mine")
    for other in ("", "name: mine\n" + text):
        (folder / "mine.yaml").write_text(other)
        with pytest.raises(UserError, match="valid: title, says and fields, as in"):
            load_arena("mine")
    with pytest.raises(UserError, match="unknown arena mime"):
        load_arena("mime")


@pytest.mark.parametrize("wrong", ["title: [", "title: t", "7: t"])
def test_an_arena_with_an_error_is_one_line_and_the_others_are_shown(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "conf" / "arena"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text(wrong)
    found, refused = all_standings(Evidence.of({}))
    assert [one.name for one, _ in found] == [name for name in arenas() if name != "mine"]
    assert list(refused) == ["mine"] and "mine.yaml" in refused["mine"]
    monkeypatch.setattr(sys, "argv", ["arena.py", "output_dir=none", f"results_dir={tmp_path}/none"])
    assert arena_cli.main() == 1
    said = capsys.readouterr()
    assert "pruners" in said.out and said.err.count("\n") == 1 and "mine.yaml" in said.err
    write(Report([], 0, arenas=found, refused=refused), tmp_path / "site", [])
    assert "mine cannot be shown: " in (tmp_path / "site" / "index.html").read_text()


def test_of_a_measure_that_is_better_lower_the_smallest_is_first() -> None:
    measures = {"best": {"says": "regret", "unit": "", "better": "lower"}}
    fought = arena(measures=measures)
    (found,) = standings(fought, evidence(fought, SCORES))
    # c is below the others with every seed; by seed a 3, 2.5, 2 and b 2, 2.5, 3
    assert next(iter(found.rank)) == "c" and found.rank["c"].mean == 1
    assert found.rank["a"] == replace(mean_interval([3.0, 2.5, 2.0]), high=3.0)


def test_who_is_ahead_is_open_where_intervals_of_ranks_overlap() -> None:
    fought = arena()
    (found,) = standings(fought, evidence(fought, SCORES))
    # a and b change places, c is third with every seed
    assert 2 < found.rank["a"].high < 3
    assert [found.open_against(name) for name in "abc"] == [["b"], ["a"], []]
    # by their mean ranks neither is ahead of the other
    assert found.leaders == ["a", "b"]
    assert arena_cli.ahead(found, fought.fields["field"]) == "a and b, level"
    apart = {
        "a": ([3.0, 3.0, 4.0], [1.0] * 3),
        "b": ([2.0, 2.0, 2.0], [1.0] * 3),
        "c": ([1.0] * 3, [1.0] * 3),
    }
    (found,) = standings(fought, evidence(fought, apart))
    assert [found.open_against(name) for name in "abc"] == [[], [], []]
    assert arena_cli.ahead(found, fought.fields["field"]) == "a"
    # of one seed there is no interval, and all is open
    (found,) = standings(
        fought,
        evidence(
            fought, {name: ([score], [score]) for name, score in zip("abc", (3.0, 2.0, 1.0), strict=True)}
        ),
    )
    assert found.open_against("c") == ["a", "b"]


def test_one_is_first_and_open_against_those_whose_ranks_overlap_with_its_own() -> None:
    fought = arena()
    scores = {
        "a": ([3.0, 3.0, 1.0], [1.0] * 3),
        "b": ([2.0, 1.0, 2.0], [1.0] * 3),
        "c": ([1.0, 2.0, 0.0], [1.0] * 3),
    }
    (found,) = standings(fought, evidence(fought, scores))
    assert arena_cli.ahead(found, fought.fields["field"]) == "a, open against b, c"


def test_of_one_seed_no_interval_is_spoken_of() -> None:
    fought = arena()
    alone = {name: ([score], [score]) for name, score in zip("abc", (3.0, 2.0, 1.0), strict=True)}
    (found,) = standings(fought, evidence(fought, alone))
    said = arena_cli.how_sure(found, fought.fields["field"])
    assert said.endswith("Of one seed they have no interval, and who is ahead is open.")
    assert "95%" not in said and "2 of 2 grounds" in said


@pytest.mark.parametrize(("seeds", "said"), [(3, "a probability of 0.25"), (5, "of 0.062"), (6, None)])
def test_a_rank_that_few_seeds_agree_in_is_held_against_chance(seeds: int, said: str | None) -> None:
    fought = arena()
    (found,) = standings(
        fought, evidence(fought, {name: ([x] * seeds, [x] * seeds) for x, name in enumerate("abc")})
    )
    text = arena_cli.how_sure(found, fought.fields["field"])
    assert f"over {seeds} seeds with 95% intervals" in text
    assert said in text if said else "without any spread" not in text
    # where all ranks vary nothing is said of those that do not
    varied = {
        "a": ([3.0, 1.0, 3.0], [1.0] * 3),
        "b": ([2.0, 3.0, 1.0], [1.0] * 3),
        "c": ([1.0, 2.0, 2.0], [1.0] * 3),
    }
    (found,) = standings(fought, evidence(fought, varied))
    assert "without any spread" not in arena_cli.how_sure(found, fought.fields["field"])


def test_an_interval_ends_where_a_measure_does_and_holds_its_mean() -> None:
    best = {"says": "time", "unit": "s", "better": "lower", "least": 0}
    measure = arena(measures={"best": best}).fields["field"].measures["best"]
    assert mean_interval([0.1, 0.5, 3.0]).low < 0 and measure.interval([0.1, 0.5, 3.0]).low == 0
    assert measure.interval([0.1, 0.5, 3.0]).high == mean_interval([0.1, 0.5, 3.0]).high
    below = measure.interval([-1.0, -3.0])
    assert below.low == below.mean == -2
    assert not measure.interval([1.0]).bounded


def test_values_that_differ_by_rounding_alone_are_tied() -> None:
    fought = arena()
    near = [0.22986432177054727, 0.22986432177054775]
    scores = {"a": ([near[0]] * 3, [1.0] * 3), "b": ([near[1]] * 3, [1.0] * 3), "c": ([0.1] * 3, [1.0] * 3)}
    (found,) = standings(fought, evidence(fought, scores))
    assert [found.rank[name].mean for name in "abc"] == [1.5, 1.5, 3.0]
    assert found.leaders == ["a", "b"]


def test_of_a_trade_off_nobody_is_first_and_those_are_named_whom_none_beats() -> None:
    fought = arena(trade_off=["best", "seen"])
    # c is worse than b by both; a and b have each what the other lacks
    scores = {"a": ([3.0] * 3, [1.0] * 3), "b": ([2.0] * 3, [3.0] * 3), "c": ([1.0] * 3, [2.0] * 3)}
    (found,) = standings(fought, evidence(fought, scores))
    assert found.leaders == ["a", "b"]
    assert arena_cli.ahead(found, fought.fields["field"]) == (
        "nobody, as accuracy is traded for accuracy elsewhere; clearly beaten by none: a, b"
    )


def test_of_a_trade_off_one_that_is_not_clearly_beaten_stays() -> None:
    fought = arena(trade_off=["best", "seen"])
    # b is behind a on the average, and not with every seed; c is with every one
    scores = {
        "a": ([3.0, 3.0, 1.0], [1.0] * 3),
        "b": ([2.0, 2.0, 2.0], [1.0] * 3),
        "c": ([0.0] * 3, [0.5] * 3),
    }
    (found,) = standings(fought, evidence(fought, scores))
    assert found.leaders == ["a", "b"]


def test_a_field_counts_its_runs_and_those_by_earlier_code() -> None:
    fought = arena()
    there = evidence(fought, SCORES)
    there.by_key["yogi/lefta0"]["old"] = True
    (found,) = standings(fought, there)
    assert (len(found.results), found.stale) == (6, 1)


GRIDS = {name: [["method.lr=1"], ["method.lr=2"]] for name in "abc"}
CHOICE = {
    "held_out": {"says": "held-out error", "unit": "%", "better": "lower"},
    "test_error": {"says": "test error", "unit": "%", "better": "lower"},
}


def test_a_setting_is_chosen_by_the_mean_over_seeds_of_what_is_held_out_and_never_by_the_test() -> None:
    fought = arena(measures=CHOICE, grids=GRIDS, choose="held_out", seeds=[0, 1], grounds={"left": []})
    (field,) = fought.fields.values()
    # by (contestant, setting) and seed: held out, test; the setting that a chooses has the worse test
    scores = {
        ("a", 0): [(5.0, 1.0), (4.0, 1.0)], ("a", 1): [(1.0, 9.0), (6.0, 9.0)],
        ("b", 0): [(2.0, 2.0), (2.0, 2.0)], ("b", 1): [(3.0, 0.0), (3.0, 0.0)],
        ("c", 0): [(9.0, 3.0), (9.0, 3.0)], ("c", 1): [(9.0, 0.0), (9.0, 0.0)],
    }  # fmt: skip
    found = {}
    for (name, option), by_seed in scores.items():
        for seed, words in enumerate(field.runs("left", name, field.options(name)[option])):
            held, test = by_seed[seed]
            found[f"yogi/{name}{option}{seed}"] = {
                "overrides": list(words), "asked": [sorted(words)], "entries": [], "finished": "2026",
                "metrics": {"held_out": held, "test_error": test}, "paper": "yogi",
            }  # fmt: skip
    assert len(runs_of(fought)) == len(found) == 12
    (one,) = standings(fought, Evidence.of(found))
    chosen = {name: standing.chosen for name, standing in one.by_ground["left"].items()}
    # equal means keep the setting that is named first
    assert chosen == {"a": ("method.lr=2",), "b": ("method.lr=1",), "c": ("method.lr=1",)}
    assert one.by_ground["left"]["a"].measured["test_error"] == mean_interval([9.0, 9.0])
    # by seed held out: a 1, 6; b 2, 2; c 9, 9
    assert {name: rank.mean for name, rank in one.rank.items()} == {"b": 1.5, "a": 1.5, "c": 3.0}
    found.pop("yogi/a10")
    (one,) = standings(fought, Evidence.of(found))
    assert one.by_ground == {} and len(one.missing) == 1


def test_the_words_of_a_contestant_stand_where_the_field_has_a_place_for_them() -> None:
    words = ["paper=pelee", "start='paper=dcp {contestant} seed={seed}'"]
    field = arena(words=words, grounds={"left": [], "right": []}).fields["field"]
    assert field.runs("left", "b")[0] == (
        "paper=pelee",
        "start='paper=dcp method=optimizer/yogi seed=0'",
        "seed=0",
    )


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"contestants": {"a": ["paper.trials=3"]}}, "contestant a sets paper.trials=3"),
        ({"contestants": {"a": ["dataset.limit=3"]}}, "contestant a sets dataset.limit=3"),
        ({"contestants": {"a": ["scale=paper"]}}, "contestant a sets scale=paper"),
        ({"grids": {**GRIDS, "a": [["paper.epochs=9"], []]}, "choose": "best"}, "sets paper.epochs=9"),
        ({"grids": {**GRIDS, "a": [["method.lr=1"]]}, "choose": "best"}, "'a': 1, 'b': 2"),
        ({"grids": {"a": GRIDS["a"]}, "choose": "best"}, "'b': 1"),
        ({"grids": {**GRIDS, "d": GRIDS["a"]}, "choose": "best"}, "d does not play"),
        ({"grids": GRIDS}, "choose=None"),
        ({"grids": GRIDS, "choose": "test_error", "measures": CHOICE}, "choose=test_error .*held_out"),
        ({"choose": "best"}, "there are no grids"),
        ({"trade_off": ["best"]}, "trade_off=.*at least two of best, seen"),
        ({"trade_off": ["best", "speed"]}, "trade_off=.*at least two of best, seen"),
    ],
)  # fmt: skip
def test_a_contest_that_is_not_equal_is_refused(changes: dict[str, Any], fault: str) -> None:
    faults = list(arena(**changes).fields["field"].faults())
    assert any(re.search(fault, one) for one in faults), faults
    assert list(arena().fields["field"].faults()) == []


def checked(config: Any, request: Request) -> None:
    """Hold a run's config, and those of the runs that it needs itself, against the code that they name."""
    check_config(config)
    for key, group in stage_keys(config).items():
        words = stage_words(config, group, key)
        if words is not None:
            check_config(stage_run(words, key, config, request)[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", arenas())
def test_the_runs_of_every_contestant_are_valid_and_have_one_budget(name: str) -> None:
    fought = load_arena(name)
    for field in fought.fields.values():
        assert len(field.seeds) >= 5 or "repeats=20" in " ".join(field.words)
        (ground, *others), budgets = field.grounds, set()
        for contestant in field.contestants:
            # the settings of a grid differ in a number alone
            config, request = compose(list(field.runs(ground, contestant, field.options(contestant)[0])[0]))
            checked(config, request)
            shared = [config[group] for group in ("paper", "dataset", "model", "schedule")]
            budgets.add(str([*shared, request.choices["scale"]]))
        assert len(budgets) == 1
        for other in others:
            checked(*compose(list(field.runs(other, next(iter(field.contestants)))[0])))


@pytest.mark.parametrize("name", arenas())
def test_every_arena_says_what_is_tuned_and_why_methods_are_left_out(name: str) -> None:
    for field in load_arena(name).fields.values():
        assert field.tuned and all(reason for reason in field.left_out.values())
        assert not set(field.left_out) & set(field.contestants)
        assert len(set(map(tuple, field.contestants.values()))) == len(field.contestants)


@pytest.mark.slow
def test_a_tiny_arena_is_played_recorded_and_ranked_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny = arena(
        words=["paper=yogi", "scale=smoke", "dataset=breast_cancer", "dataset.validation=0.2"],
        measures={"validation_error": CHOICE["held_out"], "test_error": CHOICE["test_error"]},
        grounds={"here": []}, seeds=[0, 1],
        contestants={"adam": ["method=optimizer/adam"], "sgd": ["method=optimizer/sgd"]},
        grids={name: [["method.lr=0.001"], ["method.lr=0.01"]] for name in ("adam", "sgd")},
        choose="validation_error",
    )  # fmt: skip
    monkeypatch.setattr(arena_cli, "load_arena", lambda name: tiny)
    given = [
        f"output_dir={tmp_path}/outputs",
        f"results_dir={tmp_path}/results",
        "record=true",
        "trainer=cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["arena.py", "toy", *given])
    assert arena_cli.main() == 0
    assert len(list((tmp_path / "results").glob("yogi/*.json"))) == 8
    assert "here, chosen: adam method.lr=0.0" in (said := capsys.readouterr().out) and "8 of 8 runs" in said
    # a play that was broken off goes on with what is missing
    lost = next((tmp_path / "results").glob("yogi/*.json"))
    (tmp_path / "outputs" / "yogi" / lost.stem / "result.json").unlink()
    lost.unlink()
    assert arena_cli.main() == 0
    assert "1 of 8 runs to make" in capsys.readouterr().out and lost.exists()


def test_a_mistyped_arena_is_answered_with_the_valid_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["arena.py", "prunres"])
    assert arena_cli.main() == 1
    said = capsys.readouterr().err
    assert "did you mean" in said or "valid:" in said
    assert "pruners" in said and said.count("\n") == 1


def test_the_report_has_a_page_of_each_arena(tmp_path: Path) -> None:
    fought = arena()
    write(Report([], 0, arenas=[(fought, standings(fought, evidence(fought, SCORES)))]), tmp_path, [])
    page, front = (tmp_path / "arena_toy.html").read_text(), (tmp_path / "index.html").read_text()
    assert 'href="arena_toy.html"' in front and "field: a and b, level" in front
    for part in (
        "python arena.py toy",
        "it is no optimizer",
        "2 of 2 grounds",
        "left",
        "right",
        "Open against",
    ):
        assert part in page
    # the rank, and what decides on each ground
    assert page.count("<svg") == 3
