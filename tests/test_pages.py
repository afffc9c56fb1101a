"""README, the pages of docs/ and those of the papers: what they name is there, and their commands compose."""

import os
import re
import shlex
from functools import cache
from pathlib import Path

import pytest
from pages import PAGES, ROOT, chapter, chapters, commands

from common.claims.cli import chosen
from common.runs.compose import compose

WRITTEN = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted(ROOT.glob("papers/*/README.md"))]
NAMES = [path.relative_to(ROOT).as_posix() for path in WRITTEN]
# README first, so that a page cannot be forgotten there
PAGE_NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES[1:]]


@cache
def anchors(page: Path) -> frozenset[str]:
    """The addresses of a page's headings, as GitHub makes them."""
    titles = [re.sub(r"[`*]", "", title).lower() for title, _ in chapters(page.read_text())]
    return frozenset(re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles)


def prose(text: str) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading_that_are_there(name: str) -> None:
    page = ROOT / name
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = Path(os.path.normpath(page.parent / path)) if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("name", NAMES)
def test_what_a_page_names_in_the_project_is_there(name: str) -> None:
    text = (ROOT / name).read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (?:-s )?([a-z-]+)|`make (?:-s )?([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{''.join(target)}:", makefile, re.MULTILINE), target
    for path in re.findall(r"`((?:common|papers|conf|tests|benchmarks|docs)/[\w./-]+)`", text):
        # those of the example stand in a folder of the reader's
        assert (ROOT / path).exists() or "signsgd" in path, path


@pytest.mark.parametrize("name", PAGE_NAMES)
def test_readme_leads_to_every_page(name: str) -> None:
    assert f"]({name})" in (ROOT / "README.md").read_text()


def test_every_command_of_readme_stands_on_a_page_that_says_more() -> None:
    below = "".join(page.read_text() for page in PAGES[1:])
    shown = commands("python", (ROOT / "README.md").read_text())
    assert len(shown) > 8
    assert [command for command in shown if command not in commands("python", below)] == []


def test_a_chapter_ends_where_the_next_one_of_its_level_begins_and_code_has_no_headings() -> None:
    text = "# A\n\na\n\n## B\n\n```\n# no heading\n```\n\n### C\n\n## D\nd\n"
    found = dict(chapters(text))
    assert list(found) == ["A", "B", "C", "D"]
    assert found["B"] == "\n```\n# no heading\n```\n\n### C\n\n"
    assert found["A"].endswith("## D\nd\n") and found["D"] == "d\n"
    with pytest.raises(ValueError, match="0 chapters"):
        chapter("Nothing of this name")


# those of the pages on what is one's own are run (test_bring_your_own.py, test_your_own_paper.py)
RUN = chapter("Bring your own") + (ROOT / "docs" / "your_own_paper.md").read_text()
OTHERS = [one for one in commands("python run.py") if one not in commands("python run.py", RUN)]
PLAIN = [one for one in OTHERS if not {"-m", "--help", "--cfg"} & set(shlex.split(one))]


@pytest.mark.parametrize("command", PLAIN)
def test_the_words_of_every_run_compose(command: str) -> None:
    typed = [word for word in shlex.split(command)[2:] if not word.startswith("debug=")]
    config, _ = compose(typed)
    assert config.paper


@pytest.mark.parametrize(
    "command", [one for one in commands("python claims.py") if one not in commands("python claims.py", RUN)]
)
def test_the_claims_that_a_command_names_are_there(command: str) -> None:
    names = [word for word in shlex.split(command)[2:] if "=" not in word and not word.startswith("--")]
    assert chosen(names)
