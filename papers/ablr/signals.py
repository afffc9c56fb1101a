"""Tuning a multilayer perceptron, whose training tells more than its validation error: side signals."""

import time
import warnings
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_svmlight_file
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import MaxAbsScaler
from torch import Tensor

from common.base.dataset import check
from common.base.objective import Objective, box
from common.data.shared.download import DamagedError, obtain

URL = "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary/"
FILES = {
    "w8a": "w8a",
    "sonar": "sonar_scale",
    "w1a": "w1a",
    "phishing": "phishing",
    "australian": "australian_scale",
}
SPLIT_SEED = 0
# log10 of the step size and of the penalty; log2 of the hidden units and of the batch
RANGES = {"lr": (-4.0, -1.0), "alpha": (-6.0, -1.0), "hidden": (3.0, 7.0), "batch": (4.0, 8.0)}


class TunedMLP(Objective):
    """f = minus the validation error of scikit-learn's MLPClassifier after some epochs, by four settings.

    A point of [0, 1]^4 is log step size, log penalty, log hidden units, log batch size. Each evaluation
    also tells its training loss, its CPU time and its training accuracy after each epoch; and the test
    error, which no search sees.

    Args:
        kind: must be `objective`.
        table: w8a, sonar, w1a, phishing or australian, of the LIBSVM collection.
        source: `real` (downloaded where it is missing), `bundled`: scikit-learn's breast cancer table in its
            place, which is said, or `synthetic`: the same, silently.
        data_dir: holds `libsvm/`. epochs: of a training. limit: at most so many rows; null: all.

    Raises:
        UserError: a value out of range; a file that is missing or damaged.
    """

    NAME: ClassVar = "tuned_mlp"
    metric: str = "validation_error"
    sign: float = -1.0

    def __init__(
        self,
        *,
        kind: str,
        table: Literal["w8a", "sonar", "w1a", "phishing", "australian"],
        source: Literal["real", "bundled", "synthetic"],
        data_dir: str,
        epochs: int,
        limit: int | None,
    ) -> None:
        check("epochs", epochs, epochs >= 1, "give at least 1")
        check("limit", limit, limit is None or limit >= 20, "give at least 20, or null for all")
        super().__init__(kind=kind, space=box(len(RANGES), 0.0, 1.0), noise=0.0)
        self.table, self.source, self.data_dir = table, source, Path(data_dir)
        self.epochs, self.limit = epochs, limit
        # of each replicate, evaluation after evaluation
        self.told: list[list[dict[str, list[float]]]] = []

    def setup(self, stage: str | None = None) -> None:
        if hasattr(self, "parts"):
            return
        if self.source == "real":
            name = FILES[self.table]
            advice = "put it there, or use dataset.source=bundled"
            x, y = obtain(self.data_dir / "libsvm" / name, URL + name, _read, advice)
        else:
            if self.source == "bundled":
                print(f"[{self.NAME}] scikit-learn's breast cancer table stands in for {self.table}")
            x, y = load_breast_cancer(return_X_y=True)
        if self.limit is not None and len(y) > self.limit:
            x, _, y, _ = train_test_split(x, y, train_size=self.limit, stratify=y, random_state=SPLIT_SEED)
        x = MaxAbsScaler().fit_transform(x)
        rest, test = train_test_split(np.arange(len(y)), test_size=0.2, stratify=y, random_state=SPLIT_SEED)
        train, val = train_test_split(rest, test_size=0.25, stratify=y[rest], random_state=SPLIT_SEED)
        self.parts = {
            name: (x[own], y[own]) for name, own in (("train", train), ("val", val), ("test", test))
        }

    def sources(self) -> dict[str, Path]:
        """The file."""
        if self.source != "real":
            return {}
        return {self.table: self.data_dir / "libsvm" / FILES[self.table]}

    def draw(self, seeds: list[int]) -> None:
        self.seeds, self.told = seeds, [[] for _ in seeds]

    def assigned(self, point: Tensor) -> dict[str, str]:
        found = _settings(point)
        return {name: f"{value:.6g}" for name, value in found.items()}

    def values(self, x: Tensor) -> Tensor:
        found = torch.zeros(x.shape[:2], dtype=torch.float64, device=x.device)
        for r, points in enumerate(x):
            for q, point in enumerate(points):
                told = self._trained(self.seeds[r], point)
                known = [one for one in self.told[r] if one["point"] == told["point"]]
                # the answer of a search is looked at again: that is no evaluation
                if not known:
                    self.told[r].append(told)
                found[r, q] = -told["validation_error"][0]
        return found

    def optimum(self) -> None:
        return None

    def _trained(self, seed: int, point: Tensor) -> dict[str, list[float]]:
        known = [one for row in self.told for one in row if one["point"] == [*point.tolist(), float(seed)]]
        if known:
            return known[0]
        own = _settings(point)
        network = MLPClassifier(
            (int(own["hidden"]),),
            learning_rate_init=own["lr"],
            alpha=own["alpha"],
            batch_size=int(own["batch"]),
            random_state=seed,
        )
        (x, y), accuracy = self.parts["train"], []
        began = time.process_time()
        with warnings.catch_warnings():
            # a batch that is larger than the table is cut
            warnings.simplefilter("ignore")
            for _ in range(self.epochs):
                network.partial_fit(x, y, classes=np.unique(y))
                accuracy.append(float(network.score(x, y)))
        told = {"point": [*point.tolist(), float(seed)], "cpu_time": [time.process_time() - began]}
        told |= {"train_loss": [float(network.loss_)], "epochwise_train_accuracy": accuracy}
        for name, part in (("validation_error", "val"), ("test_error", "test")):
            told[name] = [1 - float(network.score(*self.parts[part]))]
        return told

    def signals(self, r: int, names: list[str]) -> list[Tensor]:
        """Of each signal the values at the replicate's evaluations, signed so that larger is better."""
        found = []
        for name in names:
            sign = 1.0 if name == "epochwise_train_accuracy" else -1.0
            rows = [one[name] for one in self.told[r]]
            found += [sign * torch.tensor(column, dtype=torch.float64) for column in zip(*rows, strict=True)]
        return found

    def test_errors(self) -> Tensor:
        """The test error, in percent, at each replicate's best validation error, [R]."""
        best = [min(row, key=lambda one: one["validation_error"][0]) for row in self.told]
        return 100 * torch.tensor([one["test_error"][0] for one in best], dtype=torch.float64)

    def told_state(self) -> list[list[dict[str, list[float]]]]:
        """What evaluations have told, for a checkpoint."""
        return self.told

    def load_told(self, told: list[list[dict[str, list[float]]]]) -> None:
        """Put back what `told_state` gave."""
        self.told = told


def _settings(point: Tensor) -> dict[str, float]:
    """A point of [0, 1]^4 as step size, penalty, hidden units and batch size."""
    ends = zip(RANGES.items(), point.tolist(), strict=True)
    u = {name: low + value * (high - low) for (name, (low, high)), value in ends}
    whole = {name: float(round(2 ** u[name])) for name in ("hidden", "batch")}
    return {"lr": 10 ** u["lr"], "alpha": 10 ** u["alpha"], **whole}


def _read(path: Path) -> tuple[Any, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(path)
    try:
        x, labels = load_svmlight_file(str(path))
    except (ValueError, OverflowError) as error:
        raise DamagedError(f"no LIBSVM file ({type(error).__name__})") from error
    if len(np.unique(labels)) != 2:
        raise DamagedError(f"{len(np.unique(labels))} classes instead of 2")
    return x, (labels == labels.max()).astype(int)
