"""README and the pages of docs/: their chapters and the commands in them, for the tests that try these."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def chapter(heading: str) -> str:
    """The text below a heading of any level, to the next one of its level or above; it stands in one page.

    Raises:
        ValueError: no page has the heading, or more than one.
    """
    found = [text for page in PAGES for title, text in chapters(page.read_text()) if title == heading]
    if len(found) != 1:
        raise ValueError(f"{len(found)} chapters {heading!r}")
    return found[0]


def chapters(text: str) -> list[tuple[str, str]]:
    """All headings of a page outside its code, each with the text below it."""
    lines, fenced, heads = text.splitlines(keepends=True), False, []
    for place, line in enumerate(lines):
        fenced ^= line.startswith("```")
        if not fenced and (found := re.match(r"(#+) (.*)", line)):
            heads.append((place, len(found[1]), found[2].strip()))
    ends = [
        next((later for later, other, _ in heads[index + 1 :] if other <= level), len(lines))
        for index, (_, level, _) in enumerate(heads)
    ]
    return [
        (title, "".join(lines[place + 1 : end])) for (place, _, title), end in zip(heads, ends, strict=True)
    ]


def commands(program: str, text: str | None = None) -> list[str]:
    """The lines of code that call a program, `python run.py` say, of all pages or a text, each once.

    What stands behind two spaces and a hash is said beside the command, and left out; a line that ends with a
    backslash goes on.
    """
    texts = [page.read_text() for page in PAGES] if text is None else [text]
    lines = [line for one in texts for line in one.replace("\\\n", " ").splitlines()]
    found = [line.split("  #")[0].strip() for line in lines if re.match(rf"{re.escape(program)}( |$)", line)]
    return list(dict.fromkeys(found))


def blocks(language: str, text: str) -> list[str]:
    """The blocks of code of a text in a language."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
