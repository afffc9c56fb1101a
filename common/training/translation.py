"""Translation: the next token of a target from its source and those before it; BLEU of what is decoded."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchmetrics import MeanMetric

from common.base.dataset import JUDGING, DataSet, SplitName
from common.base.errors import UserError
from common.base.model import Model
from common.base.modes import evaluation_mode
from common.base.phases import counted
from common.base.sequence import PAD
from common.base.task import Metrics, Task, penalty
from common.data.text.translation_data import TranslationData
from common.metrics.bleu import bleu, sacrebleu
from common.models.decoding import beam_search, decoder_of, greedy

# a translation may have so many tokens more than its source (tensor2tensor)
LONGER = 50


class Translation(Task):
    """Cross-entropy of the next token with label smoothing; BLEU of the translations.

    All means are over the tokens of the targets with `EOS`. Measures of a split: `loss` as in training, with
    label smoothing; `perplexity`, the exponential of the cross-entropy without it; `accuracy` of the next
    token, a fraction; and of validation and test `bleu` in percent, by the data's tokenisation. The
    validation split, which is judged after every epoch, is decoded greedily; the test split by beam search.

    Args:
        label_smoothing: epsilon in (1 - epsilon) log p(token) + epsilon mean over V of log p.
        beam: hypotheses of a sentence of the test split.
        length_penalty: see `common.models.decoding.beam_search`.

    Raises:
        UserError: sacrebleu is not installed.
    """

    def __init__(self, label_smoothing: float, beam: int, length_penalty: float) -> None:
        sacrebleu()
        self.label_smoothing, self.beam, self.length_penalty = label_smoothing, beam, length_penalty

    @classmethod
    def of(cls, model: Model, data: DataSet) -> "Translation":
        """As a model says; without its words plainly and greedily.

        Raises:
            UserError: data that are no pairs of texts.
        """
        if not isinstance(data, TranslationData):
            raise UserError(
                f"dataset: {data.NAME} has no pairs of texts (valid: dataset=text_pair, messages, ...)"
            )
        return cls(
            float(getattr(model, "label_smoothing", 0.0)),
            int(getattr(model, "beam", 1)),
            float(getattr(model, "length_penalty", 0.0)),
        )

    def fit_of(self, model: nn.Module, outputs: Tensor, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The mean over tokens of the smoothed cross-entropy."""
        return self._cross_entropy(outputs, targets, self.label_smoothing)

    def _cross_entropy(self, outputs: Tensor, targets: Tensor | None, smoothing: float) -> Tensor:
        assert targets is not None
        return F.cross_entropy(
            outputs.flatten(0, 1), targets.flatten(), ignore_index=PAD, label_smoothing=smoothing
        )

    def metrics(self, device: torch.device) -> Metrics:
        """Means over tokens."""
        return {name: MeanMetric().to(device) for name in ("loss", "nats", "accuracy")}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        """Add a batch."""
        assert targets is not None
        outputs, there = model(inputs), targets != PAD
        count = there.sum()
        metrics["loss"].update(self.fit_of(model, outputs, inputs, targets) + penalty(model), weight=count)
        metrics["nats"].update(self._cross_entropy(outputs, targets, 0.0), weight=count)
        right = (outputs.argmax(-1) == targets) & there
        metrics["accuracy"].update(right.sum() / count, weight=count)

    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """All measures of a split."""
        assert isinstance(data, TranslationData)
        found = super().evaluate(model, data, split)
        found[f"{split}_perplexity"] = math.exp(min(found.pop(f"{split}_nats"), 700.0))
        if split != "train":
            beam = self.beam if split == "test" else 1
            made = translations(model, data, split, beam, self.length_penalty)
            found[f"{split}_bleu"] = bleu(made, data.references(split), data.bleu)
        return found

    def full_gradient_norm_sq(self, model: nn.Module, data: DataSet) -> float:
        """Not measured: the objective is a mean over tokens, so the split's is no mean over pairs.

        Raises:
            UserError: always.
        """
        raise UserError(
            "paper.measure_gradient=true: there is no such measure for translation (valid: false)"
        )


def translations(
    model: nn.Module, data: TranslationData, split: SplitName, beam: int, length_penalty: float
) -> list[str]:
    """The sources of a split in the other language, in their order.

    Args:
        model: in evaluation mode within it, and then as before.
        data, split: what is translated.
        beam, length_penalty: see `beam_search`; with a beam of 1 greedily.
    """
    batches = data.judged_batches(split)
    found = [""] * data.size(split)
    with evaluation_mode(model):
        for index in counted(batches, f"{JUDGING[split]}, translating", len(batches), "batches"):
            tokens = decoded(model, data.sources_of(split, index), beam, length_penalty)
            for place, sentence in zip(index.tolist(), tokens, strict=True):
                found[place] = data.text_of(sentence)
    return found


@torch.no_grad()
def decoded(model: nn.Module, source: Tensor, beam: int, length_penalty: float) -> list[list[int]]:
    """The tokens of translations of sources int64 [n, S], at most 50 more than the source has."""
    longest = (source != PAD).sum(1) + LONGER
    decoder = decoder_of(model)
    if beam == 1:
        return greedy(decoder, source, longest)
    return beam_search(decoder, source, longest, beam, length_penalty)
