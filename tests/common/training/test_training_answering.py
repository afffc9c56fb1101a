"""Readers are trained by the first and last words of answers, and judged by the texts of the best spans."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.kinds import TASKS
from common.base.passages import disjoined
from common.metrics.answers import exact_match, f1
from common.models.bidaf import best_spans
from common.runs.own_model import checked
from common.training.answering import Answering, AnswersQuestions, Reader
from common.training.task_of import task_of

Make = Callable[..., Any]
SIZES: dict[str, Any] = {"words": 60, "word_size": 12, "char_size": 4, "filters": 6, "hidden": 8}


@pytest.fixture
def data(make: Make) -> Any:
    found = make("python_questions", source="synthetic", limit=50, words=60)
    found.setup()
    return found


def small(data: Any, **keys: Any) -> Reader:
    torch.manual_seed(0)
    settings = SIZES | {"dropout": 0.0, "end": "attended", "longest_answer": 3} | keys
    return Reader(shape=data.shape, classes=None, **settings)


class ByNumber(AnswersQuestions, nn.Module):
    """Scores of a word by its number alone."""

    longest_answer = 2

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(60, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        numbers = disjoined(inputs)[0][:, :, 0]
        return self.table(numbers).transpose(1, 2).masked_fill((numbers == 0)[:, None], -torch.inf)


def test_the_loss_is_minus_the_log_probability_of_both_ends_averaged_over_questions(data: Any) -> None:
    for model in (small(data), ByNumber()):
        task = task_of(model, data, "sum")
        whole = task.evaluate(model, data, "test")
        inputs, targets = data.batch("test", slice(None), augment=False)
        chosen = model(inputs).log_softmax(2).gather(2, targets[:, :, None])
        wanted = float(-chosen.sum((1, 2)).mean().detach())
        assert float(task.loss(model, inputs, targets).detach()) == pytest.approx(wanted, rel=1e-5)
        assert whole["test_loss"] == pytest.approx(wanted, rel=1e-5)


def test_measures_are_those_of_the_texts_of_the_best_spans(data: Any) -> None:
    model = small(data)
    asked, em, words, right = data.asked("test"), 0.0, 0.0, 0
    for place, question in enumerate(asked.questions):
        inputs, _ = data.batch("test", torch.tensor([place]), augment=False)
        first, last = best_spans(model(inputs), 3)[0].tolist()
        assert first <= last < first + 3
        said = asked.passages[question.passage].said((first, last))
        em, words = em + exact_match(said, question.answers), words + f1(said, question.answers)
        right += (first, last) == question.span
    found = Answering.of(model, data).evaluate(model, data, "test")
    assert found["test_em"] == pytest.approx(100 * em / data.size("test"))
    assert found["test_f1"] == pytest.approx(100 * words / data.size("test"))
    assert found["test_span_accuracy"] == pytest.approx(right / data.size("test"))


def test_what_can_be_learned_is_learned(data: Any) -> None:
    model = small(data)
    task = task_of(model, data, "sum")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    inputs, targets = data.batch("train", slice(None), augment=False)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, inputs, targets).backward()
        optimizer.step()
    found = task.evaluate(model, data, "train")
    assert found["train_em"] > 90 and found["train_f1"] >= found["train_em"]


def test_what_does_not_fit_is_one_line(data: Any, make: Make, tmp_path: Path) -> None:
    model = small(data)
    model.words = 10
    with pytest.raises(UserError, match=r"model.words=10: .*model.words=60, or dataset.words=10"):
        task_of(model, data, "sum")
    with pytest.raises(UserError, match="dataset: digits has no questions"):
        task_of(small(data), make("digits"), "sum")
    assert TASKS["question_answering"] == ("own",)
    (tmp_path / "glove.txt").write_text("word1 1 2\nword2 3 4\n")
    given = make("python_questions", source="synthetic", words=60, vectors=str(tmp_path / "glove.txt"))
    with pytest.raises(UserError, match=r"model.word_size=12: .* have 2 numbers"):
        task_of(small(data), given, "sum")
    with pytest.raises(UserError, match=r"dataset.vectors: ByNumber takes no vectors"):
        task_of(ByNumber(), given, "sum")
    reader = small(data, word_size=2)
    task_of(reader, given, "sum")
    assert reader.vectors is not None and reader.vectors.tolist() == [[1.0, 2.0], [3.0, 4.0]]


def test_a_network_of_ones_own_is_tried_on_a_blank_passage(data: Any) -> None:
    for model, target in ((small(data), Reader), (ByNumber(), ByNumber)):
        assert checked(model, target, data, "question_answering") is model
