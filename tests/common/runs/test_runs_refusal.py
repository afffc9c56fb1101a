"""What is refused by its words alone, in the words of who meant something else."""

import re

import pytest
from hydra.errors import ConfigCompositionException

from common.base.errors import UserError
from common.runs.catalogue import find_entry, register
from common.runs.cli import one_line
from common.runs.refusal import check_passed_on, check_words, is_asked, refuse_near
from common.tables.tables import unknown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper", "=", "spider"], "valid: paper=spider, without spaces around ="),
        (["paper", "=spider"], "valid: paper=spider, without"),
        (["“paper=spider”"], "“ is a typographic quote"),
        (["paper=spider", "output_dir=“my runs”"], "“ is a typographic quote"),
    ],
)
def test_spaces_around_equals_and_typographic_quotes_are_refused_with_what_was_meant(
    words: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_words(words)


def test_a_quote_within_a_name_is_a_sign_like_others() -> None:
    check_words(["paper=spider", "output_dir='runs of Anna’s'"])


def test_a_table_where_an_entry_is_wanted_names_the_glob_of_its_rows() -> None:
    with pytest.raises(
        UserError, match=r"-m 'entry=glob\(yogi.table_ae\.\*\)', or one, as entry=yogi.table_ae"
    ):
        find_entry("yogi.table_ae")


def test_where_too_many_names_are_valid_the_command_that_lists_them_is_told() -> None:
    many = [f"name_{number}" for number in range(50)]
    assert "50 names: run.py --help lists them" in unknown("model", "nope", many)
    assert "50 names: make -s entries lists them" in unknown("entry", "nope", many)


def test_a_launcher_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    error = ConfigCompositionException("In 'hydra/config': Could not find 'hydra/launcher/slurm'")
    said = one_line(error, ["paper=yogi", "hydra/launcher=slurm"])
    assert "unknown hydra/launcher=slurm; did you mean submitit_slurm" in said
    assert "valid: basic, ray, joblib, submitit_local, submitit_slurm" in said


@pytest.mark.parametrize("word", ["paper.epochs=1,", "output_dir=a(b", "dataset.path=[a"])
def test_a_word_that_hydra_cannot_read_is_named(word: str) -> None:
    said = one_line(ConfigCompositionException("mismatched input '<EOF>'"), ["paper=yogi", word])
    assert said.startswith(f"{word} cannot be read (valid: key=value")


@pytest.mark.parametrize(("key", "places"), [("lr", "method.lr"), ("epochs", "paper.epochs")])
def test_a_key_without_its_group_is_told_with_it(key: str, places: str) -> None:
    register(["paper=yogi", "dataset=digits"])
    error = ConfigCompositionException(f"Could not override '{key}'.")
    said = one_line(error, ["paper=yogi", "dataset=digits", f"{key}=1"])
    assert said.startswith(f"unknown key {key}; did you mean {places}")


@pytest.mark.parametrize(
    ("hydra", "said"),
    [
        (
            "In 'config': Could not find 'dataset/digitz'",
            "an entry's choose .*: unknown dataset=digitz; did you",
        ),
        (
            "In 'recipe/mine/digits': Could not find 'model/mpl'",
            "^accepts of conf/paper/mine.yaml: .*=mpl; did",
        ),
        (
            "In 'config': Could not find 'paper_at/mine/smoke'",
            "^paper=mine: it has no papers/mine/tables.yaml",
        ),
        ("In 'config': Could not find 'paper_at/yogi/tiny'", "^papers/yogi/tables.yaml: scales has no tiny"),
    ],
)
def test_what_an_entry_or_a_paper_chooses_and_is_not_there_is_named(hydra: str, said: str) -> None:
    assert re.search(said, one_line(ConfigCompositionException(hydra), ["paper=yogi"]))


@pytest.mark.parametrize(
    ("key", "valid"),
    [("debug.steps", "debug=one_step|overfit|profile"), ("stop.patience", "stop=early")],
)
def test_a_key_of_a_choice_that_is_not_made_is_told_with_those_that_are_left(key: str, valid: str) -> None:
    register(["paper=yogi", "dataset=digits"])
    error = ConfigCompositionException(f"Could not override '{key}'.")
    said = one_line(error, ["paper=yogi", "dataset=digits", f"{key}=1"])
    assert said == f"unknown key {key}: the {key.split('.')[0]} that is chosen has no keys (valid: {valid})"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=1", r"seed=1: fixed \(valid: others\)"),
        ("trainer=cpuu", "unknown trainer=cpuu; did you mean cpu"),
        ("logger=wndb", "unknown logger=wndb; did you mean wandb"),
        ("hydra/launcher=jobl", "unknown hydra/launcher=jobl; did you mean joblib"),
        ("output_dir=", "output_dir= has no value"),
        ("record=yes", "record=yes; valid: true, false"),
        ("force=true", r"force=true: fixed \(valid: others\)"),
    ],
)
def test_what_a_command_passes_on_to_its_runs_is_checked_before_any_is_made(word: str, message: str) -> None:
    check_passed_on(["trainer=cpu", "hydra/launcher=joblib", "record=True"], "fixed", "others")
    with pytest.raises(UserError, match=message):
        check_passed_on([word], "fixed", "others", ("force",))


def test_a_switch_is_on_however_its_true_is_written_and_its_last_word_counts() -> None:
    assert is_asked("record", ["record=True"]) and is_asked("force", ["force=false", "force=true"])
    assert not is_asked("force", []) and not is_asked("force", ["force=true", "force=false"])


def test_a_word_near_to_one_of_the_commands_own_is_told_which_is_meant() -> None:
    own = ["evaluations", "top"]
    refuse_near(["paper=yogi", "seed=1", "method.lr=1", "epochs=3"], own, strange=False)
    for word, strange in (("evals=3", False), ("tops=3", True)):
        with pytest.raises(UserError, match=f"unknown word {word}; did you mean (evaluations|top)=3"):
            refuse_near([word], own, strange)
    with pytest.raises(UserError, match=r"unknown word xyzzy=3 \(valid: evaluations, top, and the words"):
        refuse_near(["xyzzy=3"], own)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("teacher=model=resnet8x method=distillation/none", "teacher=model=resnet8x .*did you mean resnet8"),
        ("teacher='model=resnet8x'", "unknown model=resnet8x"),
        ("start=entry=yogi.table_ae.nope", "start=entry=yogi.table_ae.nope: unknown entry"),
        ("method.inner.teacher=method=optimizer/adm", "unknown method=optimizer/adm; did you mean"),
    ],
)
def test_a_mistyped_word_of_a_run_that_another_needs_is_refused_at_once(word: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_words(["paper=moonshine", word])
    check_words(["paper=moonshine", "teacher=model=resnet8 method=distillation/none", "start=net.pt"])
