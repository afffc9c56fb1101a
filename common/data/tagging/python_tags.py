"""Statements of Python's standard library, their names and strings tagged: real text that needs no network.

Ours: entities are `function` (the name in a definition, and what is called), `class` (the name in a
definition, and its bases), `module` (dotted names that are imported) and `string` (a literal with its
quotes). What they are comes from the syntax tree; words are those of `tokenize`, strings cut into runs of
letters and single marks.
"""

import ast
import io
import re
import sysconfig
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.tagging.schemes import Scheme, Span, tags_of
from common.data.tagging.tagged_file import Sentence
from common.data.tagging.tagging_data import Splits, TaggingData

# of a statement, in words; of a file, in bytes; statements that are taken of a file
SHORTEST, LONGEST, LARGEST_FILE, OF_A_FILE = 2, 60, 15_000, 60
WORD = re.compile(r"\w+|[^\w\s]")
SKIPPED = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}

# where a name begins: line from 1, column in characters
Place = tuple[int, int]


class PythonTags(TaggingData):
    """Up to 60 statements of 2 to 60 words from each short file at the top of the standard library.

    Of ten files in alphabetical order eight are for training, one for validation and one for testing. The
    text, and with it the sizes, depend on the version of Python: about 3,200 training sentences with 3.11.

    Raises:
        UserError: this Python comes without its sources.
    """

    NAME: ClassVar = "python_tags"
    TYPES: ClassVar = ("function", "class", "module", "string")
    CLASSES: ClassVar = 9

    @property
    def train_size(self) -> int:
        return len(statements(self.scheme)["train"])

    def read(self) -> Splits:
        """The three splits, without the few sentences that have a word of more than `longest` bytes."""
        found = statements(self.scheme)
        kept: Splits = {
            split: [one for one in sentences if all(len(word.encode()) <= self.longest for word in one.words)]
            for split, sentences in found.items()
        }
        if dropped := sum(len(found[split]) - len(kept[split]) for split in found):
            self.repairs[f"sentences with a word of more than {self.longest} bytes, left out"] = dropped
        return kept


@cache
def statements(scheme: Scheme) -> dict[SplitName, list[Sentence]]:
    """The sentences of each split."""
    folder = Path(sysconfig.get_path("stdlib"))
    files = [path for path in sorted(folder.glob("*.py")) if path.stat().st_size <= LARGEST_FILE]
    found: dict[SplitName, list[Sentence]] = {"train": [], "validation": [], "test": []}
    for number, path in enumerate(files):
        split: SplitName = "validation" if number % 10 == 8 else "test" if number % 10 == 9 else "train"
        try:
            sentences = list(tagged(path.read_text(encoding="utf-8"), scheme))
        except (SyntaxError, ValueError, tokenize.TokenError):
            continue
        count = min(OF_A_FILE, len(sentences))
        found[split] += [sentences[n * len(sentences) // count] for n in range(count)]
    if not all(found.values()):
        raise UserError(
            f"dataset=python_tags: {folder} has no source files of the standard library (valid: a full "
            "Python, or dataset=conll2003)"
        )
    return found


def tagged(source: str, scheme: Scheme) -> Iterator[Sentence]:
    """The statements of a source file, each a line of code without its comments, that are neither too long
    nor too short.

    Raises:
        SyntaxError: it is no Python.
    """
    used = _used(source)
    for line in _lines(source):
        kinds = _defined(line)
        words: list[str] = []
        spans: list[Span] = []
        for token, defined in zip(line, kinds, strict=True):
            is_string = token.type == tokenize.STRING
            pieces = WORD.findall(token.string) if is_string else [token.string]
            kind = "string" if is_string else defined or used.get(token.start)
            if kind is not None and pieces:
                goes_on = (
                    kind == "module" and spans and spans[-1].type == kind and spans[-1].last == len(words) - 1
                )
                first = spans.pop().first if goes_on else len(words)
                spans.append(Span(kind, first, len(words) + len(pieces) - 1))
            words += pieces
        if SHORTEST <= len(words) <= LONGEST:
            yield Sentence(tuple(words), tuple(tags_of(spans, len(words), scheme)))


def _lines(source: str) -> Iterator[list[tokenize.TokenInfo]]:
    """The tokens of each logical line."""
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            yield line
            line = []
        elif token.type not in SKIPPED:
            line.append(token)


def _used(source: str) -> dict[Place, str]:
    """What is called, and what classes are made from, by where its (last) name begins."""
    tree, lines = ast.parse(source), source.split("\n")
    found: dict[Place, str] = {}

    def note(node: ast.expr, kind: str) -> None:
        if isinstance(node, ast.Name | ast.Attribute):
            assert node.end_lineno is not None and node.end_col_offset is not None
            # the tree counts bytes, tokens count characters
            before = lines[node.end_lineno - 1].encode()[: node.end_col_offset].decode()
            name = node.id if isinstance(node, ast.Name) else node.attr
            found.setdefault((node.end_lineno, len(before) - len(name)), kind)

    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for base in node.bases:
                note(base, "class")
        elif isinstance(node, ast.Call):
            note(node.func, "function")
    return found


def _defined(line: list[tokenize.TokenInfo]) -> list[str | None]:
    """Of each token of a line what it is by its place: defined by `def` or `class`, or a part of a module."""
    found: list[str | None] = []
    state = line[0].string if line else ""
    for place, token in enumerate(line):
        word, before = token.string, line[place - 1].string if place else ""
        kind = None
        if (state == "import" and place and word not in (",", "as")) or (
            state == "from" and place and word != "import"
        ):
            kind = "module"
        elif before in ("def", "class") and token.type == tokenize.NAME:
            kind = "function" if before == "def" else "class"
        found.append(kind)
        # behind `as`, and behind the `import` of a `from`, stand no modules
        if state == "import" and word == "as":
            state = "alias"
        elif state == "alias" and word == ",":
            state = "import"
        elif state == "from" and word == "import":
            state = "names"
    return found
