"""Six real text tasks that need no download of their own.

Two are made of the documentation strings of Python's standard library, as its source files have them; two
of the Penn Treebank and two of WikiText-2, which lie in `data_dir` where `dataset=ptb` and
`dataset=wikitext2` are used. What gives a label away is taken out of the text.

    docs_module   of which of 12 modules is a function documented?
    docs_kind     does a text document a module, a class, a function or a method?
    ptb_numbers   did a sentence have no, one or more numbers (which are taken out)?
    ptb_unknown   did a sentence have a rare word (which is taken out)?
    wiki_article  of which of 20 long articles is a paragraph?
    wiki_section  in which of the 6 most frequent kinds of section does a paragraph stand?
"""

import ast
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from common.base.errors import UserError
from common.data.text.ptb import PennTreebank
from common.data.text.text_data import EOS
from common.data.text.wikitext import WikiText2
from papers.transfer_automl.text_sources import Labelled

MODULES, ARTICLES, SECTIONS = 12, 20, 6
# shorter texts say too little
SHORTEST = 30
HEADING = re.compile(r"^(=(?: =)*) (.+?) \1$")


@cache
def documented() -> list[tuple[str, str, str]]:
    """(module, kind, text) of every documentation string of the standard library's top level files."""
    folder = Path(sysconfig.get_path("stdlib"))
    found: list[tuple[str, str, str]] = []
    for path in sorted(folder.glob("*.py")):
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            continue
        found += [(path.stem, kind, text) for kind, text in _strings(tree)]
    if not found:
        raise UserError(
            f"dataset.tasks: {folder} has no source files of the standard library (valid: a full Python, or "
            "dataset=text_table, which holds the results)"
        )
    return found


def _strings(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """What documents a module and what it defines, with what kind of thing that is."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    within = [child for node in ast.walk(tree) if isinstance(node, ast.ClassDef) for child in node.body]
    methods = {id(child) for child in within}
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | functions[0] | functions[1]):
            text = ast.get_docstring(node)
            if isinstance(node, functions):
                kind = "method" if id(node) in methods else "function"
            else:
                kind = "module" if isinstance(node, ast.Module) else "class"
            if text is not None and len(text) >= SHORTEST:
                yield kind, text


def docs_module(data_dir: Path) -> Labelled:
    """Functions and methods of the modules with most of them; the module's name is taken out."""
    rows = [(module, text) for module, kind, text in documented() if kind in ("function", "method")]
    chosen = _commonest([module for module, _ in rows], MODULES)
    return [
        (re.sub(re.escape(module.strip("_")), " ", text, flags=re.IGNORECASE), module)
        for module, text in rows
        if module in chosen
    ]


def docs_kind(data_dir: Path) -> Labelled:
    """All of them, their first 200 characters, so that the length tells less."""
    return [(text[:200], kind) for _, kind, text in documented()]


@cache
def _sentences(data_dir: Path) -> list[list[str]]:
    words = _read(PennTreebank, data_dir)
    return [line.split() for line in " ".join(words).split(EOS) if len(line) >= SHORTEST]


def ptb_numbers(data_dir: Path) -> Labelled:
    """The Treebank writes N for each number."""
    return [
        (" ".join(w for w in line if w != "N"), str(min(line.count("N"), 2))) for line in _sentences(data_dir)
    ]


def ptb_unknown(data_dir: Path) -> Labelled:
    """And <unk> for each word that is not among its 10,000."""
    return [
        (" ".join(w for w in line if w != "<unk>"), str(int("<unk>" in line)))
        for line in _sentences(data_dir)
    ]


@cache
def _paragraphs(data_dir: Path) -> list[tuple[str, str, str]]:
    """(article, section, text); the section is the heading of the second level, "" before the first."""
    found, article, section = [], "", ""
    for line in " ".join(_read(WikiText2, data_dir)).split(EOS):
        heading = HEADING.match(line.strip())
        if heading is not None:
            depth = heading[1].count("=")
            article, section = (heading[2], "") if depth == 1 else (article, section)
            section = heading[2] if depth == 2 else section
        elif len(line) >= SHORTEST:
            found.append((article, section, line.strip()))
    return found


def wiki_article(data_dir: Path) -> Labelled:
    """The articles with most paragraphs; words of the title are taken out."""
    rows = _paragraphs(data_dir)
    chosen = _commonest([article for article, _, _ in rows], ARTICLES)
    return [
        (" ".join(w for w in text.split() if w not in article.split()), article)
        for article, _, text in rows
        if article in chosen
    ]


def wiki_section(data_dir: Path) -> Labelled:
    """The commonest headings of the second level."""
    rows = [(section, text) for _, section, text in _paragraphs(data_dir) if section]
    chosen = _commonest([section for section, _ in rows], SECTIONS)
    return [(text, section) for section, text in rows if section in chosen]


def _commonest(names: list[str], count: int) -> set[str]:
    """The names that come most often, unknown ones left out; of equal ones the first in the alphabet."""
    counts = Counter(name for name in names if "<unk>" not in name)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {name for name, _ in ranked[:count]}


def _read(kind: type[PennTreebank] | type[WikiText2], data_dir: Path) -> list[str]:
    data = kind(
        kind="language_modelling",
        data_dir=str(data_dir),
        source="real",
        limit=None,
        verify=True,
        batch_size=1,
        bptt=1,
    )
    return data.read()["train"]


LOCAL = {
    "docs_module": docs_module,
    "docs_kind": docs_kind,
    "ptb_numbers": ptb_numbers,
    "ptb_unknown": ptb_unknown,
    "wiki_article": wiki_article,
    "wiki_section": wiki_section,
}
