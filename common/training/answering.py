"""Training to point at answers in passages, and its measures: exact match and F1 of the texts."""

from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.modes import evaluation_mode
from common.base.task import Metrics, Task, penalty
from common.data.questions.question_data import QuestionData
from common.metrics.answers import exact_match, f1
from common.models.bidaf import BiDAF, best_spans


class Answering(Task):
    """-log p(first word) - log p(last word) of the answer, in nats, averaged over questions; EM and F1.

    The network gives scores [b, 2, C] of the first and the last words. Measures of a split: `loss`; `em` and
    `f1` of the texts of the best spans, in percent, against all references; `span_accuracy`, the fraction of
    questions of which the span is that of the first reference.

    Args:
        longest_answer: words that an answer may have where it is decoded.
    """

    def __init__(self, longest_answer: int) -> None:
        self.longest_answer = longest_answer

    @classmethod
    def of(cls, model: Any, data: DataSet) -> "Answering":
        """The task of a model, which says how long answers are, and may take the words' vectors.

        Raises:
            UserError: data without passages, or that have more words than the model has numbers for, or
                vectors that the model cannot take.
        """
        if not isinstance(data, QuestionData):
            raise UserError(
                f"dataset: {data.NAME} has no questions (valid: dataset=python_questions, question_file, ...)"
            )
        known = getattr(model, "words", None)
        if isinstance(known, int) and known < data.words:
            raise UserError(
                f"model.words={known}: dataset.words={data.words} numbers of words need as many rows (valid: "
                f"model.words={data.words}, or dataset.words={known})"
            )
        vectors = data.word_vectors()
        if vectors is not None:
            if not hasattr(model, "use_vectors"):
                raise UserError(f"dataset.vectors: {type(model).__name__} takes no vectors (valid: null)")
            model.use_vectors(vectors)
        return cls(model.longest_answer)

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The mean over the questions of a minibatch."""
        assert targets is not None
        # the mean over first and last words, of which each question has one
        return 2 * F.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def metrics(self, device: torch.device) -> Metrics:
        """The loss and the fraction of spans."""
        return {name: MeanMetric().to(device) for name in ("loss", "span_accuracy")}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch."""
        self._decoded(metrics, model, inputs, targets)

    def _decoded(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """Add a batch; its spans, int64 [b, 2]."""
        assert targets is not None
        outputs = model(inputs)
        loss = self.fit_of(model, outputs, inputs, targets) + penalty(model)
        metrics["loss"].update(loss, weight=len(inputs))
        spans = best_spans(outputs, self.longest_answer)
        metrics["span_accuracy"].update((spans == targets).all(1).double())
        return spans

    @torch.no_grad()
    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """All measures of a split."""
        assert isinstance(data, QuestionData)
        metrics = self.metrics(next(model.parameters()).device)
        spans: list[list[int]] = []
        with evaluation_mode(model):
            for inputs, targets in data.batches(split, data.evaluation_batch):
                spans += self._decoded(metrics, model, inputs, targets).tolist()
        pairs = list(zip(data.said(split, spans), data.references(split), strict=True))
        found = {name: float(metric.compute()) for name, metric in metrics.items()}
        for name, measure in (("em", exact_match), ("f1", f1)):
            found[name] = 100 * sum(measure(given, wanted) for given, wanted in pairs) / max(len(pairs), 1)
        return {f"{split}_{name}": value for name, value in found.items()}


class AnswersQuestions:
    """What makes a network that gives scores [b, 2, C] one that answers questions: the first of its bases.

    Attributes:
        longest_answer: words that an answer may have where it is decoded.
    """

    task: ClassVar[Literal["own"]] = "own"
    longest_answer: int

    def own_task(self, data: DataSet) -> Answering:
        """What it is trained and judged for."""
        return Answering.of(self, data)


class Reader(AnswersQuestions, BiDAF):
    """BiDAF as `model=bidaf` trains it."""
