"""The search for a pipeline on the user's own table: proposed, trained, judged, refitted, saved."""

import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.pipeline import Pipeline
from torch import Tensor

from common.base.errors import UserError
from common.base.limits import require
from common.base.loader import RoundLoader
from common.base.module import UNDER_WAY, PaperModule, Progress
from papers.pmf_automl.baselines import mean_shares
from papers.pmf_automl.gp_lvm import LatentSettings
from papers.pmf_automl.judging import interval, plausible, resampled, score
from papers.pmf_automl.meta_features import in_order, meta_features
from papers.pmf_automl.own_table import PipelineTable, told
from papers.pmf_automl.pipelines import DEFAULTS, MAJORITY, QUICK, Description, built, effective, said
from papers.pmf_automl.recommender import Competitor, Problem, Recommender
from papers.pmf_automl.saved_files import ABOUT, PIPELINE
from papers.pmf_automl.scores import Matrix, PipelineScores, read_oboe_whole
from papers.pmf_automl.trial import Outcome, Table, Trial, start_server

Array = np.ndarray

# shares of the minutes: for learning from the matrix; that are left for the last fits; of one pipeline
LEARNING, LAST, ONE = 0.2, 0.2, 0.2
# seconds that a last fit gets at least; and of one training step
LEAST_SECONDS, BLOCK_SECONDS = 5.0, 0.2
# of the minutes, when a pipeline that is still at work is given up
OVER = 1.05
# of the best, how many are refitted until one succeeds
REFITS = 3


class Neighbours(PipelineScores):
    """Oboe's matrix, all its data sets with meta-features, and the user's table as the one to search."""

    NAME = "table"

    def __init__(self, matrix: Matrix, device: torch.device) -> None:
        super().__init__(kind="objective", missing=0.0, pipelines=len(matrix.pipelines))
        self.matrix, self.device, self.columns = matrix, device, [0]
        self.mine = torch.zeros(1, len(matrix.pipelines), dtype=torch.float64, device=device)

    def load(self) -> Matrix:
        return self.matrix


@dataclass
class Tried:
    """A pipeline that was tried.

    Attributes:
        number: of the list of pipelines; description: what it is.
        outcome: what came of it. score: cross-validated; NaN where it failed.
    """

    number: int
    description: Description
    outcome: Outcome
    score: float

    def told(self) -> dict[str, Any]:
        """As plain JSON data, without its predictions."""
        value = None if np.isnan(self.score) else self.score
        return {
            "pipeline": said(self.description),
            "score": value,
            "seconds": round(self.outcome.seconds, 2),
            "failed": self.outcome.why,
        }


class TableModule(PaperModule):
    """Pipelines on one table until the minutes are spent; it ends with the best one, refitted and saved.

    First comes the pipeline with the best mean rank on the data sets of Oboe's matrix (`best default`), then
    a warm start from the data sets that are most alike, while the method learns from the matrix; then what it
    proposes by what has been seen.
    Each is cross-validated in a process of its own, within limits of time and memory; those that fail stay in
    the record. Without the matrix, or for regression (of which it says nothing), there is a fixed order.

    The score is balanced accuracy (R^2 for regression). Of the best one it is that of rows that were held
    out, with a 95% interval, also of its difference to the majority class and to the best default. Where
    nothing succeeds the answer is the majority class (the mean), with why.

    Args:
        data, model, method: see above. seed: of what is random. iterations: pipelines at most.

    Raises:
        UserError: a method that proposes nothing.
    """

    data: PipelineTable

    def __init__(
        self, *, data: PipelineTable, model: LatentSettings, method: Competitor, seed: int, iterations: int
    ) -> None:
        super().__init__()
        require("at least 1", "paper", iterations=iterations)
        if not isinstance(method, Recommender):
            raise UserError(
                "dataset=table is searched by a method that proposes pipelines (valid: "
                "method=automl/pmf_adam, pmf, "
                "factorisation, oboe, portfolio)"
            )
        self.data, self.model, self.method, self.seed, self.total = data, model, method, seed, iterations
        self.tried: list[Tried] = []
        self.before = 0.0
        self.final: dict[str, Any] | None = None
        self.running: dict[int, Trial] = {}
        self._resumed: dict[str, Any] | None = None

    def setup(self, stage: str) -> None:
        self.data.setup(stage)

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    @property
    def classes(self) -> bool:
        """Whether the target is one of classes."""
        return not self.data.regression

    @property
    def folder(self) -> Path:
        """Where what the run leaves stands."""
        return Path(self.trainer.default_root_dir)

    @property
    def spent(self) -> float:
        """Seconds so far, those before a kill among them."""
        return self.before + time.perf_counter() - self.started

    @property
    def budget(self) -> float:
        """Seconds in all."""
        return 60 * self.data.minutes

    def on_fit_start(self) -> None:
        """Lay the table out for processes; describe it, and ask the matrix."""
        self.started = time.perf_counter()
        start_server()
        self.device_used = torch.device("cpu")
        state = self._resumed or {}
        self.before = state.get("spent", 0.0)
        self.final = state.get("final")
        shared = self.folder / UNDER_WAY / "table"
        shared.mkdir(parents=True, exist_ok=True)
        parts = {"X": self.data.X, "y": self.data.y, "words": self.data.words, "folds": self.data.folds_of}
        for name, values in parts.items():
            np.save(shared / f"{name}.npy", values)
        self.table = Table(shared, len(self.data.labels) or None, self.seed)
        self.learning = False
        self.pipelines: list[Description] = list(DEFAULTS)
        self.order: list[int] = list(range(len(DEFAULTS)))
        if self.data.regression:
            print("[table] the matrices are of classification: a fixed order of pipelines, no warm start")
            self._add_twins()
        else:
            self._ask_the_matrix(state)
        self.built_as = [effective(one, self.classes, len(self.data.y)) for one in self.pipelines]
        for row in state.get("tried", []):
            predictions = None if row["predictions"] is None else row["predictions"].numpy()
            outcome = Outcome(predictions, row["why"], row["seconds"])
            self.tried.append(Tried(row["number"], self.pipelines[row["number"]], outcome, row["score"]))
        self._resumed = None

    def _add_twins(self) -> None:
        """Add the twins of all pipelines of Oboe's matrix, best mean rank first, where it is there."""
        try:
            matrix, descriptions, _ = read_oboe_whole(self.data_dir)
        except UserError:
            return
        self.pipelines += [
            descriptions[int(i)] for i in np.argsort(-mean_shares(matrix.train), kind="stable")
        ]
        self.order = list(range(len(self.pipelines)))

    def _ask_the_matrix(self, state: dict[str, Any]) -> None:
        try:
            matrix, descriptions, names = read_oboe_whole(self.data_dir)
        except UserError as error:
            print(f"[table] without Oboe's matrix pipelines come in a fixed order: {error}")
            return
        found = meta_features(self.data.X, self.data.words, self.data.y, self.seed)
        self.meta = found
        own = np.nan_to_num(in_order(found, names)[None])
        matrix = Matrix(
            **{**vars(matrix), "test_features": own, "test": np.zeros((len(matrix.pipelines), 1))}
        )
        self.scores = Neighbours(matrix, self.device_used)
        self.pipelines = descriptions
        self.order = [int(np.argmax(mean_shares(matrix.train)))]
        self.learning = True
        self.method.start(
            Problem(self.scores, self.model, self.seed, min(self.total, len(descriptions)), self.device_used)
        )
        if "method" in state:
            self.method.load_state_dict(state["method"])

    @property
    def data_dir(self) -> Path:
        """Where Oboe's matrix is."""
        return self.data.data_dir

    @property
    def done(self) -> bool:
        """Whether the answer is found."""
        return self.final is not None

    def training_step(self, batch: int, batch_idx: int) -> None:
        """A block of learning, a look at the processes, or the last fits.

        What needs no model of the matrix is tried while it is learnt.
        """
        if self.done:
            self.trainer.should_stop = True
            return
        learns = self._learns()
        if learns:
            self.method.train(BLOCK_SECONDS)
        self._collect(0.0 if learns else BLOCK_SECONDS)
        while self._may_start() and (number := self._next()) is not None:
            self._start(number)
        if not self.running and not learns:
            self.final = self._finish()
            self.trainer.should_stop = True

    def _learns(self) -> bool:
        """Whether the method still learns from the matrix."""
        under_way = self.learning and self.method.taken < self.method.steps
        return under_way and self.spent < LEARNING * self.budget

    def _may_start(self) -> bool:
        room = len(self.running) < self.data.jobs and len(self.tried) + len(self.running) < self.total
        return room and self.spent < self._end()

    def _end(self) -> float:
        """Seconds until which pipelines are tried; some are kept for last fits, once there is what to fit."""
        return (1 - LAST if self._better() else 1.0) * self.budget

    def _start(self, number: int) -> None:
        left = self._end() - self.spent
        limit = min(self.data.seconds or ONE * self.budget, max(left, 0.1))
        self.running[number] = Trial(self.table, self.pipelines[number], limit, self.data.memory)

    def _next(self) -> int | None:
        """The next pipeline; None where all were tried, or the model that proposes others is not yet learnt.

        As long as none of those that were tried is better than the majority class, as where they ran out of
        time, the quickest algorithms come first. Other settings of an algorithm that has only failed come
        last: what took too long once would take all minutes.
        """
        free = self._free()
        if not bool(free.any()):
            return None
        hopeful = free & ~self._failing()
        free = hopeful if bool(hopeful.any()) else free
        if self.tried and not self._better():
            known = {self.pipelines[n]["algorithm"] for n in self._known()}
            for name in (name for name in QUICK if name not in known):
                quick = [n for n, one in enumerate(self.pipelines) if free[n] and one["algorithm"] == name]
                if quick:
                    return quick[0]
        waiting = [number for number in self.order if bool(free[number])]
        if not waiting and self.learning:
            waiting = [int(number) for number in self._first() if bool(free[int(number)])]
        if waiting or not self.learning or self._learns():
            return waiting[0] if waiting else None
        x = torch.tensor([one.number for one in self.tried], dtype=torch.int64)
        y = torch.tensor([one.score for one in self.tried], dtype=torch.float64)
        number = self._proposed(x, y, free)
        return number if bool(free[number]) else int(free.nonzero()[0])

    def _free(self) -> Tensor:
        """Which pipelines were not tried, nor one that scikit-learn builds the same, bool [N]."""
        known = {self.built_as[number] for number in self._known()}
        return torch.tensor([name not in known for name in self.built_as])

    def _failing(self) -> Tensor:
        """Which pipelines are of an algorithm that was tried and has never succeeded, bool [N]."""
        outcomes: dict[str, list[bool]] = {}
        for one in self.tried:
            outcomes.setdefault(one.description["algorithm"], []).append(not np.isnan(one.score))
        failing = {name for name, succeeded in outcomes.items() if not any(succeeded)}
        return torch.tensor([one["algorithm"] in failing for one in self.pipelines])

    def _known(self) -> list[int]:
        """The pipelines that were tried, and those that are."""
        return [*(one.number for one in self.tried), *self.running]

    def _first(self) -> Array:
        """The pipelines that the method begins with, whatever is seen."""
        return getattr(self.method, "first", [np.zeros(0, int)])[0]

    def _proposed(self, x: Tensor, y: Tensor, free: Tensor) -> int:
        """What the method proposes by what has been seen."""
        if hasattr(self.method, "informed"):
            return int(self.method.informed(0, x, y, free))
        return self.method.propose(0, x, y, free)

    def _collect(self, wait: float) -> None:
        """What processes have come to, after at most so many seconds each."""
        for number, trial in list(self.running.items()):
            outcome = trial.outcome(wait)
            if outcome is None and self.spent > OVER * self.budget + LEAST_SECONDS:
                # its own start is not in its limit, and on a busy machine takes long
                trial.stop()
                outcome = Outcome(None, "out of time: the minutes were over", trial.seconds)
            if outcome is None:
                continue
            del self.running[number]
            predictions = outcome.predictions
            value = float("nan") if predictions is None else score(self.data.y, predictions, self.classes)
            self.tried.append(Tried(number, self.pipelines[number], outcome, value))
            best = self._best()
            if best is not None:
                self.record(len(self.tried), best=best.score)

    def _ranked(self) -> list[Tried]:
        """Those that succeeded, best first."""
        return sorted((one for one in self.tried if not np.isnan(one.score)), key=lambda one: -one.score)

    def _better(self) -> list[Tried]:
        """Those of them that are better than the majority class (the mean)."""
        constant = score(self.data.y, self._constant(self.data.y), self.classes)
        return [one for one in self._ranked() if one.score > constant]

    def _best(self) -> Tried | None:
        return next(iter(self._ranked()), None)

    def _finish(self) -> dict[str, Any]:
        """Judge, refit and save the best pipeline; else the majority class."""
        whole = self._whole()
        for one in self._better()[:REFITS]:
            tested = self._tested(one)
            if isinstance(tested, str):
                continue
            path = self.folder / f".{PIPELINE}"
            saved = Trial(whole, one.description, self._left(one), self.data.memory, (None, path)).result()
            if saved.why is None:
                path.replace(self.folder / PIPELINE)
                return self._judged(one, tested)
        return self._judged(None, None)

    def _left(self, one: Tried) -> float:
        """Seconds for a last fit: those that are left, and never less than its cross-validation took."""
        return max(self.budget - self.spent, LEAST_SECONDS, one.outcome.seconds)

    def _whole(self) -> Table:
        """All rows, those held out last, for the last fits."""
        folder = self.folder / UNDER_WAY / "whole"
        folder.mkdir(parents=True, exist_ok=True)
        data = self.data
        parts = {"X": np.vstack([data.X, data.X_test]), "y": np.concatenate([data.y, data.y_test])}
        for name, values in {**parts, "words": data.words}.items():
            np.save(folder / f"{name}.npy", values)
        self.whole = Table(folder, self.table.classes, self.seed)
        return self.whole

    def _tested(self, one: Tried) -> Array | str | None:
        """Predictions of the rows that are held out, by a fit to the others; why there are none; or None."""
        if not len(self.data.y_test):
            return None
        rows = np.arange(len(self.data.y) + len(self.data.y_test)) < len(self.data.y)
        limit = self._left(one)
        found = Trial(self.whole, one.description, limit, self.data.memory, (rows, None)).result()
        return found.why if found.why is not None else found.predictions

    def _constant(self, y: Array) -> Array:
        """The majority class, or the mean, of the training rows, for as many rows as y has."""
        own = self.data.y
        value = np.bincount(own).argmax() if self.classes else own.mean()
        return np.full(len(y), value, dtype=own.dtype)

    def _judged(self, best: Tried | None, tested: Array | None) -> dict[str, Any]:
        """The final numbers, and what the run ends with."""
        default = self._default()
        # of the rows that are held out, where there are any
        y, own, usual = self.data.y, None if best is None else best.outcome.predictions, None
        usual = None if default is None else default.outcome.predictions
        held = bool(len(self.data.y_test)) and best is not None
        if held:
            y, own = self.data.y_test, tested
            if default is not None and best is not None and default.number != best.number:
                # one that has failed would only take its time again
                other = self._tested(default) if usual is not None else None
                usual = other if isinstance(other, np.ndarray) else None
            else:
                usual = tested if default is not None else None
        constant = self._constant(y)
        compared = usual is not None
        own = constant if own is None else own
        usual = constant if usual is None else usual
        drawn = resampled(y, [own, constant, usual], self.classes)
        values = [score(y, one, self.classes) for one in (own, constant, usual)]
        metrics: dict[str, float | None] = {"score": values[0]}
        low, high = interval(plausible(y, own) if self.classes else drawn[:, 0])
        # of classes with a row or two Jeffreys' prior weighs more than the rows
        metrics["score_low"], metrics["score_high"] = min(low, values[0]), max(high, values[0])
        for name, place in (("majority", 1), ("best_default", 2)):
            metrics[name] = values[place]
            metrics[f"gain_over_{name}"] = values[0] - values[place]
            ends = interval(drawn[:, 0] - drawn[:, place])
            metrics[f"gain_over_{name}_low"], metrics[f"gain_over_{name}_high"] = ends
        if not compared:
            metrics |= {key: None for key in metrics if key.startswith(("best_default", "gain_over_best"))}
        metrics["cross_validated"] = None if best is None else best.score
        if best is None:
            self._save_majority()
        failed = sum(np.isnan(one.score) for one in self.tried)
        metrics |= {"pipelines_tried": float(len(self.tried)), "pipelines_failed": float(failed)}
        metrics["minutes"] = self.spent / 60
        where = ", cross-validated" + ("" if best is None else ", by which it was chosen: rather too good")
        where = " that were held out" if held else where
        about = {
            "pipeline": said(MAJORITY if best is None else best.description),
            "why": None if best is not None else self._why(),
            "measure": "balanced accuracy" if self.classes else "R^2",
            "judged_on": f"{len(y)} rows{where}",
            "best_default": self._said_of(default),
            "file": PIPELINE,
        }
        facts = {**told(self.data), **about}
        (self.folder / ABOUT).write_text(json.dumps(facts, indent=1))
        print(self._line(about, metrics))
        return {"metrics": metrics, "about": about}

    def _default(self) -> Tried | None:
        """The best default, once it was tried: with several at a time it is not the first to be done."""
        return next((one for one in self.tried if one.number == self.order[0]), None)

    def _said_of(self, default: Tried | None) -> str:
        """The best default in words, and why there is nothing to compare with where there is not."""
        if default is None:
            return f"{said(self.pipelines[self.order[0]])}: not tried"
        why = default.outcome.why
        return said(default.description) + (f": {why}" if why else "")

    def _why(self) -> str:
        """Why nothing better than the majority class was found."""
        if not self.tried:
            return f"no pipeline was done within {self.data.minutes:g} minutes"
        failed = [one for one in self.tried if one.outcome.why is not None]
        if len(failed) == len(self.tried):
            return f"all {len(failed)} pipelines failed; the first: {failed[0].outcome.why}"
        return f"none of {len(self.tried)} pipelines was better, or could be fitted to all rows"

    def _save_majority(self) -> None:
        import skops.io

        y = np.concatenate([self.data.y, self.data.y_test])
        made: Pipeline = built(MAJORITY, self.classes, self.data.words, len(y), self.seed)
        made.fit(np.zeros((len(y), self.data.X.shape[1])), y)
        skops.io.dump(made, self.folder / PIPELINE)

    def _line(self, about: dict[str, Any], metrics: dict[str, float | None]) -> str:
        why = f" ({about['why']})" if about["why"] else ""
        text = f"best pipeline: {about['pipeline']}{why}\n"
        text += (
            f"{about['measure']} {metrics['score']:.4f} [{metrics['score_low']:.4f}, "
            f"{metrics['score_high']:.4f}] on "
            f"{about['judged_on']}"
        )
        rivals = {
            "majority": "the majority class" if self.classes else "the mean",
            "best_default": f"the best default, {about['best_default']}",
        }
        for name, words in rivals.items():
            if metrics[name] is None:
                text += f"\n  not compared with {words}"
                continue
            gain, low, high = (metrics[f"gain_over_{name}{end}"] for end in ("", "_low", "_high"))
            text += f"\n  {gain:+.4f} [{low:+.4f}, {high:+.4f}] against {words} ({metrics[name]:.4f})"
        return text

    def on_train_end(self) -> None:
        for trial in self.running.values():
            trial.stop()
        self.running = {}
        if self.done:
            shutil.rmtree(self.folder / UNDER_WAY / "table", ignore_errors=True)
            shutil.rmtree(self.folder / UNDER_WAY / "whole", ignore_errors=True)

    def teardown(self, stage: str) -> None:
        """Leave no process behind, whatever has ended the run."""
        for trial in self.running.values():
            trial.stop()
        self.running = {}

    def progress(self) -> Progress:
        if self.learning and self.method.taken < self.method.steps and not self.tried and not self.running:
            return Progress(self.method.taken, self.method.steps, "steps of learning", "")
        best = self._best()
        text = "no pipeline yet" if best is None else f"best {best.score:.4f} by {said(best.description)}"
        failed = sum(np.isnan(one.score) for one in self.tried)
        # reading the matrix and describing the table is nothing that was done before
        spent = self.spent if self.tried or self.running else self.before
        return Progress(
            round(min(spent, self.budget)), round(self.budget), "seconds",
            f"{len(self.tried)} pipelines, {failed} failed; {text}",
        )  # fmt: skip

    def results(self) -> dict[str, Any]:
        """The score of the best pipeline with its interval, its gains, and counts."""
        assert self.final is not None
        return dict(self.final["metrics"])

    def conclusion(self) -> dict[str, Any]:
        """The best pipeline, where it is saved, what was done to each column, and all trials."""
        assert self.final is not None
        columns = [{"column": plan.name, "as": plan.said} for plan in self.data.plans]
        trials = [one.told() for one in self.tried]
        return {
            **self.final["about"],
            "columns": columns,
            "pipelines": trials,
            "meta_features": getattr(self, "meta", None),
        }

    def search_state(self) -> dict[str, Any]:
        rows = [
            {
                "number": one.number,
                "score": one.score,
                "why": one.outcome.why,
                "seconds": one.outcome.seconds,
                "predictions": None
                if one.outcome.predictions is None
                else torch.from_numpy(one.outcome.predictions),
            }
            for one in self.tried
        ]
        method = {"method": self.method.state_dict()} if self.learning else {}
        return {"tried": rows, "spent": self.spent, "final": self.final, **method}

    def load_search_state(self, state: dict[str, Any]) -> None:
        """Kept until `on_fit_start`, when there is a table."""
        self._resumed = state
