"""Transfer learning with neural AutoML as a LightningModule: a round proposes, evaluates and learns."""

import json
import math
import shutil
import time
from typing import Any, TypedDict, Unpack

import numpy as np
import torch

from common.architectures.evaluate import Launcher, Workers
from common.base.errors import UserError
from common.base.limits import require
from common.base.module import UNDER_WAY, ClockModule, Progress
from common.base.stages import Stage
from common.numerics.bands import band
from common.numerics.sampling import ReplicateSampler
from papers.transfer_automl.controller import Controller
from papers.transfer_automl.designers import Designer, Search
from papers.transfer_automl.ground import DesignTasks
from papers.transfer_automl.space import DesignSpace
from papers.transfer_automl.trials import TaskCurves, Trials

# seconds of rounds in one training step: Lightning's own 1-2 ms vanish beside it
ROUND_SECONDS = 0.15
# points of the history, and trials of a task after which the curves are read
POINTS, READ_AT = 100, (25, 50, 100, 200)
# the noise of evaluations has streams apart from those of proposals
NOISE_STREAM = 1_000_003
FOUND = "found.json"


class AutoMLSettings(TypedDict):
    """What a search takes beside its tasks, space and designer.

    Attributes:
        seed: of replicate 0; the others follow on.
        trials: of each replicate, over all tasks.
        designs: of one task: the search ends once every replicate has tried so many different ones, and
            what it
            finds is read there: to propose one again costs nothing. None: all trials are made and counted.
        batch: trials between two updates.
        repeats: R.
        top: how many of the best trials the means are over.
        share: of the examples that a design says it trains on.
        processes, launcher, threads: see `Workers`.
    """

    seed: int
    trials: int
    designs: int | None
    batch: int
    repeats: int
    top: int
    share: float
    processes: int
    launcher: Launcher
    threads: int


class AutoMLModule(ClockModule):
    """Wong, Houlsby, Lu & Gesmundo, "Transfer Learning with Neural AutoML", NeurIPS 2018.

    R searches at once. All trials, all random streams and the designer's state are in the checkpoint, and
    each training is a file of the run's folder as soon as it is done. A trial that fails stays in the
    record, and nothing is learned from it. At the end `found.json` holds the best design of each task.

    Args:
        data: the tasks.
        model: the space of designs.
        method: what proposes.
        settings: see `AutoMLSettings`.

    Raises:
        UserError: a value out of range.
    """

    data: DesignTasks

    def __init__(
        self, *, data: DesignTasks, model: DesignSpace, method: Designer, **settings: Unpack[AutoMLSettings]
    ) -> None:
        super().__init__()
        counts = ("trials", "designs", "batch", "repeats", "top", "processes", "threads")
        require("at least 1", "paper", **{name: settings[name] for name in counts})  # type: ignore[literal-required]
        require("positive", "paper", share=settings["share"])
        self.data, self.designer = data, method
        self.total, self.designs, self.batch = settings["trials"], settings["designs"], settings["batch"]
        self.top = settings["top"]
        if self.designs is not None and len(data.names) > 1:
            raise UserError(
                f"paper.designs={self.designs}: counts the designs of one task (valid: null, or one of "
                f"dataset.tasks={data.names})"
            )
        self.seeds = [settings["seed"] + r for r in range(settings["repeats"])]
        self.workers = Workers(settings["processes"], settings["launcher"], settings["threads"])
        self.ground = data.ground(model, settings["seed"], settings["share"])
        self.trials = Trials()
        self.curves = [[TaskCurves(self.top) for _ in data.names] for _ in self.seeds]
        self.done_trials = self.failed = 0
        self.keys: dict[tuple[int, ...], str] = {}
        self.random = ReplicateSampler(
            self.seeds[0], len(self.seeds), None, torch.device("cpu"), torch.float64
        )
        self.noise = ReplicateSampler(
            self.seeds[0] + NOISE_STREAM, len(self.seeds), None, torch.device("cpu"), torch.float64
        )
        self.started = False

    @property
    def done(self) -> bool:
        """Whether all trials are made, or enough different designs tried."""
        enough = self.designs is not None and self.least_designs() >= self.designs
        return self.done_trials >= self.total or enough

    def least_designs(self) -> int:
        """Of the replicates, the smallest number of different designs."""
        return min(len(row[0].seen) for row in self.curves)

    def on_fit_start(self) -> None:
        self._begin()
        self.ground.prepare(self.folder / UNDER_WAY, self.workers)

    def _begin(self) -> None:
        if not self.started:
            self.designer.start(Search(self.ground, self.seeds, self.random))
            self.started = True

    def on_train_start(self) -> None:
        self.trainer.should_stop = self.done

    def training_step(self, batch: int, batch_idx: int) -> None:
        """As many rounds as fit in `ROUND_SECONDS`, at least one."""
        self.optimizers().step()  # type: ignore[union-attr]
        end = time.perf_counter() + ROUND_SECONDS
        while not self.done:
            self._round()
            if time.perf_counter() > end:
                break
        self.trainer.should_stop = self.done

    def _round(self) -> None:
        count = min(self.batch, self.total - self.done_trials)
        proposals = self.designer.propose(self.done_trials, count)
        noise = self.noise.normal((count,))
        tasks, codes = proposals.tasks, proposals.codes
        scores = self.ground.scores(tasks.flatten(), codes.flatten(0, 1), noise.flatten())
        scores = scores.reshape(*tasks.shape, 2)
        self._keep(tasks, codes, scores)
        self._tell_failures(scores[..., 0])
        for task in self.designer.tell(proposals, scores[..., 0]):
            print(
                f"[{self.data.NAME}] every reward of {self.data.names[task]} so far is the same: there is "
                "nothing to learn from it"
            )
        before, self.done_trials = self.done_trials, self.done_trials + count
        span = max(1, self.total // POINTS)
        if before // span < self.done_trials // span or self.done:
            self._look(scores[..., 0])

    def _keep(self, tasks: torch.Tensor, codes: torch.Tensor, scores: torch.Tensor) -> None:
        self.trials.add(tasks, codes, scores)
        plain = zip(self.curves, tasks.tolist(), codes.tolist(), scores.tolist(), strict=True)
        for row, ones, each, found in plain:
            for task, code, (validation, test) in zip(ones, each, found, strict=True):
                row[task].add(self._key(tuple(code)), validation, test)

    def _key(self, code: tuple[int, ...]) -> str:
        """What is equal for codes of the same architecture; kept, as trials come back to the same codes."""
        if code not in self.keys:
            self.keys[code] = self.ground.key(code)
        return self.keys[code]

    def _tell_failures(self, rewards: torch.Tensor) -> None:
        failed = int((~rewards.isfinite()).sum())
        if failed and not self.failed:
            what = self.ground.failure or "a reward that is not finite"
            print(
                f"[{self.data.NAME}] a trial failed ({what}): it stays in the record, nothing is "
                f"learned from it"
            )
        self.failed += failed
        made = (self.done_trials + rewards.shape[1]) * rewards.shape[0]
        if self.failed == made and made >= max(10, rewards.numel()):
            what = self.ground.failure or "rewards that are not finite"
            raise UserError(f"dataset={self.data.NAME}: all {made} trials so far failed ({what})")

    def _look(self, rewards: torch.Tensor) -> None:
        """Add a point to the curves; means of the replicates, with 95% intervals where there are several."""
        unit = self.ground.unit
        top, best = (
            np.array([[series(one)[-1] if series(one) else math.nan for one in row] for row in self.curves])
            for series in (lambda one: one.top_mean, lambda one: one.best)
        )
        values = band("top_validation", unit * top.mean(1)) | band("best", unit * best.mean(1))
        values["reward"] = unit * float(rewards.nanmean())
        for task, name in enumerate(self.data.names if len(self.data.names) > 1 else []):
            values |= band(f"top_validation_{name}", unit * top[:, task])
        points = {name: value for name, value in values.items() if math.isfinite(value)}
        self.record(self.done_trials, **points)

    def on_train_end(self) -> None:
        if not self.done:
            return
        (self.folder / FOUND).write_text(json.dumps(self.found(), indent=1) + "\n")
        shutil.rmtree(self.folder / UNDER_WAY, ignore_errors=True)

    def found(self) -> dict[str, Any]:
        """The best design of each task over all replicates, with its scores."""
        trials, found = self.trials.joined(), {}
        for task, name in enumerate(self.data.names):
            known = trials.scores[..., 0].where(trials.tasks == task, torch.nan).nan_to_num(nan=-math.inf)
            r, n = divmod(int(known.argmax()), known.shape[1])
            if known[r, n] == -math.inf:
                continue
            validation, test = trials.scores[r, n].tolist()
            found[name] = {
                "design": self.ground.describe(trials.codes[r, n].tolist()),
                "validation": self.ground.unit * validation,
                "test": self.ground.unit * test if math.isfinite(test) else None,
            }
        return found

    def conclusion(self) -> dict[str, Any]:
        return {"found": self.found()}

    def progress(self) -> Progress:
        best = self.history.get("best", [None])[-1]
        text = "" if best is None else f"best {best:.5g}"
        return Progress(self.done_trials, self.total, "trials", text)

    def results(self) -> dict[str, Any]:
        """What was found, means of the replicates, with the standard error `_sem` where there are several.

        top_validation, top_test: of the `top` best trials by validation, the mean scores; over tasks, and
        `_<task>` of each. best, test_of_best: of the best design; with `paper.designs` of the best of so
        many. top_validation_at_<n>, best_at_<n>: after n trials of each task. ..._by_seed: of each
        replicate. optimum: the best that there is, where it is known, and regret, optimum - best.
        trials_to_reference: trials of a task until top_validation is at that of the reference in the end,
        the median over tasks and replicates (None: never), and reached_reference, in how many of them it
        was. embedding_...: see `similarity`.
        """
        found: dict[str, Any] = {
            "trials": self.done_trials,
            "replicates": len(self.seeds),
            "failed_trials": self.failed,
            "designs": float(np.mean([len(one.seen) for row in self.curves for one in row])),
            "space_size": self.ground.space.size,
        }
        found |= self.ground.facts()
        table = {
            "top_validation": [[one.at(one.top_mean, self._end(one)) for one in row] for row in self.curves],
            "top_test": [[one.top_test for one in row] for row in self.curves],
            "best": [[one.at(one.best, self._end(one)) for one in row] for row in self.curves],
            "test_of_best": [[one.at(one.best_test, self._end(one)) for one in row] for row in self.curves],
        }
        for at in READ_AT:
            if all(len(one.best) >= at for row in self.curves for one in row):
                table[f"top_validation_at_{at}"] = [
                    [one.top_mean[at - 1] for one in row] for row in self.curves
                ]
                table[f"best_at_{at}"] = [[one.best[at - 1] for one in row] for row in self.curves]
        for name, values in table.items():
            found |= self._summary(name, self.ground.unit * np.array(values))
        optimum = self.ground.unit * np.array(self.ground.best())
        if np.isfinite(optimum).all():
            regret = optimum - self.ground.unit * np.array(table["best"])
            found |= {"optimum": float(optimum.mean())} | self._summary("regret", regret)
        return found | self._reached() | self.similarity()

    def _end(self, curve: TaskCurves) -> int:
        """The trials of a replicate on a task that count."""
        return len(curve.best) if self.designs is None else curve.trials_of(self.designs)

    def _summary(self, name: str, values: np.ndarray) -> dict[str, Any]:
        """Of values [R, T]: the mean with its standard error, those of each task and of each replicate."""
        by_seed = values.mean(1)
        found: dict[str, Any] = {name: _number(by_seed.mean())}
        if len(by_seed) > 1:
            found[f"{name}_sem"] = _number(by_seed.std(ddof=1) / len(by_seed) ** 0.5)
        if values.shape[1] > 1 and "_at_" not in name:
            found |= {
                f"{name}_{task}": _number(v) for task, v in zip(self.data.names, values.mean(0), strict=True)
            }
        if "_at_" not in name:
            found[f"{name}_by_seed"] = [_number(one) for one in by_seed]
        return found

    def _reached(self) -> dict[str, Any]:
        stage = self.designer.reference
        if isinstance(stage, Stage):
            levels = stage.metrics.get("top_validation_by_seed")
            if levels is None or len(levels) != len(self.seeds) or None in levels or len(self.data.names) > 1:
                raise UserError(
                    f"method.reference={stage.words}: is no search of one task with {len(self.seeds)} "
                    f"replicates "
                    f"that tried {self.top} designs (valid: such a run)"
                )
            wanted = [[level / self.ground.unit] for level in levels]
        else:
            wanted = [[one.at(one.top_mean, len(one.top_mean)) for one in row] for row in self.curves]
        # a rounding below the level is at the level
        at = [
            one.reached(level - 1e-12 * max(1.0, abs(level)))
            for row, levels_ in zip(self.curves, wanted, strict=True)
            for one, level in zip(row, levels_, strict=True)
        ]
        median = float(np.median([math.inf if n is None else n for n in at]))
        return {
            "trials_to_reference": _number(median),
            "reached_reference": sum(n is not None for n in at) / len(at),
        }

    def similarity(self) -> dict[str, Any]:
        """Of a controller of several tasks, how alike the embeddings of these are, means of the replicates.

        embedding_cosines: the cosines [T, T], row by row. embedding_correlation_<task>: the mean Pearson
        correlation with the other tasks' embeddings. Where tasks come in groups, embedding_gap: the mean
        cosine within groups minus that between them, and embedding_gap_by_seed.
        """
        net = self.designer.controller()
        if not isinstance(net, Controller) or len(self.data.names) < 2 or net.settings.task_size < 2:
            return {}
        embedding = net.task_embedding.detach().double()
        cosines = torch.nn.functional.cosine_similarity(embedding[:, :, None], embedding[:, None], dim=-1)
        centred = embedding - embedding.mean(-1, keepdim=True)
        correlations = torch.nn.functional.cosine_similarity(centred[:, :, None], centred[:, None], dim=-1)
        others = (correlations.mean(0).sum(1) - 1) / (len(self.data.names) - 1)
        found: dict[str, Any] = {"embedding_cosines": cosines.mean(0).flatten().tolist()}
        found |= {
            f"embedding_correlation_{t}": float(c) for t, c in zip(self.data.names, others, strict=True)
        }
        groups = self.data.groups()
        if groups is not None and 1 < len(set(groups)) < len(groups):
            group = torch.tensor(groups)
            same = (group[:, None] == group) & ~torch.eye(len(groups), dtype=torch.bool)
            gap = cosines[:, same].mean(1) - cosines[:, group[:, None] != group].mean(1)
            found |= {"embedding_gap": float(gap.mean()), "embedding_gap_by_seed": gap.tolist()}
        return found

    def handed_on(self) -> torch.nn.Module:
        """The controller, for a search that starts from it; a run that is a reference alone has none.

        Its weights come with `reshape`.
        """
        return self.designer.controller() or torch.nn.Identity()

    def reshape(self, state: dict[str, Any]) -> None:
        """Start the designer, with its state of that checkpoint."""
        self._begin()
        self.ground.load_state_dict(state["ground"])
        self.designer.load_state_dict(state["designer"])

    def search_state(self) -> dict[str, Any]:
        trials = self.trials.joined()
        return {
            "tasks": trials.tasks,
            "codes": trials.codes,
            "scores": trials.scores,
            "done": self.done_trials,
            "failed": self.failed,
            "random": self.random.state_dict(),
            "noise": self.noise.state_dict(),
            "ground": self.ground.state_dict(),
            "designer": self.designer.state_dict() if self.started else {},
        }

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.curves = [[TaskCurves(self.top) for _ in self.data.names] for _ in self.seeds]
        self.trials = Trials()
        if state["done"]:
            self._keep(state["tasks"], state["codes"], state["scores"])
        self.done_trials, self.failed = state["done"], state["failed"]
        self.random.load_state_dict(state["random"])
        self.noise.load_state_dict(state["noise"])


def _number(value: Any) -> float | None:
    """As JSON can hold it: None for what is not finite."""
    return float(value) if math.isfinite(value) else None
