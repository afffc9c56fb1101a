"""The committed evidence stands where its own words lead to, and names code that is there."""

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from common.runs.compose import compose
from common.runs.keys import key_of_identity, run_key
from common.tables.tables import papers

ROOT = Path(__file__).resolve().parents[1]


@cache
def records(paper: str) -> dict[str, dict[str, Any]]:
    """The committed results of a paper by their run keys."""
    found = sorted((ROOT / "results" / paper).glob("*.json"))
    return {f"{paper}/{path.stem}": json.loads(path.read_text()) for path in found}


@pytest.mark.parametrize("paper", papers())
def test_the_name_of_every_record_is_the_run_key_of_its_config(paper: str) -> None:
    wrong = [key for key, one in records(paper).items() if key_of_identity(one["config"]) != key]
    assert not wrong


@pytest.mark.parametrize("paper", papers())
def test_every_run_that_a_record_needed_is_recorded_under_the_key_of_its_config(paper: str) -> None:
    for key, one in records(paper).items():
        for name, stage in one["stages"].items():
            assert stage["key"] == key_of_identity(stage["config"]), (key, name)
            assert stage["key"] in records(stage["paper"]), (key, name)


@pytest.mark.parametrize("paper", papers())
def test_every_target_of_a_record_is_defined(paper: str) -> None:
    named = {target for one in records(paper).values() for target in targets([one["config"], one["stages"]])}
    ours = {target for target in named if target.startswith(("common.", "papers."))}
    missing = {t for t in ours if t.rpartition(".")[2] not in defined(t.rpartition(".")[0])}
    assert ours and not missing


@pytest.mark.parametrize("paper", papers())
def test_the_words_of_a_record_lead_to_it(paper: str) -> None:
    """The first of each paper's records: composing all of them takes minutes."""
    key, one = next(iter(records(paper).items()))
    config, _ = compose(one["overrides"])
    assert run_key(config) == key, one["overrides"]


def targets(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "_target_" in node:
            yield node["_target_"]
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from targets(value)


@cache
def defined(module: str) -> set[str]:
    """The names that a module of ours defines at its top."""
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not path.exists():
        return set()
    return {node.name for node in ast.parse(path.read_text()).body if hasattr(node, "name")}
