"""Training for a tag for each word, and its measures: precision, recall and F1 of whole spans."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.task import Metrics, Task, penalty
from common.data.tagging.schemes import SpanCounts
from common.data.tagging.tagging_data import IGNORE, TaggingData
from common.models.crf import ConditionalRandomField


class Tagging(Task):
    """Minus the log probability of a sentence's tags, in nats, averaged over sentences; F1 of spans.

    The network gives scores [b, T, K]. One that has a `crf` (`ConditionalRandomField`) is trained by the
    probability of the whole sequence, and judged by the best one; another one by the sum over words of
    their cross-entropies, and by each word's best tag.

    Measures of a split: `loss`; `f1`, `precision` and `recall` of spans by type and place, as conlleval and
    seqeval count them; `accuracy` of tags, O among them. All but the loss are fractions.

    Args:
        data: names the tags.

    Raises:
        UserError: data without tags of words.
    """

    def __init__(self, data: DataSet) -> None:
        if not isinstance(data, TaggingData):
            raise UserError(
                f"dataset: {data.NAME} has no tags (valid: dataset=python_tags, tagged_file, ...)"
            )
        self.tags = data.class_names()

    @classmethod
    def of(cls, model: object, data: DataSet) -> "Tagging":
        """The task of a model, which may say how many `words` it has numbers for.

        Raises:
            UserError: the data have more.
        """
        known, needed = getattr(model, "words", None), getattr(data, "words", None)
        if isinstance(known, int) and isinstance(needed, int) and known < needed:
            raise UserError(
                f"model.words={known}: dataset.words={needed} numbers of words need as many rows (valid: "
                f"model.words={needed}, or dataset.words={known})"
            )
        return cls(data)

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The mean over the sentences of a minibatch."""
        assert targets is not None
        return negative_log_likelihood(_crf_of(model), outputs, targets).mean()

    def metrics(self, device: torch.device) -> Metrics:
        """The loss, the accuracy, and three readings of one count of spans."""
        counts = SpanCounts()
        return {
            "loss": MeanMetric().to(device),
            "accuracy": MeanMetric().to(device),
            "f1": Reading(counts, SpanCounts.f1),
            "precision": Reading(counts, SpanCounts.precision),
            "recall": Reading(counts, SpanCounts.recall),
        }

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch of sentences."""
        assert targets is not None
        crf, scores = _crf_of(model), model(inputs)
        loss = negative_log_likelihood(crf, scores, targets)
        metrics["loss"].update(loss.mean() + penalty(model), weight=len(loss))
        inside = targets != IGNORE
        lengths = inside.sum(1)
        best = scores.argmax(2) if crf is None else crf.decode(scores, lengths)
        metrics["accuracy"].update((best == targets)[inside].double().mean(), weight=int(lengths.sum()))
        for given, wanted, length in zip(best.tolist(), targets.tolist(), lengths.tolist(), strict=True):
            metrics["f1"].counts.update(self._named(given[:length]), self._named(wanted[:length]))

    def _named(self, tags: list[int]) -> list[str]:
        return [self.tags[tag] for tag in tags]


def _crf_of(model: nn.Module) -> ConditionalRandomField | None:
    found: Any = getattr(model, "crf", None)
    return found if isinstance(found, ConditionalRandomField) else None


def negative_log_likelihood(crf: ConditionalRandomField | None, scores: Tensor, targets: Tensor) -> Tensor:
    """-log p of the tags of each sentence, [b], of scores [b, T, K] and targets [b, T], -100 for padding."""
    if crf is not None:
        return crf(scores, targets, (targets != IGNORE).sum(1))
    return F.cross_entropy(scores.transpose(1, 2), targets, ignore_index=IGNORE, reduction="none").sum(1)


class Reading(NamedTuple):
    """A number that counts of spans give."""

    counts: SpanCounts
    read: Callable[[SpanCounts], float]

    def compute(self) -> float:
        """The number."""
        return self.read(self.counts)
