"""Searches over a table: proposals, records, early stopping, trainings in full, processes, kills."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
from architecture_toys import Nothing, Pair, Pairs, Table
from scipy.stats import spearmanr

from common.architectures import module as search_module
from common.architectures.evaluate import Job, Workers, evaluate_all
from common.architectures.module import ArchitectureSearchModule
from common.architectures.objective import seed_of
from common.architectures.record import Evaluated, Record, pareto_front
from common.architectures.searchers import MixtureSearch, Planned, RandomSearch, RegularisedEvolution
from common.base.errors import UserError
from common.base.module import UNDER_WAY

SETTINGS: dict[str, Any] = {
    "seed": 3, "evaluations": 12, "batch": 4, "steps": 10, "proxy_share": 0.5, "rerank": 5,
    "workers": Workers(),
}  # fmt: skip


def made(objective: Table | None = None, **changes: Any) -> ArchitectureSearchModule[Pair]:
    table = Table() if objective is None else objective
    parts: dict[str, Any] = {"objective": table, "full": table, "searcher": RandomSearch()}
    parts["references"] = {"zero": Pair(0, 0), "one": Pair(1, 0)}
    return ArchitectureSearchModule(**(parts | SETTINGS | changes))


def fit(
    module: ArchitectureSearchModule[Pair], root: Path, rounds: int = -1
) -> ArchitectureSearchModule[Pair]:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=rounds, logger=False, enable_checkpointing=False,
        default_root_dir=root, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return module


def observed(record: Record[Pair]) -> list[tuple[str, float]]:
    return [(item.architecture.key, item.score) for item in record]


def record_of(*scores: float) -> Record[Pair]:
    record: Record[Pair] = Record()
    for number, score in enumerate(scores):
        record.add(Evaluated(Pair(number, number), {"score": score}, {"parameters": 1.0}, 0.5))
    return record


# --- the loop


def test_nothing_is_evaluated_twice_and_everything_is_kept(tmp_path: Path) -> None:
    module = fit(made(), tmp_path)
    keys = [item.architecture.key for item in module.evaluated]
    assert len(keys) == len(set(keys)) == 12
    kept = json.loads((tmp_path / "architectures.json").read_text())
    assert [len(kept[part]) for part in ("search", "full", "references")] == [12, 5, 2]
    assert json.loads((tmp_path / "found.json").read_text()) == module.found.architecture.to_json()
    assert not (tmp_path / UNDER_WAY).exists()


class Watching(RandomSearch):
    """Notes how much is under way when it is asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, list[str]]] = []

    def propose(self, space: Any, record: Record[Any], random: Any) -> Any:
        self.seen.append((len(record), [one.key for one in record.pending]))
        return super().propose(space, record, random)


def test_a_rounds_later_proposals_know_the_earlier_ones(tmp_path: Path) -> None:
    searcher = Watching()
    module = fit(made(searcher=searcher), tmp_path)
    keys = [item.architecture.key for item in module.evaluated]
    # the last time that each was asked for; a proposal that is known is asked for again
    last = {done + len(pending): pending for done, pending in searcher.seen}
    assert [last[n] for n in range(12)] == [keys[n - n % 4 : n] for n in range(12)]
    assert module.evaluated.pending == []


def test_the_search_stops_trainings_early_and_the_best_are_trained_in_full(tmp_path: Path) -> None:
    module = fit(made(), tmp_path)
    table = Table()
    assert all(item.score == table.train(item.architecture, 5)["score"] for item in module.evaluated)
    best = sorted(module.evaluated, key=lambda item: -item.score)[:5]
    assert [item.architecture for item in module.ranked] == [item.architecture for item in best]
    assert all(item.score == table.train(item.architecture, 10)["score"] for item in module.ranked)
    assert [item.architecture for item in module.compared] == [Pair(0, 0), Pair(1, 0)]


def test_results_say_what_was_found_and_how_well_the_search_foresaw_it(tmp_path: Path) -> None:
    module = fit(made(), tmp_path)
    found = module.results()
    assert (found["evaluations"], found["failed_evaluations"], found["used_up"]) == (12, 0, 0)
    assert found["found"] == list(module.objective.space.encode(module.found.architecture))
    assert found["winner_proxy_rank"] == 1
    short, full = [i.score for i in module.evaluated.best(5)], [i.score for i in module.ranked]
    assert found["spearman"] == pytest.approx(spearmanr(short, full).statistic)
    assert found["gain_over_zero"] == found["found_test"] - found["zero_test"] == found["found_test"]
    assert found["found_parameters"] == module.found.costs["parameters"]
    best = np.maximum.accumulate([item.score for item in module.evaluated])
    assert module.history["best"][:12] == pytest.approx(best)


class Reversed(Table):
    def train(self, architecture: Pair, budget: int) -> dict[str, float]:
        return {"score": -super().train(architecture, budget)["score"]}


def test_what_the_trainings_in_full_say_decides(tmp_path: Path) -> None:
    module = fit(made(full=Reversed()), tmp_path)
    found = module.results()
    assert found["spearman"] == pytest.approx(-1.0)
    # the last place is shared
    assert found["winner_proxy_rank"] >= 4
    assert module.found.score == max(item.score for item in module.ranked)


@pytest.mark.parametrize("searcher", [
    RandomSearch(), MixtureSearch(near=0.5, best=3), RegularisedEvolution(population=4, tournament=2),
], ids=["random", "mixture", "evolution"])  # fmt: skip
@pytest.mark.parametrize("rounds", range(1, 6))
def test_a_search_that_was_stopped_anywhere_goes_on_as_if_nothing_had_been(
    tmp_path: Path, searcher: Any, rounds: int
) -> None:
    whole = fit(made(searcher=searcher), tmp_path / "whole")
    begun = fit(made(searcher=searcher), tmp_path / "broken", rounds=rounds)
    again = made(searcher=searcher)
    again.load_search_state(json.loads(json.dumps(begun.search_state())))
    again.history = begun.history
    fit(again, tmp_path / "broken")
    for part in ("evaluated", "ranked", "compared"):
        assert observed(getattr(again, part)) == observed(getattr(whole, part))
    assert again.results() == whole.results()


def test_evaluations_of_a_killed_round_are_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    class Killed(Table):
        def train(self, architecture: Pair, budget: int) -> dict[str, float]:
            if len(calls) == 6:
                raise KeyboardInterrupt
            calls.append(architecture.key)
            return super().train(architecture, budget)

    begun = made(Killed())
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        fit(begun, tmp_path)
    assert len(begun.evaluated) == 4
    again = made(Killed())
    again.load_search_state(begun.search_state())
    before = list(calls)
    calls.append("the kill is over")
    fit(again, tmp_path)
    made_again = set(before) & set(calls[7 : 7 + 12])
    assert made_again <= {item.architecture.key for item in again.ranked}
    assert observed(again.evaluated) == observed(fit(made(), tmp_path / "whole").evaluated)


def test_proposals_do_not_depend_on_how_the_search_was_cut_into_rounds_of_a_random_search(
    tmp_path: Path,
) -> None:
    one, four = (fit(made(batch=batch), tmp_path / str(batch)) for batch in (1, 4))
    assert observed(one.evaluated) == observed(four.evaluated)


@pytest.mark.slow
def test_processes_change_nothing(tmp_path: Path) -> None:
    alone = fit(made(), tmp_path / "one")
    shared = fit(made(workers=Workers(processes=2)), tmp_path / "two")
    assert observed(shared.evaluated) == observed(alone.evaluated)
    assert shared.results() == alone.results()


def test_a_space_that_is_used_up_ends_the_search_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "TRIES", 200)
    module = fit(made(Table(side=3), evaluations=50), tmp_path)
    assert len(module.evaluated) == 6
    assert "the search ends after 6 of 50 evaluations" in capsys.readouterr().out
    assert module.results()["used_up"] == 1


def test_a_failure_stays_in_the_record_and_loses_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(made(), tmp_path / "whole")
    (first, second) = (item.architecture.key for item in list(whole.evaluated)[:2])
    module = fit(made(Table(failing=(first, second))), tmp_path / "failing")
    assert observed(module.evaluated)[2:] == observed(whole.evaluated)[2:]
    assert [item.failure for item in list(module.evaluated)[:3]] == ["ValueError: no such network"] * 2 + [
        None
    ]
    assert module.results()["failed_evaluations"] == 2
    assert capsys.readouterr().out.count("it stays in the record") == 1


def test_a_search_in_which_everything_fails_ends_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="all 10 evaluations so far failed, the last with its score is not finite"
    ):
        fit(made(Nothing()), tmp_path)


@pytest.mark.slow
def test_a_users_mistake_comes_out_of_a_process_as_it_is(tmp_path: Path) -> None:
    jobs = [Job(Table(refused=True), Pair(0, number), 1, tmp_path / f"{number}.json") for number in range(2)]
    with pytest.raises(UserError, match="this is refused"):
        evaluate_all(jobs, Workers(processes=2))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"evaluations": 0}, "paper.evaluations=0"),
        ({"batch": 0}, "paper.batch=0"),
        ({"rerank": 0}, "paper.rerank=0"),
        ({"proxy_share": 0.0}, r"paper.proxy_share=0\.0; valid: above 0"),
        ({"proxy_share": 1.5}, r"paper.proxy_share=1\.5"),
        ({"workers": Workers(processes=0)}, "paper.processes=0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        made(**changes)


# --- searchers


def test_mixture_search_draws_near_the_best_as_often_as_it_says() -> None:
    record, space = record_of(1.0, 5.0, math.nan, 4.0, 2.0), Pairs(1000)
    drawn = [
        MixtureSearch(near=0.25, best=2).propose(space, record, np.random.default_rng(seed))
        for seed in range(2000)
    ]
    near = [pair for pair in drawn if pair.a in (1, 3) and pair.a != pair.b]
    assert abs(len(near) / 2000 - 0.25) < 5 * (0.25 * 0.75 / 2000) ** 0.5
    assert abs(sum(pair.a == 1 for pair in near) / len(near) - 0.5) < 5 * 0.5 / len(near) ** 0.5


def test_mixture_search_is_uniform_before_anything_is_known() -> None:
    random = [np.random.default_rng(7) for _ in range(2)]
    random[1].random()
    near = MixtureSearch(near=1.0, best=3).propose(Pairs(9), record_of(math.nan), random[0])
    assert near == Pairs(9).sample(random[1])


def test_evolution_mutates_the_best_of_a_tournament_among_the_living() -> None:
    # the best of all, the first, is too old
    record, space = record_of(9.0, 1.0, 3.0, math.nan, 2.0), Pairs(1000)
    searcher = RegularisedEvolution(population=3, tournament=3)
    parents = [searcher.propose(space, record, np.random.default_rng(seed)).a for seed in range(600)]
    counts = {parent: parents.count(parent) for parent in set(parents)}
    # of three draws with replacement the best of scores 1 < 2 < 3: 1/27, 7/27, 19/27
    for parent, share in ((1, 1 / 27), (4, 7 / 27), (2, 19 / 27)):
        assert abs(counts[parent] / 600 - share) < 5 * (share * (1 - share) / 600) ** 0.5
    assert set(counts) == {1, 2, 4}


def test_evolution_samples_until_its_population_is_full() -> None:
    searcher = RegularisedEvolution(population=4, tournament=2)
    proposal = searcher.propose(Pairs(1000), record_of(1.0, 2.0, math.nan, 3.0), np.random.default_rng(0))
    assert proposal == Pairs(1000).sample(np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: MixtureSearch(near=1.5, best=1), "near=1.5"),
        (lambda: MixtureSearch(near=0.5, best=0), "best=0"),
        (lambda: RegularisedEvolution(population=0, tournament=1), "population=0"),
        (lambda: RegularisedEvolution(population=2, tournament=3), "tournament=3; valid: 1 to"),
    ],
)
def test_searchers_refuse_what_means_nothing(make: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        make()


# --- records


def test_a_record_comes_back_from_text_with_all_its_bits() -> None:
    record = record_of(0.1 + 0.2, math.nan, 1e-300)
    again = Record.from_json(json.loads(json.dumps(record.to_json())), Pairs(9))
    assert repr(again.items) == repr(record.items)
    assert again.keys == record.keys


def test_the_best_are_valid_and_the_earlier_of_equal_ones_comes_first() -> None:
    record = record_of(1.0, 2.0, math.nan, 2.0, math.inf)
    assert [item.architecture.a for item in record.best(3)] == [1, 3, 0]
    assert [item.architecture.a for item in record.last(2)] == [1, 3]


def test_the_pareto_front_is_what_no_other_is_better_than() -> None:
    random = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in random.integers(0, 12, (60, 2))]
    front = {points[number] for number in pareto_front(points)}
    wanted = {p for p in points if not any(q[0] <= p[0] and q[1] >= p[1] and q != p for q in points)}
    assert front == wanted
    assert len(pareto_front(points)) == len(wanted)


def test_seeds_of_trainings_follow_from_run_and_architecture_alone() -> None:
    seeds = {seed_of(run, key) for run in range(50) for key in ("a", "b", "0 a")}
    assert len(seeds) == 150
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(3, "a") == seed_of(3, "a")


# --- rounds that are planned


class Planner(RandomSearch):
    """Plans the pairs (0, 0), (0, 1), ... of a round, and expects the second number."""

    def plan(self, space: Any, record: Record[Any], count: int, random: Any) -> list[Planned[Any]]:
        start = len(record)
        return [Planned(Pair(7, start + k), float(start + k)) for k in range(min(count, 3))]


def test_a_plan_comes_first_and_the_rest_of_a_round_is_proposed(tmp_path: Path) -> None:
    module = fit(made(searcher=Planner(), evaluations=8, batch=4), tmp_path)
    pairs = [item.architecture for item in module.evaluated]
    assert pairs[:3] == [Pair(7, k) for k in range(3)] and pairs[4:7] == [Pair(7, k) for k in (4, 5, 6)]
    assert len({pair.key for pair in pairs}) == 8
    assert module.expected[Pair(7, 5).key] == 5.0
    assert module.history["expected"][:4] == [0.0, 1.0, 2.0, None]


def test_no_searcher_plans_by_itself_and_no_space_is_counted_through() -> None:
    assert RandomSearch().plan(Pairs(3), record_of(), 5, np.random.default_rng(0)) == []
    with pytest.raises(UserError, match="Pairs: its 9 architectures are not counted through"):
        next(iter(Pairs(3).every()))
