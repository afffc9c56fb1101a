"""The project's papers: licence, citation, hooks, image and the Makefile say what is so."""

import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text())
# of version 1.2.0 of the Citation File Format
PERSON = {"family-names", "given-names", "name-particle", "name-suffix", "affiliation", "orcid"}
REFERENCE = {
    *("type", "title", "authors", "collection-title", "conference", "year", "start", "end", "identifiers"),
}


def known_papers() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((ROOT / "common" / "report" / "papers.yaml").read_text())
    return found


def normal(title: str) -> str:
    return title.replace("CNNs", "Convolutional Neural Networks").lower()


def test_the_citation_has_what_its_format_asks_for() -> None:
    assert {"cff-version", "message", "title", "authors"} <= set(CITATION)
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["type"] == "software"
    assert all(set(author) == {"name"} for author in CITATION["authors"])
    assert CITATION["version"] == PROJECT["version"]
    assert CITATION["license"] == PROJECT["license"]


@pytest.mark.parametrize("reference", CITATION["references"], ids=lambda one: one["title"].split(":")[0])
def test_each_reference_has_its_title_authors_and_place(reference: dict[str, Any]) -> None:
    assert {"type", "title", "authors", "conference", "year"} <= set(reference) <= REFERENCE
    assert reference["type"] == "conference-paper"
    assert reference["conference"] == {"name": "NeurIPS 2018"}
    assert reference["year"] == 2018
    for author in reference["authors"]:
        assert {"family-names", "given-names"} <= set(author) <= PERSON
    assert reference.get("start", 0) <= reference.get("end", 0)
    for identifier in reference.get("identifiers", []):
        assert identifier["type"] == "other"
        assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", identifier["value"])


def test_the_references_are_the_papers_of_the_front_page() -> None:
    cited = {normal(one["title"]): one for one in CITATION["references"]}
    assert set(cited) == {normal(paper["title"]) for paper in known_papers()}
    for paper in known_papers():
        identifiers = [one["value"] for one in cited[normal(paper["title"])].get("identifiers", [])]
        assert identifiers == ([f"arXiv:{paper['arxiv']}"] if "arxiv" in paper else [])


@pytest.mark.parametrize("paper", sorted(path.parent.name for path in ROOT.glob("papers/*/tables.yaml")))
def test_a_papers_readme_names_the_authors_that_are_cited(paper: str) -> None:
    (title,) = [normal(known["title"]) for known in known_papers() if known["name"] == paper]
    (reference,) = [one for one in CITATION["references"] if normal(one["title"]) == title]
    opening = (ROOT / "papers" / paper / "README.md").read_text()[:600]
    names = [author["family-names"] for author in reference["authors"]]
    assert [name for name in names if name in opening] == names
    assert ", ".join(names) in opening


def test_the_licence_is_apache_in_full_and_the_package_says_so() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "Version 2.0, January 2004" in text
    assert [f"{number}. " in text for number in range(1, 10)] == [True] * 9
    assert "END OF TERMS AND CONDITIONS" in text
    assert (PROJECT["license"], PROJECT["license-files"]) == ("Apache-2.0", ["LICENSE"])


def test_the_hooks_are_the_checks_of_make_check_and_download_nothing() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in config["repos"]] == ["local"]
    hooks = config["repos"][0]["hooks"]
    assert {hook["language"] for hook in hooks} == {"system"}
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    checks = re.findall(r"\$\(VENV\)/bin/([\w-]+(?: format| check)?)", recipe)
    assert sorted(checks) == sorted(
        re.match(r"\.venv/bin/([\w-]+(?: format| check)?)", hook["entry"]).group(1)  # type: ignore[union-attr]
        for hook in hooks
    )


def test_every_target_of_the_makefile_is_listed_by_make_help() -> None:
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert targets is not None
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^ *make ([\w-]+)", shown, re.MULTILINE)) == set(targets.group(1).split())


def test_the_image_copies_what_the_demo_needs_and_runs_as_a_user_of_its_own() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert lines.index("USER reprise") < next(
        i for i, line in enumerate(lines) if line.startswith("ENTRYPOINT")
    )
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    needed = {"Makefile", "pyproject.toml", "README.md", "LICENSE", "common", "conf", "papers", "*.py"}
    assert set(kept) == needed
    assert all(list(ROOT.glob(pattern)) for pattern in kept)


def test_the_images_command_is_the_demo_without_words_and_python_with_them(tmp_path: Path) -> None:
    (entry,) = [
        line for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("ENTRYPOINT")
    ]
    command = yaml.safe_load(entry.removeprefix("ENTRYPOINT "))
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    for path in (tmp_path / "bin" / "make", tmp_path / ".venv" / "bin" / "python"):
        path.write_text(f'#!/bin/sh\nprintf "<%s>" {path.name} "$@"\n')
        path.chmod(0o755)

    def ran(*words: str) -> str:
        environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
        done = subprocess.run(
            [*command, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert ran() == "<make><demo>"
    assert ran("run.py", "teacher=model=mlp seed=1") == "<python><run.py><teacher=model=mlp seed=1>"


def test_the_changelog_names_all_papers_that_are_here() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    here = [path.parent.name for path in ROOT.glob("papers/*/tables.yaml")]
    assert [name for name in here if not re.search(rf"\b{name}\b", text)] == []
    assert "## [Unreleased]" in text
