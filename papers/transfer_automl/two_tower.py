"""The space of text designs, and what trains one: a deep tower on a sentence embedding, a wide one on words.

logits = deep(sum_i v(word_i) / sqrt(n)) + wide(which words there are). Each tower has a step size and a
regularisation of its own (L2, L1), and both are trained by proximal Adagrad on the cross-entropy.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.architectures.objective import ArchitectureObjective, seed_of
from common.base.errors import UserError
from common.base.limits import require
from papers.transfer_automl.embedding import Module, vectors
from papers.transfer_automl.proximal_adagrad import ProximalAdagrad
from papers.transfer_automl.space import Design, DesignSpace

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "swish": nn.SiLU,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
}
NORMS = ("none", "batch", "layer")
# what a design says, in the order of the paper's successor (Houlsby et al. 2019, table 5)
DECISIONS = (
    *("module", "fine_tune", "layers", "size", "activation", "normalisation", "dropout"),
    *("deep_lr", "deep_l2", "wide_lr", "wide_l1", "samples"),
)
# words that are in fewer training texts are not in the wide tower, nor are more than so many
RARE, WIDEST = 2, 20_000
# texts at once where no gradient is needed
EVALUATED = 2000


class TwoTower(DesignSpace):
    """Designs of two towers.

    Args:
        shape, classes: of the data; not used.
        decisions: by name what can be chosen, out of `DECISIONS`.
        fixed: by name the value of each that is not chosen.
        embeddings: the modules by name: {dim, file}, see `papers.transfer_automl.embedding`.
        buckets: of hashed words.
        batch_size: of the trainings.

    Raises:
        UserError: a decision that is missing, given twice or unknown; a value that it cannot have.
    """

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        decisions: dict[str, list[Any]],
        fixed: dict[str, Any],
        embeddings: dict[str, dict[str, Any]],
        buckets: int,
        batch_size: int,
    ) -> None:
        require("at least 1", "model", buckets=buckets, batch_size=batch_size)
        for name in [*decisions, *fixed]:
            if name not in DECISIONS or (name in decisions and name in fixed):
                raise UserError(
                    f"model: decision {name} is unknown or both chosen and fixed (valid: {DECISIONS})"
                )
        missing = [name for name in DECISIONS if name not in decisions and name not in fixed]
        if missing:
            raise UserError(f"model: {missing[0]} is neither in decisions nor in fixed (valid: {DECISIONS})")
        super().__init__({name: decisions[name] for name in DECISIONS if name in decisions})
        self.embeddings = {name: Module(int(one["dim"]), one["file"]) for name, one in embeddings.items()}
        self.fixed, self.buckets, self.batch_size = dict(fixed), buckets, batch_size
        for name in DECISIONS:
            for value in decisions.get(name, [fixed.get(name)]):
                self._check(name, value)

    def _check(self, name: str, value: Any) -> None:
        words = {"module": tuple(self.embeddings), "activation": tuple(ACTIVATIONS), "normalisation": NORMS}
        if name in words:
            valid, what = value in words[name], ", ".join(words[name])
        elif name == "fine_tune":
            valid, what = isinstance(value, bool), "true or false"
        else:
            least = {"size": 1, "samples": 1}.get(name, 0)
            plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
            valid, what = plain and value >= least, f"a number of at least {least}"
            if name in ("deep_lr", "wide_lr"):
                valid, what = plain and value > 0, "a number above 0"
            if name == "dropout":
                valid, what = plain and 0 <= value < 1, "a number from 0 and below 1"
        if not valid:
            raise UserError(f"model: {name}={value}; valid: {what}")

    @property
    def substituted(self) -> int:
        """How many of the modules that can be chosen have no file, and are hashed words."""
        chosen = self.decisions.get("module", [self.fixed.get("module")])
        return sum(self.embeddings[name].file is None for name in chosen)

    def values(self, code: Any) -> dict[str, Any]:
        """All twelve values of a design, those that are fixed too."""
        return {**self.fixed, **super().values(code)}


class Bags(NamedTuple):
    """The words of texts as rows of a table, one text after the other.

    Attributes:
        rows: int64 [words].
        starts: where each text begins, int64 [n + 1].
    """

    rows: Tensor
    starts: Tensor

    def of(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The rows of some texts, and where each of them begins: int64 [m], [b]."""
        first, count = self.starts[index], self.starts[index + 1] - self.starts[index]
        offsets = count.cumsum(0) - count
        inside = torch.arange(int(count.sum())) - offsets.repeat_interleave(count)
        return self.rows[first.repeat_interleave(count) + inside], offsets


class Features(NamedTuple):
    """A task as the towers see it.

    Attributes:
        classes: how many.
        table: vectors of the module's rows, float32 [rows, dim].
        words: by split, the rows of the module.
        wide_size: words of the wide tower.
        wide: by split, which of them a text has.
        labels: by split, int64 [n].
    """

    classes: int
    table: Tensor
    words: dict[str, Bags]
    wide_size: int
    wide: dict[str, Bags]
    labels: dict[str, Tensor]

    def sentences(self, split: str, index: Tensor, table: Tensor) -> Tensor:
        """sum_i v(word_i) / sqrt(n) of some texts, [b, dim]."""
        rows, offsets = self.words[split].of(index)
        total = F.embedding_bag(rows, table, offsets, mode="sum")
        count = torch.diff(offsets, append=torch.tensor([len(rows)])).clamp_min(1)
        return total / count.sqrt()[:, None]


def bags(texts: list[list[str]], rows: dict[str, int], once: bool) -> Bags:
    """Texts as rows of those words that have one; `once`: each word of a text only once."""
    found = [[rows[word] for word in text if word in rows] for text in texts]
    found = [sorted(set(one)) for one in found] if once else found
    starts = np.cumsum([0, *map(len, found)])
    flat = [row for one in found for row in one]
    return Bags(torch.tensor(flat, dtype=torch.int64), torch.from_numpy(starts))


@lru_cache(maxsize=16)
def features(read: Callable[[Any], Any], files: Any, module: Module, buckets: int) -> Features:
    """What the towers see of a task with one embedding module; made once in a process."""
    task = read(files)
    parts = {"train": task.train, "validation": task.validation, "test": task.test}
    words = {word for part in parts.values() for text in part.texts for word in text}
    rows, table = vectors(module, words, buckets)
    counts = Counter(word for text in task.train.texts for word in set(text))
    kept = sorted((word for word, n in counts.items() if n >= RARE), key=lambda word: (-counts[word], word))
    wide = {word: number for number, word in enumerate(kept[:WIDEST])}
    return Features(
        len(task.classes),
        torch.from_numpy(table),
        {split: bags(part.texts, rows, once=False) for split, part in parts.items()},
        max(len(wide), 1),
        {split: bags(part.texts, wide, once=True) for split, part in parts.items()},
        {split: torch.from_numpy(part.labels) for split, part in parts.items()},
    )


class TwoTowerNetwork(nn.Module):
    """A design with its weights.

    Args:
        design: its values, see `DECISIONS`.
        table: the module's vectors, float32 [rows, dim].
        wide_size: words of the wide tower.
        classes: how many.
    """

    def __init__(self, design: dict[str, Any], table: Tensor, wide_size: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(table.clone(), requires_grad=bool(design["fine_tune"]))
        layers: list[nn.Module] = []
        width = table.shape[1]
        for _ in range(int(design["layers"])):
            size = int(design["size"])
            layers.append(nn.Linear(width, size))
            if design["normalisation"] != "none":
                batch = design["normalisation"] == "batch"
                layers.append(nn.BatchNorm1d(size) if batch else nn.LayerNorm(size))
            layers.append(ACTIVATIONS[design["activation"]]())
            layers += [nn.Dropout(design["dropout"])] if design["dropout"] else []
            width = size
        self.deep = nn.Sequential(*layers, nn.Linear(width, classes))
        self.wide = nn.Parameter(torch.zeros(wide_size, classes))

    def forward(self, sentences: Tensor, rows: Tensor, offsets: Tensor) -> Tensor:
        """Logits [b, classes] from sentence vectors [b, dim] and the wide tower's words."""
        return self.deep(sentences) + F.embedding_bag(rows, self.wide, offsets, mode="sum")


class TextObjective(ArchitectureObjective[Design]):
    """The validation accuracy of designs on one task.

    Args:
        space: of the designs.
        files: which texts, as `read` takes it.
        read: gives the task.
        seed: of the run; what is random in a training follows from it and the design.
        share: of the examples that a design says it trains on.
    """

    def __init__(
        self, space: TwoTower, files: Any, read: Callable[[Any], Any], seed: int, share: float
    ) -> None:
        self.space: TwoTower = space
        self.files, self.read, self.seed, self.share = files, read, seed, share

    def features(self, design: dict[str, Any]) -> Features:
        """The task as this design's towers see it."""
        return features(self.read, self.files, self.space.embeddings[design["module"]], self.space.buckets)

    def build(self, architecture: Design) -> TwoTowerNetwork:
        design = self.space.values(architecture.code)
        seen = self.features(design)
        return TwoTowerNetwork(design, seen.table, seen.wide_size, seen.classes)

    def count(self, architecture: Design) -> dict[str, float]:
        """deep and wide: weights of the towers that are trained."""
        design = self.space.values(architecture.code)
        seen = self.features(design)
        sizes = [seen.table.shape[1], *[int(design["size"])] * int(design["layers"]), seen.classes]
        deep = sum(a * b + b for a, b in pairwise(sizes))
        norm = 0 if design["normalisation"] == "none" else 2 * sum(sizes[1:-1])
        tuned = seen.table.numel() if design["fine_tune"] else 0
        return {"deep": float(deep + norm + tuned), "wide": float(seen.wide_size * seen.classes)}

    def train(self, architecture: Design, budget: int) -> dict[str, float]:
        """score and test, the shares of right answers; `budget` is 1: a design says how long it trains."""
        torch.manual_seed(seed_of(self.seed, architecture.key))
        design = self.space.values(architecture.code)
        seen, network = self.features(design), self.build(architecture)
        steps = max(1, round(self.share * design["samples"] / self.space.batch_size))
        _fit(network, seen, design, steps, self.space.batch_size)
        return {"score": _accuracy(network, seen, "validation"), "test": _accuracy(network, seen, "test")}


def _fit(network: TwoTowerNetwork, seen: Features, design: dict[str, Any], steps: int, batch: int) -> None:
    labels = seen.labels["train"]
    tuned = [network.embedding] if design["fine_tune"] else []
    optimizer = ProximalAdagrad(
        [
            {
                "params": [*network.deep.parameters(), *tuned],
                "lr": design["deep_lr"],
                "l2": design["deep_l2"],
            },
            {"params": [network.wide], "lr": design["wide_lr"], "l1": design["wide_l1"]},
        ]
    )
    with torch.no_grad():
        still = None if tuned else _sentences(network, seen, "train")
    network.train()
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) < min(batch, len(labels)):
            order = torch.randperm(len(labels))
        index, order = order[:batch], order[batch:]
        sentences = seen.sentences("train", index, network.embedding) if still is None else still[index]
        logits = network(sentences, *seen.wide["train"].of(index))
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(logits, labels[index]).backward()
        optimizer.step()


def _sentences(network: TwoTowerNetwork, seen: Features, split: str) -> Tensor:
    index = torch.arange(len(seen.labels[split]))
    return torch.cat([seen.sentences(split, part, network.embedding) for part in index.split(EVALUATED)])


@torch.no_grad()
def _accuracy(network: TwoTowerNetwork, seen: Features, split: str) -> float:
    """The share of right answers; NaN where a logit is not finite."""
    network.eval()
    right, labels = 0, seen.labels[split]
    for index in torch.arange(len(labels)).split(EVALUATED):
        logits = network(seen.sentences(split, index, network.embedding), *seen.wide[split].of(index))
        if not bool(logits.isfinite().all()):
            return math.nan
        right += int((logits.argmax(1) == labels[index]).sum())
    return right / len(labels)
