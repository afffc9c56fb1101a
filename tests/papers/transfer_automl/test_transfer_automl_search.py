"""Curves, grounds, designers and the loop."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Record
from common.architectures.searchers import ArchitectureSearcher, Planned, RandomSearch, RegularisedEvolution
from common.architectures.space import ArchitectureSpace
from common.base.errors import UserError
from common.base.stages import Stage
from papers.transfer_automl.cells import CellNetwork, CellNetworks, ImageObjective
from papers.transfer_automl.controller import Controller
from papers.transfer_automl.designers import ControllerSearch, Designer, RandomDesigns, RecordSearch
from papers.transfer_automl.family import DesignFamily
from papers.transfer_automl.ground import DesignTasks, Ground, ObjectiveTask, TableGround
from papers.transfer_automl.module import AutoMLModule
from papers.transfer_automl.space import ChoicesOf, Design, DesignSpace, OwnSpace
from papers.transfer_automl.trials import TaskCurves

CONTROLLER: dict[str, Any] = {
    "task_choice": "round_robin", "reference": None, "pretrained": None, "hidden": 8, "layers": 1,
    "action_size": 4, "task_size": 3, "skip": True, "init": 0.1, "task_init": 1.0, "algorithm": "reinforce",
    "norm": "std", "lr": 0.01, "entropy": 0.01, "clip": 5.0, "decay": 0.95, "wait": 5,
    "max_advantage": 5.0, "ppo_clip": 0.2, "ppo_passes": 2, "ppo_bank": 2, "queue": 5, "train": "all",
}  # fmt: skip
BUDGET: dict[str, Any] = {
    "seed": 0, "trials": 40, "designs": None, "batch": 4, "repeats": 2, "top": 3, "share": 1.0,
    "processes": 1, "launcher": "joblib", "threads": 1,
}  # fmt: skip
SPACE = DesignSpace({"a": [0, 1, 2], "b": [0, 1], "c": ["x", "y", "z", "w"]})


def controller(**changes: Any) -> ControllerSearch:
    return ControllerSearch(**(CONTROLLER | changes))


def uniform() -> RandomDesigns:
    return RandomDesigns(task_choice="round_robin", reference=None)


def record(searcher: Any) -> RecordSearch:
    return RecordSearch(task_choice="round_robin", reference=None, searcher=searcher)


def family(**changes: Any) -> DesignFamily:
    settings: dict[str, Any] = {
        "kind": "design_tasks", "tasks": None, "count": 3, "seed": 0, "shared": 0.7, "own": 0.7,
        "clusters": None, "spreads": None, "noise": 0.0,
    }  # fmt: skip
    return DesignFamily(**(settings | changes))


class Looked(DesignTasks):
    """Tasks with given scores."""

    NAME = "looked"

    def __init__(self, validation: torch.Tensor, test: torch.Tensor | None = None) -> None:
        names = [f"t{k}" for k in range(len(validation))]
        super().__init__(kind="design_tasks", all_names=names, tasks=None)
        self.validation, self.test = validation, validation if test is None else test

    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        return TableGround(self.names, space, self.validation, self.test)


def fit(data: DesignTasks, method: Designer, root: Path, steps: int = -1, **changes: Any) -> AutoMLModule:
    model = OwnSpace(shape=(1,), classes=None) if isinstance(data, ObjectiveTask) else SPACE
    module = AutoMLModule(data=data, model=model, method=method, **(BUDGET | changes))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=steps, logger=False, enable_checkpointing=False,
        default_root_dir=root, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return module


# --- curves


@given(
    st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1) | st.just(math.nan)), min_size=1, max_size=30),
    st.integers(1, 4),
)
def test_curves_are_what_sorting_all_trials_gives(trials: list[tuple[int, float]], top: int) -> None:
    curves = TaskCurves(top)
    for key, score in trials:
        curves.add(key, score, -score)
    for n in range(1, len(trials) + 1):
        known = sorted((s for _, s in trials[:n] if math.isfinite(s)), reverse=True)
        mean = sum(known[:top]) / top if len(known) >= top else math.nan
        assert curves.top_mean[n - 1] == pytest.approx(mean, nan_ok=True)
        assert curves.best[n - 1] == pytest.approx(known[0] if known else math.nan, nan_ok=True)
        assert curves.best_test[n - 1] == pytest.approx(-known[0] if known else math.nan, nan_ok=True)
        assert curves.designs[n - 1] == len({key for key, _ in trials[:n]})
    assert curves.top_test == pytest.approx(-curves.top_mean[-1], nan_ok=True)
    for designs in range(6):
        counted = curves.trials_of(designs)
        assert all(curves.designs[n] <= designs for n in range(counted))
        assert counted == len(trials) or curves.designs[counted] > designs


def test_a_level_is_reached_at_the_first_trial_that_is_there() -> None:
    curves = TaskCurves(1)
    for score in (0.1, 0.5, 0.4, 0.7):
        curves.add(score, score, 0.0)
    assert [curves.reached(level) for level in (0.1, 0.5, 0.6, 0.8)] == [1, 2, 4, None]


# --- the space


@pytest.mark.parametrize("code", [("a", 0, 0), (0.5, 0, 0), (True, 0, 0), (None, 0, 0)])
def test_a_code_of_anything_but_whole_numbers_is_refused(code: Any) -> None:
    with pytest.raises(UserError, match="at position 0; valid: a whole number"):
        SPACE.decode(code)
    assert SPACE.decode(tuple(np.array([2, 1, 3]))).code == (2, 1, 3)


@pytest.mark.parametrize("values", [3, "xy", None, [], [1, 1]])
def test_decisions_without_a_list_of_choices_are_refused(values: Any) -> None:
    with pytest.raises(UserError, match=r"model\.decisions\.b=.*; valid: "):
        DesignSpace({"a": [1, 2], "b": values})


# --- grounds


def test_a_family_is_the_formula_it_says(tmp_path: Path) -> None:
    ground: Any = family(clusters=2, spreads=[1.0, 0.1]).ground(SPACE, 0, 1.0)
    code = (2, 1, 3)
    for task in range(3):
        utility = sum(float(ground.singles[t][task, c]) for t, c in enumerate(code))
        utility += sum(float(terms[code[s], code[t]]) for s, t, terms in ground.pairs)
        expected = float(ground.levels[task]) + [1.0, 0.1, 1.0][task] * math.tanh(utility / 4)
        found = ground.scores(torch.tensor([task]), torch.tensor([code]), torch.zeros(1))
        assert found[0].tolist() == pytest.approx([expected, expected])
    # tasks 0 and 2 are of one group
    assert torch.equal(ground.singles[0][0], ground.singles[0][2])
    assert not torch.equal(ground.singles[0][0], ground.singles[0][1])


def test_a_familys_tasks_are_the_same_whichever_are_searched() -> None:
    codes, noise = SPACE.codes(torch.arange(SPACE.size)), torch.zeros(SPACE.size)
    alone = family(tasks=["task2"]).ground(SPACE, 0, 1.0)
    among = family().ground(SPACE, 5, 1.0)
    zero, two = torch.zeros(SPACE.size, dtype=torch.int64), torch.full((SPACE.size,), 2)
    assert torch.equal(alone.scores(zero, codes, noise), among.scores(two, codes, noise))


def test_the_noise_of_a_family_is_no_part_of_its_test_score() -> None:
    ground = family(noise=0.5).ground(SPACE, 0, 1.0)
    code = torch.zeros(4000, 3, dtype=torch.int64)
    noise = torch.from_numpy(np.random.default_rng(0).normal(size=4000))
    found = ground.scores(torch.zeros(4000, dtype=torch.int64), code, noise)
    assert len(set(found[:, 1].tolist())) == 1
    assert float((found[:, 0] - found[:, 1]).std()) == pytest.approx(0.5, rel=0.05)


class Counted(ArchitectureObjective[Design]):
    """A score that is counted when it is trained, and one design that fails."""

    def __init__(self, space: Any) -> None:
        self.space, self.made = space, 0

    def build(self, architecture: Design) -> torch.nn.Module:
        raise NotImplementedError

    def count(self, architecture: Design) -> dict[str, float]:
        return {}

    def train(self, architecture: Design, budget: int) -> dict[str, float]:
        self.made += 1
        if architecture.code == (0, 0, 0):
            raise ValueError("exploded")
        return {"score": float(sum(architecture.code)), "test": 1.0}


def test_trainings_are_made_once_and_a_failed_one_stays_in_the_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    objective = Counted(SPACE)
    data = ObjectiveTask(kind="design_tasks", objective=objective, steps=5, name="mine")
    module = fit(data, uniform(), tmp_path, trials=200, repeats=2)
    assert objective.made <= SPACE.size
    found = module.results()
    assert found["failed_trials"] > 0 and found["best"] == 6
    assert capsys.readouterr().out.count("ValueError: exploded") == 1
    assert module.found()["mine"]["design"] == {"a": 2, "b": 1, "c": "w"}
    assert not (tmp_path / "under_way").exists() and (tmp_path / "found.json").exists()
    with pytest.raises(UserError, match=r"a space of its own \(valid: model=own_space\)"):
        data.ground(SPACE, 0, 1.0)
    with pytest.raises(UserError, match="int is no ArchitectureObjective"):
        ObjectiveTask(kind="design_tasks", objective=3, steps=5, name="mine")


class Graphs(ArchitectureSpace[Design]):
    """A space that does not say that its decisions are free of each other."""

    size = SPACE.size

    def sample(self, random: Any) -> Design:
        return SPACE.sample(random)

    def mutate(self, architecture: Design, random: Any) -> Design:
        return SPACE.mutate(architecture, random)

    def encode(self, architecture: Design) -> tuple[int, ...]:
        raise NotImplementedError

    def decode(self, code: tuple[int, ...]) -> Design:
        raise NotImplementedError

    def from_json(self, data: Any) -> Design:
        return SPACE.from_json(data)


def test_architectures_that_are_no_sequences_are_searched_by_their_record(tmp_path: Path) -> None:
    data = ObjectiveTask(kind="design_tasks", objective=Counted(Graphs()), steps=1, name="graphs")
    search = record(RegularisedEvolution(population=4, tournament=2))
    module = fit(data, search, tmp_path, trials=12, repeats=1)
    assert module.results()["designs"] == 12
    state = module.search_state()
    own = OwnSpace(shape=(1,), classes=None)
    again = AutoMLModule(data=data, model=own, method=search, **(BUDGET | {"trials": 12, "repeats": 1}))
    again.reshape(state)
    again.load_search_state(state)
    assert again.results()["best"] == module.results()["best"]
    with pytest.raises(UserError, match="its decisions depend on each other"):
        ChoicesOf(data.objective.space)


@dataclass(frozen=True)
class Unordered:
    """A pair of choices whose order says nothing: two codes, one architecture."""

    code: tuple[int, ...]

    @property
    def key(self) -> str:
        return str(sorted(self.code))

    def to_json(self) -> list[int]:
        return list(self.code)


class UnorderedPairs(DesignSpace):
    """Pairs of four choices: sixteen codes, ten architectures."""

    def __init__(self) -> None:
        super().__init__({"one": [0, 1, 2, 3], "other": [0, 1, 2, 3]})

    def sample(self, random: Any) -> Any:
        return Unordered(super().sample(random).code)

    def decode(self, code: tuple[int, ...]) -> Any:
        return Unordered(super().decode(code).code)


def test_codes_of_one_architecture_count_once(tmp_path: Path) -> None:
    objective = Counted(UnorderedPairs())
    data = ObjectiveTask(kind="design_tasks", objective=objective, steps=1, name="pairs")
    module = fit(data, uniform(), tmp_path, trials=400, repeats=1)
    assert module.curves[0][0].designs[-1] == 10 and objective.made == 10


# --- designers


class Twos(ArchitectureSearcher):
    """Plans two designs of a round, and proposes others; tells what it was shown as under way."""

    NAME = "twos"

    def __init__(self) -> None:
        self.pending: list[int] = []

    def propose(self, space: Any, record: Record[Any], random: Any) -> Any:
        self.pending.append(len(record.pending))
        return space.sample(random)

    def plan(self, space: Any, record: Record[Any], count: int, random: Any) -> list[Planned[Any]]:
        every = [Design(tuple(code)) for code in space.codes(torch.arange(space.size)).tolist()]
        fresh = [one for one in every if one.key not in record.keys]
        return [Planned(one) for one in fresh[: min(2, count)]]


def test_what_a_searcher_plans_for_a_round_comes_first(tmp_path: Path) -> None:
    searcher = Twos()
    module = fit(family(tasks=["task1"]), record(searcher), tmp_path, trials=8, repeats=1, batch=4)
    codes = module.trials.joined().codes[0].tolist()
    assert codes[:2] == [[0, 0, 0], [0, 0, 1]] and len({tuple(code) for code in codes}) == 8
    # each is shown what of its round is under way, and nothing of the round before
    assert searcher.pending[0] == 2 and max(searcher.pending) == 3
    assert module.designer.records[0][0].pending == []  # type: ignore[attr-defined]


def test_of_several_tasks_each_has_its_own_plan(tmp_path: Path) -> None:
    module = fit(family(), record(Twos()), tmp_path, trials=6, repeats=1, batch=6)
    trials = module.trials.joined()
    for task in range(3):
        assert trials.codes[0][trials.tasks[0] == task].tolist() == [[0, 0, 0], [0, 0, 1]]


def test_random_search_is_uniform_and_goes_round_the_tasks(tmp_path: Path) -> None:
    module = fit(family(), uniform(), tmp_path, trials=6000, repeats=1, batch=60)
    trials = module.trials.joined()
    assert torch.equal(trials.tasks[0], torch.arange(6000) % 3)
    shares = torch.bincount(SPACE.number(trials.codes[0]), minlength=24) / 6000
    assert bool(((shares - 1 / 24).abs() < 4 * (1 / 24 / 6000) ** 0.5).all())


def test_a_record_search_proposes_no_design_twice_until_all_are_tried(tmp_path: Path) -> None:
    module = fit(family(tasks=["task1"]), record(RandomSearch()), tmp_path, trials=26, repeats=2)
    for row in module.curves:
        assert row[0].designs[:24] == list(range(1, 25)) and row[0].designs[25] == 24


def test_a_replicate_searches_alone_as_it_does_among_others(tmp_path: Path) -> None:
    for method in (controller, uniform, lambda: record(RegularisedEvolution(population=4, tournament=2))):
        both = fit(family(), method(), tmp_path, seed=3, repeats=2)
        alone = fit(family(), method(), tmp_path, seed=4, repeats=1)
        assert torch.equal(both.trials.joined().codes[1:], alone.trials.joined().codes)


def test_a_controller_that_learns_nothing_is_random_search(tmp_path: Path) -> None:
    still = fit(family(), controller(lr=0.0, init=0.0), tmp_path, trials=3000, batch=60, repeats=1)
    shares = torch.bincount(SPACE.number(still.trials.joined().codes[0]), minlength=24) / 3000
    assert bool(((shares - 1 / 24).abs() < 4 * (1 / 24 / 3000) ** 0.5).all())


def test_a_controller_finds_better_designs_than_random_search(tmp_path: Path) -> None:
    data = family(tasks=["task0"])
    rewards = [
        float(fit(data, method, tmp_path, trials=400, repeats=5).trials.joined().scores[:, -40:, 0].mean())
        for method in (controller(lr=0.02), uniform())
    ]
    assert rewards[0] > rewards[1] + 0.05


def test_the_search_ends_when_enough_different_designs_are_tried(tmp_path: Path) -> None:
    data = family(tasks=["task0"])
    module = fit(data, controller(), tmp_path, trials=1000, designs=10, batch=1)
    found = module.results()
    assert module.least_designs() == 10 and found["trials"] < 1000
    for row, best in zip(module.curves, found["best_by_seed"], strict=True):
        assert best == max(row[0].best[: row[0].trials_of(10)])
    with pytest.raises(UserError, match=r"paper.designs=10: counts the designs of one task"):
        AutoMLModule(data=family(), model=SPACE, method=uniform(), **(BUDGET | {"designs": 10}))


# --- rewards


@pytest.mark.parametrize("algorithm", ["reinforce", "ppo", "pqt"])
def test_a_reward_that_is_nan_is_one_line_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], algorithm: Any
) -> None:
    scores = torch.rand(2, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores[:, ::3] = math.nan
    module = fit(Looked(scores), controller(algorithm=algorithm), tmp_path, trials=60)
    assert capsys.readouterr().out.count("a trial failed") == 1
    net: Any = module.designer.controller()
    assert all(bool(value.isfinite().all()) for value in net.parameters())
    found = module.results()
    assert found["failed_trials"] > 0 and math.isfinite(found["best"])


def test_rewards_that_are_all_nan_end_the_search(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="so far failed"):
        fit(Looked(torch.full((1, 24), math.nan, dtype=torch.float64)), controller(), tmp_path, trials=100)


def test_a_constant_reward_works_and_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    module = fit(Looked(torch.full((1, 24), 0.1, dtype=torch.float64)), controller(), tmp_path, trials=100)
    assert capsys.readouterr().out.count("every reward of t0 so far is the same") == 1
    net, fresh = module.designer.controller(), Controller(SPACE.counts, 1, [0, 1], controller().sizes)
    assert isinstance(net, Controller)
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), fresh.parameters(), strict=True))


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_a_search_is_the_same_in_other_units(tmp_path: Path, scale: float) -> None:
    scores = torch.rand(1, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, other = (
        fit(Looked(factor * scores), controller(), tmp_path, trials=80).trials.joined().codes
        for factor in (1.0, scale)
    )
    assert torch.equal(plain, other)


# --- transfer


def pretrained(root: Path, **changes: Any) -> Stage:
    module = fit(family(tasks=["task0", "task1"]), controller(), root, **changes)
    return Stage(words="method=design_search/multitask_naml", key="k", metrics={}, model=module.handed_on())


def test_a_transferred_controller_begins_where_the_pretrained_one_ended(tmp_path: Path) -> None:
    stage = pretrained(tmp_path)
    module = fit(family(tasks=["task2"]), controller(pretrained=stage, lr=0.0), tmp_path, trials=4)
    net: Any = module.designer.controller()
    known: Any = stage.model
    for name, value in net.state_dict().items():
        assert name == "task_embedding" or torch.equal(value, known.state_dict()[name])
    assert net.task_embedding.shape == (2, 1, 3)


def test_transfer_from_a_checkpoint_of_another_space_is_one_line(tmp_path: Path) -> None:
    stage = pretrained(tmp_path)
    known: Any = stage.model
    known.decisions = {**known.decisions, "b": [0, 7]}
    with pytest.raises(UserError, match=r"another space of designs, which has not the same decision b"):
        fit(family(tasks=["task2"]), controller(pretrained=stage), tmp_path)
    words = "method=design_search/random_search"
    nothing = Stage(words=words, key="k", metrics={}, model=torch.nn.Identity())
    with pytest.raises(UserError, match=r"method=design_search/random_search: has no controller"):
        fit(family(tasks=["task2"]), controller(pretrained=nothing), tmp_path)
    with pytest.raises(UserError, match=r"has 2 replicates, this search 1"):
        fit(family(tasks=["task2"]), controller(pretrained=pretrained(tmp_path)), tmp_path, repeats=1)


def test_the_embedding_alone_needs_a_pretrained_controller(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"method.train=embedding needs a pretrained controller"):
        controller(train="embedding")
    stage = pretrained(tmp_path)
    module = fit(family(tasks=["task2"]), controller(pretrained=stage, train="embedding"), tmp_path)
    net: Any = module.designer.controller()
    assert torch.equal(net.head_weights, stage.model.head_weights)  # type: ignore[arg-type]


def test_trials_to_reference_are_those_until_its_final_level(tmp_path: Path) -> None:
    levels = [0.5, 0.7]
    stage = Stage(words="x", key="k", metrics={"top_validation_by_seed": levels}, model=torch.nn.Identity())
    scores = torch.linspace(0, 1, 24, dtype=torch.float64)[None]
    method = record(RandomSearch())
    method.reference = stage
    module = fit(Looked(scores), method, tmp_path, trials=24)
    first = [row[0].reached(level) for row, level in zip(module.curves, levels, strict=True)]
    assert module.results()["trials_to_reference"] == pytest.approx(sum(n for n in first if n) / 2)
    wrong = Stage(words="x", key="k", metrics={"top_validation_by_seed": [0.5]}, model=torch.nn.Identity())
    method = record(RandomSearch())
    method.reference = wrong
    with pytest.raises(UserError, match=r"method.reference=x: is no search of one task with 2 replicates"):
        fit(Looked(scores), method, tmp_path, trials=24).results()


# --- cells


def cells(**changes: Any) -> CellNetworks:
    settings: dict[str, Any] = {
        "shape": (1,), "classes": None, "cells": 1, "filters": 4, "lr": 0.02, "momentum": 0.9,
        "weight_decay": 0.0, "epochs": 1.0, "batch_size": 16,
    }  # fmt: skip
    return CellNetworks(**(settings | changes))


def test_the_space_of_cells_has_as_many_designs_as_naos() -> None:
    inputs = math.prod((k + 2) ** 2 for k in range(5))
    assert len(cells().counts) == 40 and cells().size == (inputs * 5**10) ** 2


def test_any_cells_give_logits_and_only_loose_nodes_are_concatenated() -> None:
    random = np.random.default_rng(0)
    for size in (8, 15):
        for _ in range(4):
            values = cells().values(cells().sample(random).code)
            network = CellNetwork(values, 3, 7, 1, 4).eval()
            assert network(torch.rand(2, 3, size, size)).shape == (2, 7)
    chain: Any = dict.fromkeys(cells().decisions, "identity")
    for name in chain:
        if "input" in name:
            chain[name] = int(name.split("_")[1]) + 1
    network = CellNetwork(chain, 1, 2, 1, 4)
    assert [cell.loose for cell in network.cells] == [[6]] * 5
    assert [cell.channels for cell in network.cells] == [4, 8, 8, 16, 16]


def test_cells_are_trained_on_images_and_need_a_validation_split() -> None:
    from common.data.images.digits import Digits

    settings: dict[str, Any] = {
        "kind": "image_classification", "data_dir": "", "seed": 0, "source": "real", "limit": 60,
        "normalise": "standard", "verify": True, "batch_size": 16, "positive": None, "augment": "none",
    }  # fmt: skip
    design = cells().sample(np.random.default_rng(1))
    objective = ImageObjective(cells(), Digits(validation=0.2, **settings), 0, 1.0)
    first = objective.train(design, 1)
    assert 0 <= first["score"] <= 1 and objective.train(design, 1) == first
    assert objective.count(design)["parameters"] > 0
    with pytest.raises(UserError, match=r"has no validation split"):
        ImageObjective(cells(), Digits(validation=0.0, **settings), 0, 1.0).train(design, 1)
