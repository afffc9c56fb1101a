from pathlib import Path

import pytest

from common.base.errors import UserError
from common.runs.catalogue import all_entries, check_choices, nested, read, wanted_entries


def test_a_glob_selects_every_entry_of_a_table() -> None:
    found = wanted_entries(["entry=glob(spider.saddle_escape.*)"])
    assert len(found) == 3
    assert {entry.table for entry in found} == {"saddle_escape"}


def test_names_and_globs_mix_and_each_entry_comes_once() -> None:
    one = "spider.ifo.a9a_gd_eps0p01"
    found = wanted_entries([f"entry={one},glob(spider.ifo.a9a_gd_*)"])
    assert [entry.name for entry in found].count(one) == 1
    assert len(found) == 3


def test_a_glob_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(UserError, match="matches no entry"):
        wanted_entries(["entry=glob(spider.nothing.*)"])


def test_an_unknown_entry_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"did you mean yogi\.table_ae\.mnist_yogi"):
        wanted_entries(["entry=yogi.table_ae.mnist_yogy"])


def test_no_entry_on_the_command_line_wants_none() -> None:
    assert wanted_entries(["paper=spider", "entry=null"]) == []


def test_entry_names_are_unique_and_have_three_parts() -> None:
    assert len(all_entries()) > 190
    assert all(len(name.split(".")) == 3 for name in all_entries())


def test_dotted_keys_become_nested() -> None:
    assert nested({"a.b": 1, "a.c.d": 2, "e": 3}) == {"a": {"b": 1, "c": {"d": 2}}, "e": 3}


@pytest.mark.parametrize("value", ["range(0,3)", "choice(1,ball)", "interval(0,1)", "1", "ball,bal"])
def test_a_choice_that_a_sweep_draws_from_elsewhere_is_refused(value: str) -> None:
    with pytest.raises(UserError, match="unknown model="):
        check_choices([f"model={value}"])


@pytest.mark.parametrize("value", ["choice('ball',box)", "glob(b*)", "shuffle(ball,box)", "ball,box"])
def test_choices_of_a_sweep_that_are_there_pass(value: str) -> None:
    check_choices([f"model={value}"])


@pytest.mark.parametrize("text", ["paper: {}\n", "accepts: {methods: optimizer}\n", "- a\n"])
def test_a_paper_that_does_not_say_what_it_takes_is_told_to(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf" / "paper" / "mine.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    read.cache_clear()
    with pytest.raises(UserError, match=r"conf/paper/mine\.yaml: .*valid: "):
        read("paper", "mine")
