"""A search over architectures as a LightningModule: rounds of proposals, then the best in full."""

import hashlib
import json
import math
import shutil
from typing import Any, Generic, TypedDict, Unpack

import numpy as np
from scipy.stats import spearmanr

from common.architectures.evaluate import Job, Launcher, Workers, evaluate_all
from common.architectures.objective import ArchitectureObjective
from common.architectures.record import Evaluated, Record, pareto_front
from common.architectures.searchers import ArchitectureSearcher, Planned
from common.architectures.space import A
from common.base.errors import UserError
from common.base.files import whole
from common.base.limits import require
from common.base.module import UNDER_WAY, ClockModule, Progress

# in the run's folder: everything that was evaluated, and the architecture that was found
RECORD, FOUND = "architectures.json", "found.json"
# proposals in a row that were evaluated before, after which a space counts as used up
TRIES = 1000


class ArchitectureSearchSettings(TypedDict):
    """What a search takes beside its objective and searcher.

    Attributes:
        seed: of proposals and trainings.
        evaluations: how many architectures are tried, each once.
        batch: proposals of a round, which are evaluated at once.
        steps: of a training in full.
        proxy_share: the share of `steps` after which the trainings of the search are stopped early.
        rerank: how many of the best are then trained in full; the best of them is what the run finds.
        workers: who evaluates.
    """

    seed: int
    evaluations: int
    batch: int
    steps: int
    proxy_share: float
    rerank: int
    workers: Workers


class SearchLength(TypedDict):
    """The keys of `paper` that all searches for architectures have: how long they are, and who evaluates.

    Attributes:
        evaluations, batch, steps, proxy_share, rerank: see `ArchitectureSearchSettings`.
        processes, launcher, threads: see `Workers`.
    """

    evaluations: int
    batch: int
    steps: int
    proxy_share: float
    rerank: int
    processes: int
    launcher: Launcher
    threads: int


def search_settings(seed: int, paper: SearchLength) -> ArchitectureSearchSettings:
    """What a search takes, of the keys of `paper`."""
    return ArchitectureSearchSettings(
        seed=seed,
        evaluations=paper["evaluations"],
        batch=paper["batch"],
        steps=paper["steps"],
        proxy_share=paper["proxy_share"],
        rerank=paper["rerank"],
        workers=Workers(paper["processes"], paper["launcher"], paper["threads"]),
    )


class ArchitectureSearchModule(ClockModule, Generic[A]):
    """Searches a space by short trainings, and trains the best of what it has seen in full.

    A round proposes `batch` architectures, none of which was evaluated before, and evaluates them, in several
    processes if wanted. What is random about proposal t follows from (seed, t), what is random about a
    training from (seed, architecture): so neither processes nor a kill change anything. The record is in the
    checkpoint; each evaluation is also a file of the run's folder as soon as it is done, so that a killed
    round loses only what was under way. When no new architecture turns up the space is used up, which is
    said, and the search ends there.

    At the end `architectures.json` holds the record, both of the search and of the trainings in full, and
    `found.json` the best architecture.

    Args:
        objective: of the search.
        full: of the trainings in full; may be another (another backbone, whole networks).
        searcher: what proposes.
        references: architectures by name that are trained in full too, to compare with.
        settings: see `ArchitectureSearchSettings`.

    Raises:
        UserError: a value out of range.
    """

    def __init__(
        self,
        *,
        objective: ArchitectureObjective[A],
        full: ArchitectureObjective[A],
        searcher: ArchitectureSearcher,
        references: dict[str, A],
        **settings: Unpack[ArchitectureSearchSettings],
    ) -> None:
        super().__init__()
        self.objective, self.full, self.searcher, self.references = objective, full, searcher, references
        self.total, self.batch, self.seed = settings["evaluations"], settings["batch"], settings["seed"]
        self.steps, self.rerank, self.workers = settings["steps"], settings["rerank"], settings["workers"]
        require(
            "at least 1",
            "paper",
            evaluations=self.total,
            batch=self.batch,
            steps=self.steps,
            rerank=self.rerank,
            processes=self.workers.processes,
        )
        share = settings["proxy_share"]
        if not 0 < share <= 1:
            raise UserError(f"paper.proxy_share={share}; valid: above 0 and at most 1")
        self.proxy_steps = max(1, round(share * self.steps))
        # trained in full: the best by the proxy, best first, and the references in their order
        self.evaluated: Record[A] = Record()
        self.ranked: Record[A] = Record()
        self.compared: Record[A] = Record()
        # scores that the searcher expected, by key
        self.expected: dict[str, float] = {}
        self.used_up = False

    @property
    def searched(self) -> bool:
        """Whether the search is over, and what is left are trainings in full."""
        return len(self.evaluated) >= self.total or self.used_up

    @property
    def done(self) -> bool:
        """Whether everything is evaluated."""
        return self.searched and len(self.ranked) + len(self.compared) >= self._in_full

    @property
    def _in_full(self) -> int:
        return min(self.rerank, len(self.evaluated.best(self.rerank))) + len(self.references)

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.done

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One round of the search, or of the trainings in full."""
        self.optimizers().step()  # type: ignore[union-attr]
        if not self.searched:
            self._search()
        elif not self.done:
            self._train_in_full()
        self.trainer.should_stop = self.done

    def _search(self) -> None:
        proposals = self._proposals(min(self.batch, self.total - len(self.evaluated)))
        for item in evaluate_all(self._jobs(self.objective, proposals, self.proxy_steps), self.workers):
            self.evaluated.add(item)
            self._tell_failure(item)
            self._look()

    def _proposals(self, count: int) -> list[A]:
        found = self._planned(count)
        self.evaluated.pending = found
        pending = self.evaluated.keys | {one.key for one in found}
        while len(found) < count and not self.used_up:
            # a stream of its own for each proposal: nothing of it has to be kept
            random = np.random.default_rng((self.seed % 2**64, len(self.evaluated) + len(found)))
            for _ in range(TRIES):
                proposal = self.searcher.propose(self.objective.space, self.evaluated, random)
                if proposal.key not in pending:
                    found.append(proposal)
                    pending.add(proposal.key)
                    break
            else:
                self.used_up = True
                print(
                    f"[{self.searcher.NAME}] {TRIES} proposals in a row were evaluated before: "
                    f"the search ends after {len(self.evaluated) + len(found)} of {self.total} evaluations"
                )
        self.evaluated.pending = []
        return found

    def _planned(self, count: int) -> list[A]:
        """What the searcher plans for the round as a whole; kept as a file until the run is done."""
        space, path = self.objective.space, self.folder / UNDER_WAY / f"plan_{len(self.evaluated)}.json"
        if path.exists():
            kept = [
                Planned(space.from_json(data), expected) for data, expected in json.loads(path.read_text())
            ]
        else:
            # no proposal's stream has three numbers
            random = np.random.default_rng((self.seed % 2**64, len(self.evaluated), 1))
            kept = self.searcher.plan(space, self.evaluated, count, random)
            if kept:
                with whole(path) as partial:
                    plan = [[one.architecture.to_json(), one.expected] for one in kept]
                    partial.write_text(json.dumps(plan))
        self.expected |= {one.architecture.key: one.expected for one in kept if one.expected is not None}
        return [one.architecture for one in kept]

    def _train_in_full(self) -> None:
        best = [item.architecture for item in self.evaluated.best(self.rerank)]
        rest = best[len(self.ranked) :]
        if rest:
            for item in evaluate_all(self._jobs(self.full, rest[: self.batch], self.steps), self.workers):
                self.ranked.add(item)
                self._tell_failure(item)
                self.record(len(self.evaluated) + len(self.ranked), full_score=item.score)
            return
        others = list(self.references.values())[len(self.compared) :][: self.batch]
        for item in evaluate_all(self._jobs(self.full, others, self.steps), self.workers):
            self.compared.add(item)

    def _jobs(self, objective: ArchitectureObjective[A], chosen: list[A], budget: int) -> list[Job[A]]:
        folder = self.folder / UNDER_WAY / f"{'full' if objective is self.full else 'proxy'}_{budget}"
        return [Job(objective, one, budget, folder / f"{_name(one.key)}.json") for one in chosen]

    def _tell_failure(self, item: Evaluated[A]) -> None:
        failed = sum(not one.valid for one in self.evaluated)
        if item.failure is not None and failed <= 1:
            print(f"[{self.searcher.NAME}] an evaluation failed ({item.failure}): it stays in the record")
        if failed == len(self.evaluated) and failed >= max(10, self.batch):
            raise UserError(f"all {failed} evaluations so far failed, the last with {item.failure}")

    def _look(self) -> None:
        item, best = self.evaluated.items[-1], self.evaluated.best(1)
        values = {"score": item.score, **item.costs}
        if best:
            values["best"] = best[0].score
        if item.architecture.key in self.expected:
            values["expected"] = self.expected[item.architecture.key]
        self.record(
            len(self.evaluated), **{name: value for name, value in values.items() if math.isfinite(value)}
        )

    @property
    def found(self) -> Evaluated[A]:
        """The best of what was trained in full.

        Raises:
            UserError: no evaluation gave a number.
        """
        best = self.ranked.best(1)
        if not best:
            raise UserError(
                f"none of {len(self.evaluated)} evaluations gave a score: there is nothing to find"
            )
        return best[0]

    def on_train_end(self) -> None:
        if not self.done:
            return
        parts = {"search": self.evaluated, "full": self.ranked, "references": self.compared}
        text = {name: part.to_json() for name, part in parts.items()}
        (self.folder / RECORD).write_text(json.dumps(text, indent=1))
        (self.folder / FOUND).write_text(json.dumps(self.found.architecture.to_json(), indent=1) + "\n")
        shutil.rmtree(self.folder / UNDER_WAY, ignore_errors=True)

    def progress(self) -> Progress:
        done = len(self.evaluated) + len(self.ranked) + len(self.compared)
        best = self.evaluated.best(1)
        text = f"best {best[0].score:.5g}" if best else ""
        total = (len(self.evaluated) if self.used_up else self.total) + self.rerank + len(self.references)
        return Progress(min(done, total), total, "trainings", text)

    def results(self) -> dict[str, Any]:
        """What was found, and how well the search foresaw it.

        evaluations, failed_evaluations, used_up (1 where the space was). best_proxy: the largest score of
        the search. found_...: of the best in full its measures and costs, and found, its code.
        winner_proxy_rank: its place by the search, from 1. spearman: the rank correlation of both scores
        over those trained in full; None of fewer than three, or where one of them is constant. front: how
        many are on the Pareto front of score against parameters. <reference>_...: the measures and costs of
        each reference, and gain_over_<reference>, found_test minus its.
        """
        found, best = self.found, self.evaluated.best(self.rerank)
        place = [item.architecture.key for item in best].index(found.architecture.key) + 1
        values: dict[str, Any] = {
            "evaluations": len(self.evaluated),
            "failed_evaluations": sum(not item.valid for item in self.evaluated),
            "used_up": int(self.used_up),
            "best_proxy": best[0].score,
            "found": list(self.objective.space.encode(found.architecture)),
            "winner_proxy_rank": place,
            "spearman": self._spearman(best),
            "front": len(self.front()),
        }
        values |= {f"found_{name}": value for name, value in {**found.measures, **found.costs}.items()}
        for name, item in zip(self.references, self.compared, strict=True):
            values |= {f"{name}_{key}": value for key, value in {**item.measures, **item.costs}.items()}
            if "test" in item.measures and "test" in found.measures:
                values[f"gain_over_{name}"] = found.measures["test"] - item.measures["test"]
        return values

    def front(self) -> list[Evaluated[A]]:
        """Of the search, those that none with fewer parameters is better than."""
        valid = [item for item in self.evaluated if item.valid]
        return [valid[k] for k in pareto_front([(item.costs["parameters"], item.score) for item in valid])]

    def _spearman(self, best: list[Evaluated[A]]) -> float | None:
        both = [(p.score, f.score) for p, f in zip(best, self.ranked, strict=True) if f.valid]
        short, full = [a for a, _ in both], [b for _, b in both]
        if len(both) < 3 or len(set(short)) == 1 or len(set(full)) == 1:
            return None
        return float(spearmanr(short, full).statistic)

    def search_state(self) -> dict[str, Any]:
        return {
            "record": self.evaluated.to_json(),
            "ranked": self.ranked.to_json(),
            "compared": self.compared.to_json(),
            "expected": self.expected,
            "used_up": self.used_up,
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        space = self.objective.space
        self.evaluated = Record.from_json(state["record"], space)
        self.ranked = Record.from_json(state["ranked"], space)
        self.compared = Record.from_json(state["compared"], space)
        self.expected = state.get("expected", {})
        self.used_up = state["used_up"]


def _name(key: str) -> str:
    """A file name for a key."""
    return hashlib.sha256(key.encode()).hexdigest()[:24]
