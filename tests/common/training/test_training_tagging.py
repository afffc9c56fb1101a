"""Taggers are trained by the probability of whole sequences, or word by word, and judged by spans."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.kinds import TASKS
from common.data.tagging.schemes import SpanCounts
from common.models.char_lstm_crf import CharLstmCrf
from common.models.crf import ConditionalRandomField
from common.training.tagging import Tagging
from common.training.task_of import task_of

Make = Callable[..., Any]


@pytest.fixture
def data(make: Make) -> Any:
    found = make("python_tags", source="synthetic", limit=30)
    found.setup()
    return found


class WordByWord(nn.Module):
    """Scores of a word by its number alone."""

    task = "tagging"

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.table = nn.Embedding(60, tags)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.table(inputs[:, :, 0])


def small(data: Any) -> CharLstmCrf:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"words": 20_000, "word_size": 4, "char_size": 4, "filters": 3, "hidden": 4}
    return CharLstmCrf(shape=data.shape, classes=data.classes, dropout=0.0, **sizes)


def test_the_loss_is_the_mean_over_sentences_however_they_are_batched(data: Any) -> None:
    for model in (small(data), WordByWord(data.classes)):
        task = Tagging.of(model, data)
        whole = task.evaluate(model, data, "test")
        inputs, targets = data.batch("test", slice(None), augment=False)
        alone = [
            task.loss(model, *data.batch("test", torch.tensor([n]), augment=False))
            for n in range(data.size("test"))
        ]
        assert whole["test_loss"] == pytest.approx(float(torch.stack(alone).mean().detach()), rel=1e-5)
        assert float(task.loss(model, inputs, targets).detach()) == pytest.approx(
            whole["test_loss"], rel=1e-5
        )


def test_measures_are_those_of_all_sentences_together(data: Any) -> None:
    model = small(data)
    counts, right, words = SpanCounts(), 0, 0
    for n, sentence in enumerate(data.sentences("test")):
        inputs, _ = data.batch("test", torch.tensor([n]), augment=False)
        best = model.crf.decode(model(inputs), torch.tensor([len(sentence.words)]))[0]
        given = [data.tags[tag] for tag in best.tolist()]
        counts.update(given, sentence.tags)
        right += sum(a == b for a, b in zip(given, sentence.tags, strict=True))
        words += len(given)
    found = Tagging.of(model, data).evaluate(model, data, "test")
    assert found["test_f1"] == counts.f1() and found["test_recall"] == counts.recall()
    assert found["test_precision"] == counts.precision()
    assert found["test_accuracy"] == pytest.approx(right / words)


@pytest.mark.parametrize("chain", [True, False])
def test_what_can_be_learned_is_learned(data: Any, chain: bool) -> None:
    model = small(data) if chain else WordByWord(data.classes)
    task = task_of(model, data, "sum")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    inputs, targets = data.batch("train", slice(None), augment=False)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, inputs, targets).backward()
        optimizer.step()
    assert task.evaluate(model, data, "train")["train_f1"] > 0.98


def test_without_a_chain_words_are_told_apart_by_their_cross_entropy(data: Any) -> None:
    model = WordByWord(data.classes)
    inputs, targets = data.batch("test", torch.tensor([3]), augment=False)
    wanted = -model(inputs)[0].log_softmax(1)[torch.arange(targets.shape[1]), targets[0]].sum()
    assert torch.allclose(Tagging.of(model, data).loss(model, inputs, targets), wanted)
    chain = ConditionalRandomField(data.classes)
    for parameter in chain.parameters():
        nn.init.zeros_(parameter)
    # a chain without scores of neighbours is the same
    assert torch.allclose(chain(model(inputs), targets, torch.tensor([targets.shape[1]])), wanted)


def test_a_table_of_words_that_is_too_small_and_data_without_tags_are_one_line(data: Any, make: Make) -> None:
    model = small(data)
    model.words = 100
    with pytest.raises(UserError, match=r"model.words=100: .*model.words=20000, or dataset.words=100"):
        task_of(model, data, "sum")
    with pytest.raises(UserError, match="dataset: digits has no tags"):
        task_of(small(data), make("digits"), "sum")
    assert TASKS["sequence_tagging"][0] == "tagging"
