"""What proposes designs, for R replicates at once: at random, by a controller, or by any searcher of
a record.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from common.architectures.record import Evaluated, Record
from common.architectures.searchers import ArchitectureSearcher
from common.base.errors import UserError
from common.base.stages import Stage, require_stage
from common.numerics.sampling import ReplicateSampler
from papers.transfer_automl.advantage import AdvantageNorm
from papers.transfer_automl.controller import Controller, ControllerSettings
from papers.transfer_automl.ground import Ground, designs_of
from papers.transfer_automl.learning import Algorithm, Learner, LearningSettings, Trained
from papers.transfer_automl.space import uniform_codes

TaskChoice = Literal["round_robin", "uniform"]
# proposals in a row that were evaluated before, after which one of them is taken
TRIES = 1000


class Proposals(NamedTuple):
    """Designs to be tried.

    Attributes:
        tasks: int64 [R, B].
        codes: int64 [R, B, L].
        log_p: of a controller when it sampled them, [R, B]; else zeros.
    """

    tasks: Tensor
    codes: Tensor
    log_p: Tensor


@dataclass(frozen=True)
class Search:
    """What a designer is set.

    Attributes:
        ground: the tasks and the space.
        seeds: of the replicates.
        random: streams of uniform numbers, one a replicate; saved by the loop.
    """

    ground: Ground
    seeds: list[int]
    random: ReplicateSampler

    @property
    def tasks(self) -> int:
        """T."""
        return len(self.ground.names)


class Designer(ABC):
    """Proposes designs and learns what they scored.

    Args:
        task_choice: whose turn a trial is: `round_robin` (trial n is one of task n mod T) or `uniform`.
        reference: the run whose final quality `trials_to_reference` asks for; None: the run's own.
    """

    NAME: ClassVar[str]
    STAGES: ClassVar[tuple[str, ...]] = ("reference",)

    def __init__(self, *, task_choice: TaskChoice, reference: Stage | str | None) -> None:
        self.task_choice, self.reference = task_choice, reference

    def start(self, search: Search) -> None:
        """Take the task; called once, before the first proposal.

        Raises:
            UserError: a space in which it cannot choose, a controller that does not fit.
        """
        self.search = search
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """What is to be done once, `search` being set."""

    @abstractmethod
    def propose(self, first: int, count: int) -> Proposals:
        """The trials first, ..., first + count - 1 of each replicate."""

    def tell(self, proposals: Proposals, rewards: Tensor) -> list[int]:
        """Learn from rewards [R, B], NaN where a trial failed.

        Returns:
            tasks of which it is now known that all their rewards are alike, each once.
        """
        return []

    def turn(self, first: int, count: int) -> Tensor:
        """The tasks of trials, int64 [R, count]."""
        tasks, replicates = self.search.tasks, len(self.search.seeds)
        if self.task_choice == "round_robin":
            return (torch.arange(first, first + count) % tasks).expand(replicates, -1)
        return uniform_codes([tasks], self.search.random.uniform(count)[..., None])[..., 0]

    def controller(self) -> nn.Module | None:
        """What a later search may start from; None where there is no such thing."""
        return None

    def state_dict(self) -> dict[str, Any]:
        """What must survive a kill."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027
        """Put back what `state_dict` gave."""


class RandomDesigns(Designer):
    """Every choice of every decision uniform, whatever came before (the paper's RS)."""

    NAME: ClassVar = "random_search"

    def prepare(self) -> None:
        designs_of(self.search.ground.space)

    def propose(self, first: int, count: int) -> Proposals:
        tasks, random = self.turn(first, count), self.search.random
        counts = designs_of(self.search.ground.space).counts
        drawn = random.uniform(count * len(counts)).reshape(len(tasks), count, len(counts))
        return Proposals(tasks, uniform_codes(counts, drawn), torch.zeros(tasks.shape))


class ControllerSearch(Designer):
    """A controller trained on one task (NAML), on several at once, or transferred to new ones (T-NAML).

    Args:
        task_choice, reference: see `Designer`.
        pretrained: the run whose controller is taken over, all weights but the embeddings of tasks; None:
            from first weights.
        hidden, layers, action_size, task_size, skip, init, task_init: see `ControllerSettings`.
        algorithm, norm, lr, entropy, clip, decay, wait, max_advantage, ppo_clip, ppo_passes, ppo_bank,
            queue, train: see `LearningSettings`.

    Raises:
        UserError: a value out of range; an embedding alone to be trained without a pretrained controller.
    """

    NAME: ClassVar = "controller"
    STAGES: ClassVar[tuple[str, ...]] = ("pretrained", "reference")

    def __init__(
        self,
        *,
        task_choice: TaskChoice,
        reference: Stage | str | None,
        pretrained: Stage | str | None,
        hidden: int,
        layers: int,
        action_size: int,
        task_size: int,
        skip: bool,
        init: float,
        task_init: float,
        algorithm: Algorithm,
        norm: AdvantageNorm,
        lr: float,
        entropy: float,
        clip: float | None,
        decay: float,
        wait: int,
        max_advantage: float,
        ppo_clip: float,
        ppo_passes: int,
        ppo_bank: int,
        queue: int,
        train: Trained,
    ) -> None:
        super().__init__(task_choice=task_choice, reference=reference)
        if train == "embedding" and pretrained is None:
            raise UserError(
                "method.train=embedding needs a pretrained controller (valid: method.pretrained=...)"
            )
        self.pretrained = pretrained
        self.sizes = ControllerSettings(hidden, layers, action_size, task_size, skip, init, task_init)
        self.learning = LearningSettings(
            algorithm,
            norm,
            lr,
            entropy,
            clip,
            decay,
            wait,
            max_advantage,
            ppo_clip,
            ppo_passes,
            ppo_bank,
            queue,
            train,
        )
        # what a dry run of the settings finds is said before anything is evaluated
        Learner(Controller([2], 1, [0], self.sizes), 1, self.learning)

    def prepare(self) -> None:
        designs = designs_of(self.search.ground.space)
        self.net = Controller(designs.counts, self.search.tasks, self.search.seeds, self.sizes)
        self.learner = Learner(self.net, self.search.tasks, self.learning)
        self.net.names, self.net.decisions = list(self.search.ground.names), designs.decisions
        if self.pretrained is not None:
            self._take_over(require_stage(self.pretrained, "method.pretrained"))

    def _take_over(self, stage: Stage) -> None:
        known = stage.model
        if not isinstance(known, Controller):
            raise UserError(
                f"method.pretrained={stage.words}: has no controller (valid: a run with "
                f"method=design_search/naml or "
                "design_search/multitask_naml)"
            )
        if known.decisions != self.net.decisions:
            other = [
                name for name in self.net.decisions if known.decisions.get(name) != self.net.decisions[name]
            ]
            what = f"decision {other[0]}" if other else f"decisions {list(known.decisions)}"
            raise UserError(
                f"method.pretrained={stage.words}: it was trained on tasks of another space of "
                f"designs, which "
                f"has not the same {what} (valid: a run with the same model)"
            )
        self.net.transfer_from(known)

    def propose(self, first: int, count: int) -> Proposals:
        tasks, length = self.turn(first, count), len(self.net.counts)
        drawn = self.search.random.uniform(count * length).reshape(len(tasks), count, length)
        return Proposals(tasks, *self.net.sample(tasks, drawn))

    def tell(self, proposals: Proposals, rewards: Tensor) -> list[int]:
        return self.learner.update(proposals.tasks, proposals.codes, proposals.log_p, rewards)

    def controller(self) -> nn.Module:
        return self.net

    def state_dict(self) -> dict[str, Any]:
        return {"net": self.net.state_dict(), "learner": self.learner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.net.load_state_dict(state["net"])
        self.learner.load_state_dict(state["learner"])


class RecordSearch(Designer):
    """Any searcher that reads a record (`common.architectures.searchers`), each replicate and task its own.

    What a searcher plans for a round as a whole comes first, the rest is proposed one by one.

    No architecture is proposed twice to one task, as long as `TRIES` proposals in a row find another one.

    Args:
        task_choice, reference: see `Designer`.
        searcher: what proposes.
    """

    NAME: ClassVar = "record"

    def __init__(
        self, *, task_choice: TaskChoice, reference: Stage | str | None, searcher: ArchitectureSearcher
    ) -> None:
        super().__init__(task_choice=task_choice, reference=reference)
        self.searcher = searcher

    def prepare(self) -> None:
        self.records: list[list[Record[Any]]] = [
            [Record() for _ in range(self.search.tasks)] for _ in self.search.seeds
        ]

    def propose(self, first: int, count: int) -> Proposals:
        tasks = self.turn(first, count)
        rows = [
            self._proposals(r, tasks[r].tolist(), first, seed) for r, seed in enumerate(self.search.seeds)
        ]
        return Proposals(tasks, torch.tensor(rows), torch.zeros(tasks.shape))

    def _proposals(self, r: int, tasks: Sequence[int], first: int, seed: int) -> list[tuple[int, ...]]:
        ground, found = self.search.ground, []
        planned = {task: iter(self._planned(r, task, tasks.count(task), first, seed)) for task in set(tasks)}
        for n, task in enumerate(tasks):
            record = self.records[r][task]
            one = next(planned[task], None)
            if one is None:
                one = self._another(record, np.random.default_rng((seed % 2**64, first + n)))
            record.pending.append(one)
            found.append(ground.code(one))
        for task in set(tasks):
            self.records[r][task].pending = []
        return found

    def _planned(self, r: int, task: int, count: int, first: int, seed: int) -> list[Any]:
        """What the searcher plans for a round as a whole; no single proposal's stream has three numbers."""
        random = np.random.default_rng((seed % 2**64, first, 1 + task))
        plan = self.searcher.plan(self.search.ground.space, self.records[r][task], count, random)
        return [one.architecture for one in plan]

    def _another(self, record: Record[Any], random: np.random.Generator) -> Any:
        known = record.keys | {one.key for one in record.pending}
        for _ in range(TRIES):
            one = self.searcher.propose(self.search.ground.space, record, random)
            if one.key not in known:
                break
        return one

    def tell(self, proposals: Proposals, rewards: Tensor) -> list[int]:
        ground = self.search.ground
        for r, row in enumerate(self.records):
            for task, code, reward in zip(
                proposals.tasks[r].tolist(), proposals.codes[r].tolist(), rewards[r].tolist(), strict=True
            ):
                row[task].add(Evaluated(ground.architecture(code), {"score": reward}, {}, 0.0))
        return []

    def state_dict(self) -> dict[str, Any]:
        return {"records": [[one.to_json() for one in row] for row in self.records]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        space = self.search.ground.space
        self.records = [[Record.from_json(one, space) for one in row] for row in state["records"]]
