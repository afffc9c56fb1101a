"""Questions in numbers: batches, vocabularies, parts without leaks, vectors of words; what is refused."""

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from common.base.dataset import Origin
from common.base.errors import UserError
from common.base.passages import BETWEEN, disjoined
from common.data.questions.passages import Asked, Passage
from common.data.questions.python_questions import asked
from common.data.questions.squad import parted_in_order

Make = Callable[..., Any]


def content(articles: int = 1, paragraphs: int = 20, extra: str = "") -> dict[str, Any]:
    found = []
    for article in range(articles):
        nodes = []
        for number in range(paragraphs):
            context = f"Anna{article} met Bob in Ulm {number} times{' again' * (number % 3)}.{extra}"
            asks = [("Who?", "Bob"), ("Whom did Bob meet?", f"Anna{article}")]
            qas = [
                {
                    "id": f"{article}.{number}.{place}",
                    "question": text,
                    "answers": [{"text": wanted, "answer_start": context.index(wanted)}],
                }
                for place, (text, wanted) in enumerate(asks)
            ]
            nodes.append({"context": context, "qas": qas})
        found.append({"title": f"A{article}", "paragraphs": nodes})
    return {"data": found}


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(content()))
    return path


def spelled(word: str) -> list[int]:
    return [byte + 1 for byte in word.encode()]


def test_passage_and_question_stand_side_by_side_in_numbers_and_letters(make: Make, own: Path) -> None:
    data = make("question_file", path=str(own), words=8, longest=4)
    data.setup()
    assert (data.size("train"), data.size("validation"), data.size("test")) == (32, 4, 4)
    inputs, targets = data.batch("train", torch.tensor([0, 5]), augment=False)
    passages, questions = disjoined(inputs)
    assert inputs.shape == (2, 10 + 1 + 5, 1 + 4) and targets.tolist() == [[2, 2], [0, 0]]
    assert passages.shape[1] == 10 and inputs[:, 10, 0].tolist() == [BETWEEN, BETWEEN]
    # "Anna0 met Bob in Ulm 0 times." is shorter by two, its question by three
    assert passages[0, 8:].eq(0).all() and questions[0, 2:].eq(0).all() and passages[0, :8].ne(0).any(1).all()
    bob = 3 + data.vocabulary.index("bob")
    assert passages[0, 2].tolist() == [bob, *spelled("Bob"), 0]
    # of a word the first bytes are read
    assert passages[0, 0, 1:].tolist() == spelled("Anna")
    assert data.vocabulary == [word.lower() for word in data.vocabulary] and len(data.vocabulary) == 5
    assert any("words of more than 4 bytes" in what for what in data.repairs)


def test_every_question_is_in_an_epoch_once(make: Make, own: Path) -> None:
    data = make("question_file", path=str(own), batch_size=5)
    data.setup()
    loader = data.loader(seed=1)
    blocks = islice(loader, loader.steps_per_epoch)
    batches = [data.ready(item) for block in blocks for item in block]

    def rows(inputs: torch.Tensor) -> list[tuple[int, ...]]:
        return [tuple(row[row != 0].tolist()) for row in inputs.flatten(1)]

    drawn = sorted(row for inputs, _ in batches for row in rows(inputs))
    assert drawn == sorted(rows(data.batch("train", slice(None), augment=False)[0])) and len(drawn) == 32


def test_a_limit_draws_by_the_seed_and_long_questions_are_left_out_and_counted(make: Make, own: Path) -> None:
    first, second = (make("question_file", path=str(own), limit=6, seed=seed) for seed in (0, 1))
    for one in (first, second):
        one.setup()
    assert first.size("train") == 6 and first.references("test") == second.references("test")
    assert [q.name for q in first.asked("train").questions] != [
        q.name for q in second.asked("train").questions
    ]
    assert len(first.asked("train").passages) <= 6
    with pytest.raises(UserError, match=r"dataset.limit=33: question_file has 32 training questions"):
        make("question_file", path=str(own), limit=33).setup()
    short = make("question_file", path=str(own), longest_question=2, longest_passage=9)
    short.setup()
    (left,) = (count for what, count in short.repairs.items() if "left out" in what)
    assert short.size("train") == 32 - left and short.size("test") == 4
    assert all(len(q.words()) <= 2 for q in short.asked("train").questions)
    with pytest.raises(
        UserError, match=r"longest_question=1: no training question of question_file is as short"
    ):
        make("question_file", path=str(own), longest_question=1).setup()


@pytest.mark.parametrize(("articles", "paragraphs"), [(1, 20), (20, 3), (3, 10)])
def test_no_passage_and_of_many_articles_no_article_is_in_two_parts(articles: int, paragraphs: int) -> None:
    found = Asked()
    for node in content(articles, paragraphs)["data"]:
        for paragraph in node["paragraphs"]:
            found.passages.append(Passage.of(paragraph["context"], node["title"]))
            found.questions += [
                _question(len(found.passages) - 1, one["question"]) for one in paragraph["qas"]
            ]
    parts = parted_in_order(found, "mine")
    texts = [{passage.text for passage in part.passages} for part in parts.values()]
    titles = [{passage.source for passage in part.passages} for part in parts.values()]
    assert all(texts) and sum(map(len, texts)) == len(set.union(*texts))
    if articles >= 10:
        assert sum(map(len, titles)) == articles
    sizes = [len(part.questions) for part in parts.values()]
    assert sum(sizes) == len(found.questions) and sizes[0] >= 0.75 * sum(sizes)


def _question(passage: int, text: str) -> Any:
    from common.data.questions.passages import Question

    return Question("q", text, passage, ("x",), (0, 0))


def test_a_trained_networks_words_keep_their_numbers_and_another_file_is_all_judged(
    make: Make, own: Path, tmp_path: Path
) -> None:
    trained = make("question_file", path=str(own))
    facts = trained.facts()
    other = tmp_path / "new.json"
    other.write_text(json.dumps(content(1, 2, " Karl saw it.")))
    judged = make("question_file", path=str(other), origin=Origin(facts, None))
    judged.adopt(facts)
    assert judged.size("test") == 4 and judged.tested() == f"all questions of {other}"
    inputs, _ = judged.batch("test", slice(None), augment=False)
    bob = 3 + trained.vocabulary.index("bob")
    assert inputs[0, 2, 0] == bob and (disjoined(inputs)[0][:, :, 0] == 1).sum() > 0
    assert not judged.has_validation


def test_a_folder_has_its_three_files(make: Make, tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.json").write_text(json.dumps(content(1, 3)))
    data = make("question_file", path=str(tmp_path))
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [6, 6, 6]
    assert data.tested().endswith("test.json")
    (note,) = [what for what in data.repairs if what.startswith("test passages that stand in training too")]
    assert data.repairs[note] == 3 and "'Anna0 met Bob in Ulm 0 times." in note
    (tmp_path / "test.json").unlink()
    with pytest.raises(UserError, match="No such file"):
        other = make("question_file", path=str(tmp_path), verify=False)
        other.setup()


def test_a_long_passage_makes_its_batch_a_smaller_one(make: Make, tmp_path: Path) -> None:
    for name in ("train", "dev", "test"):
        node = content(1, 3)
        if name == "test":
            node["data"][0]["paragraphs"][1]["context"] += " and again" * 8_000
        (tmp_path / f"{name}.json").write_text(json.dumps(node))
    data = make("question_file", path=str(tmp_path))
    sizes = [inputs.shape[0] for inputs, _ in data.batches("test", 60)]
    assert sizes == [2, 1, 1, 2]


def test_what_is_no_own_file_is_one_line(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give your file"):
        make("question_file")
    with pytest.raises(UserError, match="no such file or folder"):
        make("question_file", path=str(tmp_path / "none"))
    (tmp_path / "few.json").write_text(json.dumps(content(1, 9)))
    with pytest.raises(UserError, match=r"it has 9 passages .valid: at least 10"):
        make("question_file", path=str(tmp_path / "few.json")).setup()


def test_squad_is_read_from_where_a_line_says(make: Make, tmp_path: Path) -> None:
    data = make("squad")
    assert (data.TRAIN_SIZE, data.TEST_SIZE) == (87_599, 10_570)
    told = "train-v1.1.json is missing: put https.*dataset.train_file=.*dataset=python_questions"
    with pytest.raises(UserError, match=told) as caught:
        data.setup()
    assert "\n" not in str(caught.value)
    (tmp_path / "squad").mkdir()
    for name in ("train-v1.1", "dev-v1.1", "other"):
        (tmp_path / "squad" / f"{name}.json").write_text(json.dumps(content(10, 2)))
    with pytest.raises(UserError, match="40 questions instead of 87599"):
        data.setup()
    data = make("squad", train_file="other.json", verify=False, validation=0.2)
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [32, 8, 40]
    assert not {p.source for p in data.asked("train").passages} & {
        p.source for p in data.asked("validation").passages
    }
    whole = make("squad", verify=False)
    whole.setup()
    assert whole.size("train") == 40 and not whole.has_validation
    with pytest.raises(UserError, match=r"dataset.validation=1"):
        make("squad", validation=1.0)


def test_synthetic_questions_need_no_file(make: Make) -> None:
    data = make("squad", source="synthetic", limit=20)
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [20, 64, 64]
    spans = [question.span for question in data.asked("test").questions]
    assert [(said,) for said in data.said("test", spans)] == data.references("test")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("words", 3), ("kept_from", 0), ("longest", 0), ("batch_size", 0), ("limit", 0), ("kind", "x")],
        *[("longest_passage", 0), ("longest_question", 0)],
    ],
)
def test_bad_settings_are_one_line(make: Make, key: str, value: Any) -> None:
    with pytest.raises(UserError, match=f"dataset.{key}={value}"):
        make("python_questions", **{key: value})


# --- vectors of words -------------------------------------------------------------------------------------


def test_vectors_are_those_of_the_first_words_of_the_file(make: Make, own: Path, tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text("3 2\nthe 1 2\nbob -0.5 4e-1\n. . 7 8\n")
    data = make("question_file", path=str(own), vectors=str(path))
    assert data.word_vectors().shape == (3, 2) and data.sources()["vectors"] == path
    data.setup()
    inputs, _ = data.batch("train", torch.tensor([0]), augment=False)
    # in the file's order, and what it has not is unknown
    assert inputs[0, :4, 0].tolist() == [1, 1, 4, 1]


# --- questions upon Python --------------------------------------------------------------------------------

SOURCE = '''
class Net(base.Socket, Mixin):
    """A socket that counts. More of it."""

    def send(self, data: bytes, flags=0, *, retry=None):
        """Send all data with
        the given flags.

        Not this.
        """

    def bare(self): pass


async def d(a=(1, "x")):
    """Wait for nothing at all"""
'''


def test_signatures_and_first_sentences_are_asked_for_by_their_syntax() -> None:
    ((passage, questions),) = asked(SOURCE, "net")
    assert passage.text == (
        "class Net(base.Socket, Mixin): A socket that counts. "
        "def send(self, data, flags=0, retry=None): Send all data with the given flags. "
        "def d(a=(1, 'x')): Wait for nothing at all."
    )
    assert len(questions) == 6
    for question in questions:
        assert (passage.said(question.span),) == question.answers
    every = _all_of(SOURCE)
    assert every["What does Net do?"] == "A socket that counts"
    assert every["Which one has to do with data with the given flags?"] == "send"
    assert (
        every["Which default has retry in send?"] == "None"
        and every["Which default has flags in send?"] == "0"
    )
    assert every["Which argument of send is the first?"] == "data"
    assert every["Which argument of send comes after flags?"] == "retry"
    assert every["Which class does Net derive from?"] == "base.Socket"
    assert every["Which one has to do with Wait for nothing at all?"] == "d"
    # nothing is left of an article where answers are compared
    assert "Which argument of d is the first?" not in every


def _all_of(source: str) -> dict[str, str]:
    import ast

    from common.data.questions.python_questions import _items, _questions

    items = list(_items(ast.parse(source)))
    passage = Passage.of(" ".join(item.text for item in items), "m")
    return {one.text: one.answers[0] for one in _questions(passage, items, "m")}


def test_there_is_enough_of_python_and_its_modules_are_in_one_part_each(make: Make) -> None:
    data = make("python_questions")
    data.setup()
    assert data.size("train") > 2000 and data.size("validation") > 100 and data.size("test") > 100
    parts = [data.asked(split) for split in ("train", "validation", "test")]
    modules = [{passage.source for passage in part.passages} for part in parts]
    texts = [{passage.text for passage in part.passages} for part in parts]
    for found in (modules, texts):
        assert sum(map(len, found)) == len(set.union(*found))
    for part in parts:
        for one in part.questions:
            assert (part.passages[one.passage].said(one.span),) == one.answers
