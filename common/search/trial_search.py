"""A search whose evaluations are trainings: asynchronous, resumable at any time, with an answer in words."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from common.base.crew import Crew
from common.base.files import whole
from common.base.module import UNDER_WAY, Progress
from common.base.objective import Earlier, Space
from common.search.module import SearchModule
from common.search.searcher import Observations
from common.search.trial_loop import TrialLoop
from common.search.trials import Trial, Trials

# of waiting for a trial in one training step, so that a search can be stopped
WAIT_SECONDS = 0.5
TRIALS, EARLIER = "trials.jsonl", "earlier.json"


class TrialSearchModule(SearchModule):
    """Maximises an objective that is `LONG` by trials that a crew makes (`TrialLoop`): there are no rounds.

    `batch` trials are under way at a time, over all replicates. What happens to a trial is in a file of the
    run's folder at once, and the trial's own run has a checkpoint: a search that is killed goes on with all
    that it had. The curves are over the trainings that were spent, in trainings of full length. At the end
    x, y and f hold the trials, f and y NaN where one failed or was stopped before its full length.

    Args:
        settings: see `SearchSettings`; `workers` is of no use.
    """

    loop: TrialLoop

    def configure_callbacks(self) -> list[pl.Callback]:
        """What lets the crew stop where the search is interrupted."""
        return [Dismissal(self)]

    def on_fit_start(self) -> None:
        super().on_fit_start()
        path = Path(self.trainer.default_root_dir) / UNDER_WAY / TRIALS
        self.crew: Crew = self.data.crew(self.batch)
        self.loop = TrialLoop(self.set, self.searcher, Trials(path), self.crew, self._initial())
        self.followed = 0
        # the file may be ahead of the checkpoint, never behind it
        self._look_at_ended(len(self.history.get("step", [])))

    def _earlier(self) -> tuple[Earlier, ...]:
        """As it was when the search began: a search that goes on finds its own trials among earlier runs."""
        path = Path(self.trainer.default_root_dir) / UNDER_WAY / EARLIER
        if not path.exists():
            found = super()._earlier()
            if found:
                _keep(found, path)
            return found
        return tuple(
            Earlier(
                one["name"],
                torch.tensor(one["x"], dtype=torch.float64),
                torch.tensor(one["y"], dtype=torch.float64),
                one["same"],
            )
            for one in json.loads(path.read_text())
        )

    def _initial(self) -> Tensor:
        """Half of the first points are the best of what is known from earlier, where anything is."""
        points = super()._initial()
        best = best_of_earlier(self.set.earlier, self.data.space, (points.shape[1] + 1) // 2)
        points[:, : len(best)] = best
        return points

    @property
    def done(self) -> bool:
        return self.loop.done

    def training_step(self, batch: int, batch_idx: int) -> None:
        """Let happen what happens within `WAIT_SECONDS`."""
        if not self.done:
            self.loop.turn(WAIT_SECONDS)
        self._look_at_ended()
        self.trainer.should_stop = self.done

    def _look_at_ended(self, recorded: int = 0) -> None:
        """Add a point to the curves for each trial that has ended, or paused, since the last look.

        Args:
            recorded: points that are in the history already.
        """
        ended = self.loop.trials.ended
        for count in range(self.followed + 1, len(ended) + 1):
            if count > recorded:
                self._look_at(count)
        self.followed = len(ended)

    def _look_at(self, count: int) -> None:
        best = self._best(count)
        found = best[best.isfinite()]
        values = {"trials": float(count)}
        if len(found):
            values |= {"best": float(found.mean()), self._named: self.data.sign * float(found.mean())}
        self.record(self.loop.trials.spent(count), **values)

    @property
    def _named(self) -> str:
        return f"best_{self.data.metric}"

    def _best(self, count: int | None = None) -> Tensor:
        """Of each replicate the largest f of its trials of full length, [R]; -inf where there is none."""
        best = torch.full((len(self.seeds),), -torch.inf, dtype=torch.float64)
        for trial, share in self.loop.trials.ended[:count]:
            if share >= 1.0 and not trial.failed:
                best[trial.replicate] = max(float(best[trial.replicate]), trial.value)
        return best

    def curves(self) -> dict[str, Tensor]:
        """best: of each replicate the largest f of its trials of full length."""
        best = self._best()
        return {"best": torch.where(best.isfinite(), best, torch.full_like(best, torch.nan))}

    def on_train_end(self) -> None:
        if self.done:
            self.crew.close()
            if self.loop.size is not None and len(self.loop.trials.all) < self.total * len(self.seeds):
                print(
                    f"[{self.data.NAME}] all {self.loop.size} settings that there are were tried", flush=True
                )
            own = [self.loop.trials.of(r) for r in range(len(self.seeds))]
            # of a space that is used up one may have repeated more points than another
            own = [some[: min(map(len, own))] for some in own]
            x = torch.tensor([[trial.point for trial in some] for some in own], dtype=torch.float64)
            self.f = torch.tensor([[_whole(trial) for trial in some] for some in own], dtype=torch.float64)
            self.seen = Observations(x, self.f)
            self.failed = sum(trial.failed for trial in self.loop.trials.all)
            self.repeated = self.loop.repeated
            self.propose_seconds += self.loop.propose_seconds
        super().on_train_end()

    def progress(self) -> Progress:
        trials = self.loop.trials
        ended = sum(trial.whole or trial.failed for trial in trials.all)
        paused = sum(bool(trial.values) for trial in trials.all) - ended
        best = self._best()
        text = f"{len(trials.running())} under way" + (f", {paused} paused" if paused else "")
        if bool(best.isfinite().any()):
            text += f", best {self.data.metric} {self.data.sign * float(best.max()):.5g}"
        return Progress(ended + paused, self.total * len(self.seeds), "trials", text)

    def results(self) -> dict[str, Any]:
        """`SearchModule.results`, and what was spent, in trainings of full length."""
        trials = self.loop.trials
        stopped = sum(not trial.whole and not trial.failed for trial in trials.all)
        return super().results() | {"trainings": trials.spent(), "stopped_early": stopped}

    def conclusion(self) -> dict[str, Any]:
        """The words of the best trial's run, its metric, that of each replicate's best, and all trials.

        A trial is what its point means in the user's own units, the metric where it was measured last (null
        where it failed), and the share of its full length that it was trained.
        """
        trials = [self._told(trial) for trial in self.loop.trials.all]
        found: dict[str, Any] = {"metric": self.data.metric, "goal": self._goal, "trials": trials}
        whole = [trial for trial in self.loop.trials.all if math.isfinite(_whole(trial))]
        if whole:
            best = max(whole, key=_whole)
            words = self.data.command(best.replicate, self._at(best))
            found |= {"words": words, "value": self.data.sign * best.value, "number": best.number}
            found["replicates"] = [self.data.sign * float(value) for value in self._best()]
        return found

    @property
    def _goal(self) -> str:
        return "maximize" if self.data.sign > 0 else "minimize"

    def _at(self, trial: Trial) -> Tensor:
        return torch.tensor(trial.point, dtype=torch.float64, device=self.data.device)

    def _told(self, trial: Trial) -> dict[str, Any]:
        settings = self.data.assigned(self._at(trial))
        value = None if trial.failed else self.data.sign * trial.value
        told = {"number": trial.number, "replicate": trial.replicate, "settings": settings}
        told |= {self.data.metric: value, "share": trial.share}
        return told | ({"said": trial.said} if trial.said else {})

    def search_state(self) -> dict[str, Any]:
        """Nothing but the seconds: trials stand in their file."""
        return {"propose_seconds": self.propose_seconds + self.loop.propose_seconds}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.propose_seconds = state["propose_seconds"]


class Dismissal(pl.Callback):
    """Lets a search's crew stop when the search ends by an error, or is interrupted."""

    def __init__(self, module: TrialSearchModule) -> None:
        self.module = module

    def on_exception(self, trainer: pl.Trainer, *_: Any) -> None:
        if (crew := getattr(self.module, "crew", None)) is not None:
            crew.close()


def best_of_earlier(earlier: Sequence[Earlier], space: Space, count: int) -> Tensor:
    """The best points of each function in turn, none twice: at most `count` of them, [n, d]."""
    ranked = [space.snapped(one.x[one.y.argsort(descending=True, stable=True)]) for one in earlier]
    found: list[Tensor] = []
    for place in range(max((len(points) for points in ranked), default=0)):
        for points in ranked:
            new = place < len(points) and not any(points[place].equal(other) for other in found)
            if new and len(found) < count:
                found.append(points[place])
    return torch.stack(found) if found else space.lower.new_zeros(0, space.dim)


def _keep(found: Sequence[Earlier], path: Path) -> None:
    known = [{"name": e.name, "x": e.x.tolist(), "y": e.y.tolist(), "same": e.same} for e in found]
    with whole(path) as partial:
        partial.write_text(json.dumps(known))


def _whole(trial: Trial) -> float:
    """f of a trial of full length; NaN of any other."""
    return trial.value if trial.whole else math.nan
