"""Questions upon Python's standard library that are made by rules: real text that needs no network.

Ours, and no reading comprehension as people ask for it. A passage is what three neighbouring functions and
classes of a module say of themselves: their signatures and the first sentences of their docstrings. Questions
are of six forms (what one does, which one does something, which default an argument has, which argument is
first, which follows another one, which class one derives from), and where their answers stand is known from
the syntax tree. To answer, a network must find what the question names in the passage, and there the answer.
"""

import ast
import re
import sysconfig
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.questions.passages import WORD, Asked, Passage, Question, Splits, snapped
from common.data.questions.question_data import QuestionData

# of a file, in bytes; functions and classes of a passage; questions of a passage; passages of a file
LARGEST_FILE, ITEMS, OF_A_PASSAGE, OF_A_FILE = 80_000, 3, 6, 40
# words of a passage, of a first sentence and of an answer
LONGEST_PASSAGE, SENTENCE, ANSWER = 120, (3, 20), 20
# words of a sentence that a question quotes
QUOTED = 5
# what counts as no word of an answer when it is judged
ARTICLES = {"a", "an", "the"}


class PythonQuestions(QuestionData):
    """Up to six questions on each of up to 40 passages from each file at the top of the standard library.

    Of ten files in alphabetical order seven are for training, one for validation and two for testing;
    passages that stand in training too are left out of what is judged. The text, and with it the sizes,
    depend on the version of Python.

    Raises:
        UserError: this Python comes without its sources.
    """

    NAME: ClassVar = "python_questions"

    @property
    def train_size(self) -> int:
        return len(asked_of_python()["train"].questions)

    def read(self) -> Splits:
        """The three splits."""
        return dict(asked_of_python())


class Item(NamedTuple):
    """A function or a class, and what can be asked of it.

    Attributes:
        name: of it.
        text: its signature and its sentence.
        sentence: where its sentence stands in its text, without the full stop.
        arguments: where the names of its arguments stand, without self and cls.
        defaults: where they stand, by the number of the argument.
        bases: where the names of its bases stand.
    """

    name: str
    text: str
    sentence: tuple[int, int]
    arguments: list[tuple[int, int]]
    defaults: dict[int, tuple[int, int]]
    bases: list[tuple[int, int]]


@cache
def asked_of_python() -> Splits:
    """The questions of each split."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size <= LARGEST_FILE]
    found: Splits = {"train": Asked(), "validation": Asked(), "test": Asked()}
    for number, path in enumerate(files):
        split: SplitName = "validation" if number % 10 == 7 else "test" if number % 10 > 7 else "train"
        try:
            passages = list(islice(asked(path.read_text(encoding="utf-8"), path.stem), OF_A_FILE))
        except (SyntaxError, ValueError):
            continue
        for passage, questions in passages:
            _add(found[split], passage, questions)
    known = {passage.text for passage in found["train"].passages}
    for split in ("validation", "test"):
        asks = found[split]
        kept = [
            place for place, one in enumerate(asks.questions) if asks.passages[one.passage].text not in known
        ]
        found[split] = asks.take(kept)
    if not all(asks.questions for asks in found.values()):
        raise UserError(
            f"dataset=python_questions: {folder} has no source files of the standard library (valid: a full "
            "Python, or dataset=squad)"
        )
    return found


def _add(asks: Asked, passage: Passage, questions: list[Question]) -> None:
    number = len(asks.passages)
    asks.passages.append(passage)
    asks.questions += [Question(one.name, one.text, number, one.answers, one.span) for one in questions]


def asked(source: str, module: str) -> Iterator[tuple[Passage, list[Question]]]:
    """The passages of a source file with their questions, whose `passage` is 0.

    Raises:
        SyntaxError: it is no Python.
    """
    items = list(_items(ast.parse(source)))
    for start in range(0, len(items), ITEMS):
        # of two with one name neither could be asked for by it
        group = list({item.name: item for item in items[start : start + ITEMS]}.values())
        passage = Passage.of(" ".join(item.text for item in group), module)
        if len(passage.places) > LONGEST_PASSAGE:
            continue
        made = list(_questions(passage, group, f"{module}.{start // ITEMS}"))
        count = min(OF_A_PASSAGE, len(made))
        if count:
            yield passage, [made[n * len(made) // count] for n in range(count)]


def _items(tree: ast.Module) -> Iterator[Item]:
    """The documented functions, methods and classes, in the order of the file; not those within functions."""
    for node in _definitions(tree):
        sentence = _sentence(ast.get_docstring(node) or "")
        if SENTENCE[0] <= len(WORD.findall(sentence)) <= SENTENCE[1]:
            yield _class(node, sentence) if isinstance(node, ast.ClassDef) else _function(node, sentence)


def _definitions(
    tree: ast.Module | ast.ClassDef,
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield node
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node)


def _sentence(text: str) -> str:
    """The first sentence of a docstring, without its full stop."""
    first = " ".join(text.split("\n\n")[0].split())
    return re.split(r"[.:;](?:\s|$)", first)[0]


class _Writer:
    """Text that is put together, with where its parts stand."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, part: str) -> tuple[int, int]:
        start = len(self.text)
        self.text += part
        return start, len(self.text)


def _class(node: ast.ClassDef, sentence: str) -> Item:
    written, bases = _Writer(), []
    written.add(f"class {node.name}(" if node.bases else f"class {node.name}")
    for number, base in enumerate(node.bases):
        written.add(", " if number else "")
        bases.append(written.add(ast.unparse(base)))
    written.add("): " if node.bases else ": ")
    place = written.add(sentence)
    written.add(".")
    return Item(node.name, written.text, place, [], {}, bases)


def _function(node: ast.FunctionDef | ast.AsyncFunctionDef, sentence: str) -> Item:
    written, names, defaults = _Writer(), [], {}
    written.add(f"def {node.name}(")
    plain = [*node.args.posonlyargs, *node.args.args]
    given: list[ast.expr | None] = [None] * (len(plain) - len(node.args.defaults))
    pairs = [*zip(plain, [*given, *node.args.defaults], strict=True)]
    pairs += zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    for number, (argument, default) in enumerate(pairs):
        written.add(", " if number else "")
        place = written.add(argument.arg)
        if argument.arg not in ("self", "cls"):
            names.append(place)
        if default is not None:
            written.add("=")
            defaults[len(names) - 1] = written.add(ast.unparse(default))
    written.add("): ")
    place = written.add(sentence)
    written.add(".")
    return Item(node.name, written.text, place, names, defaults, [])


def _questions(passage: Passage, items: list[Item], name: str) -> Iterator[Question]:
    """All questions upon a passage that have an answer of words."""
    offset, number = 0, 0
    for item in items:
        for text, (start, end) in _forms(item):
            answer = passage.text[offset + start : offset + end]
            found = snapped(passage.places, offset + start, offset + end)
            words = WORD.findall(answer)
            judged = any(word.isalnum() and word.lower() not in ARTICLES for word in words)
            if found is not None and not found.outward and judged and len(words) <= ANSWER:
                yield Question(f"{name}.{number}", text, 0, (answer,), found.span)
                number += 1
        offset += len(item.text) + 1


def _forms(item: Item) -> Iterator[tuple[str, tuple[int, int]]]:
    """What can be asked of a function or a class, and where in its text the answer stands."""
    text, called = item.text, item.text.index(" ") + 1
    sentence = text[slice(*item.sentence)]
    yield f"What does {item.name} do?", item.sentence
    quoted = " ".join(sentence.split()[-QUOTED:])
    yield f"Which one has to do with {quoted}?", (called, called + len(item.name))
    for number, place in item.defaults.items():
        argument = text[slice(*item.arguments[number])]
        yield f"Which default has {argument} in {item.name}?", place
    if item.arguments:
        yield f"Which argument of {item.name} is the first?", item.arguments[0]
    for before, after in zip(item.arguments, item.arguments[1:], strict=False):
        yield f"Which argument of {item.name} comes after {text[slice(*before)]}?", after
    if item.bases:
        yield f"Which class does {item.name} derive from?", item.bases[0]
