"""What a stage takes from the run that needs it, of every entry that has one; nothing is trained here."""

import json
import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from common.base.errors import UserError
from common.runs.catalogue import CONF, names, read
from common.runs.check import load_target
from common.runs.compose import compose
from common.runs.inheritance import INHERITANCE, asked_for, stage_key, stage_keys, stage_run, stage_words
from common.runs.keys import START, run_key
from common.runs.request import Request
from common.tables.tables import ROOT, Entry, papers, runnable

TEACHER = "model=mlp method=optimizer/adam paper.epochs=1"
STUDENT = ["paper=yogi", "dataset=digits", "model=mlp", "method=distillation/kd", "logger=none"]
FACTORS = ["paper=factor_transfer", "dataset=digits", "logger=none"]


def composed(*words: str, teacher: str | None = TEACHER) -> tuple[DictConfig, Request]:
    """A student's config."""
    return compose([*STUDENT, *words, *([f"teacher='{teacher}'"] if teacher else [])])


def stage(key: str, config: DictConfig, request: Request) -> tuple[DictConfig, Request]:
    """The stage that a config names by a key."""
    return stage_run(str(stage_words(config, stage_keys(config)[key], key)), key, config, request)


def may_have_stages(entry: Entry) -> bool:
    """Whether a class that an entry chooses, or that its paper chooses for it, takes stages."""
    return any(
        STAGES[group, name]
        for group in GROUPS
        for name in ([entry.choose[group]] if group in entry.choose else defaults(entry.paper, group))
    )


@cache
def defaults(paper: str, group: str) -> set[str]:
    """The choices of a group that the config of a paper or one of its recipes makes."""
    files = [CONF / "paper" / f"{paper}.yaml", *(CONF / "recipe" / paper).rglob("*.yaml")]
    lines = "\n".join(path.read_text() for path in files)
    found = re.findall(rf"^  - (?:override )?/{group}: (\S+)$", lines, re.MULTILINE)
    kinds = read("paper", paper)["accepts"]["datasets"].values() if group == "model" else ()
    return {*found, *kinds}


GROUPS = ("method", "model")
STAGES = {
    (group, name): getattr(load_target(read(group, name)["_target_"], group), "STAGES", ())
    for group in GROUPS
    for name in names(group)
    # of classes of the user's own, which no entry chooses
    if read(group, name)["_target_"] != "???"
}


# of each table one with each method: `make check-entries` goes through all of them
ENTRIES = {
    (entry.paper, entry.table, entry.choose.get("method")): entry
    for paper in papers()
    for entry in runnable(paper)
    if may_have_stages(entry)
}


def test_every_key_that_may_name_a_stage_has_a_rule() -> None:
    assert {START}.union(*STAGES.values()) == set(INHERITANCE)


@pytest.mark.slow
@pytest.mark.parametrize("paper", sorted({entry.paper for entry in ENTRIES.values()}))
def test_each_stage_of_each_kind_of_entry_composes_and_has_the_entrys_own_teacher(paper: str) -> None:
    """That of a stage is told by the run key: it is the run that the entry itself learns from."""
    count = 0
    for entry in (entry for entry in ENTRIES.values() if entry.paper == paper):
        config, request = compose([f"entry={entry.name}", "scale=smoke"])
        for key, group in stage_keys(config).items():
            if stage_words(config, group, key) is None:
                continue
            its, asked = stage(key, config, request)
            inner = stage_keys(its).get("teacher")
            if inner is None or its[inner].teacher is None:
                continue
            count += 1
            assert key != "teacher", f"{entry.name}: its teacher has a teacher"
            ours = stage_key(config.method.teacher, "teacher", config, request)
            assert stage_key(its[inner].teacher, "teacher", its, asked) == ours, entry.name
    assert count >= {"factor_transfer": 7, "moonshine": 1}.get(paper, 0)


def test_the_paraphraser_of_an_entry_is_of_the_entrys_teacher_and_not_of_the_papers_default() -> None:
    config, request = compose(["entry=factor_transfer.table1.c10_resnet20_from_resnet56_ft", "scale=smoke"])
    its, _ = stage("paraphraser", config, request)
    assert its.model.teacher == "entry=factor_transfer.table1.c10_resnet20_from_resnet56_teacher"
    assert config.method.teacher == its.model.teacher


@pytest.mark.parametrize(
    "own", ["dataset.batch_size=64", "scale=laptop", "seed=3", "dataset.limit=500", "paper.epochs=2"]
)
def test_words_of_a_paraphrasers_own_leave_it_the_teacher_of_the_run(own: str) -> None:
    words = f"model=paraphraser model.rate=0.5 method=optimizer/sgd {own}"
    config, request = compose([*FACTORS, "scale=smoke", f"method.paraphraser='{words}'"])
    its, asked = stage("paraphraser", config, request)
    ours = stage("teacher", config, request)
    assert run_key(stage("teacher", its, asked)[0]) == run_key(ours[0])


def test_a_stage_leaves_its_record_to_the_run_that_needs_it() -> None:
    config, request = composed("record=true")
    its, asked = stage("teacher", config, request)
    assert config.record and not its.record
    assert not [word for word in asked.overrides if word.startswith("record")]


def test_a_paraphraser_of_another_teacher_is_refused() -> None:
    words = "model=paraphraser model.rate=0.5 method=optimizer/sgd teacher=model=resnet8"
    config, request = compose([*FACTORS, f"method.paraphraser='{words}'"])
    with pytest.raises(UserError, match=r"it is of the teacher model=resnet8 .* this run learns from model="):
        stage("paraphraser", config, request)


def test_a_teacher_that_would_learn_from_the_papers_default_teacher_has_none() -> None:
    config, request = compose([*FACTORS, "teacher='model=resnet20 method=distillation/kd'"])
    assert stage("teacher", config, request)[0].method.teacher is None


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("dataset.normalise=none", 'dataset.normalise="none", and this run has dataset.normalise="standard"'),
        ("dataset.source=synthetic", 'dataset.source="synthetic"'),
        ("dataset.positive=[1]", r"dataset.positive=\[1\]"),
        ("dataset=mnist", "data of common.*Mnist, and this run has data of common.*Digits"),
    ],
)
def test_a_teacher_of_other_inputs_or_labels_is_refused(setting: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        stage("teacher", *composed(teacher=f"{TEACHER} {setting}"))


def test_a_teacher_at_another_image_size_is_refused() -> None:
    words = ["paper=moonshine", "dataset=imagenet", "method=distillation/attention_transfer"]
    config, request = compose(
        [*words, "dataset.size=64", "teacher='model=resnet18_imagenet dataset.size=32'"]
    )
    with pytest.raises(UserError, match=r"dataset.size=32, and this run has dataset.size=64"):
        stage("teacher", config, request)


@pytest.mark.parametrize("dataset", ["fashion_mnist", "digits"])
def test_a_checkpoint_of_a_run_on_other_data_is_refused(dataset: str, tmp_path: Path) -> None:
    overrides = ["paper=yogi", "dataset=mnist", "model=mlp", "method=optimizer/adam"]
    (tmp_path / "result.json").write_text(json.dumps({"overrides": overrides, "metrics": {}}))
    (tmp_path / "last.ckpt").touch()
    words = [*STUDENT, f"dataset={dataset}", "dataset.normalise=unit_interval"]
    config, request = compose([*words, f"teacher={tmp_path}/last.ckpt"])
    with pytest.raises(UserError, match=r"data of common.*Mnist, and this run has data of common"):
        stage("teacher", config, request)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dataset=fashion_mnist"], r"data of common.*Digits, and this run has data of common"),
        (["dataset=digits", "dataset.normalise=none"], 'dataset.normalise="standard"'),
        (
            ["dataset=digits", "dataset.validation=0.2"],
            "it learns from examples that this run, .*, holds out",
        ),
        (["dataset=digits"], None),
    ],
)
def test_a_checkpoint_named_beside_its_network_is_judged_by_the_run_that_made_it(
    words: list[str], says: str | None, tmp_path: Path
) -> None:
    overrides = ["paper=yogi", "dataset=digits", "model=resnet20", "method=optimizer/adam"]
    (tmp_path / "result.json").write_text(json.dumps({"overrides": overrides, "metrics": {}}))
    teacher = f"teacher='model=resnet20 method=optimizer/adam checkpoint={tmp_path}/last.ckpt'"
    config, request = compose(["paper=moonshine", "method=distillation/kd", *words, teacher])
    if says is None:
        stage("teacher", config, request)
    else:
        with pytest.raises(UserError, match=says):
            stage("teacher", config, request)


def rows(config: DictConfig, split: str) -> set[bytes]:
    """The images of a split, each as its bytes (the few digits that occur twice count once)."""
    data = instantiate(config.dataset, _convert_="all")
    data.setup()
    inputs: Tensor = getattr(data, split).inputs
    return {row.numpy().tobytes() for row in inputs}


def test_no_stage_trains_on_what_its_run_validates_on() -> None:
    config, request = composed("dataset.validation=0.2", "seed=1")
    its, _ = stage("teacher", config, request)
    assert its.seed == 0 and len(rows(config, "validation")) == 280
    assert not rows(its, "train") & rows(config, "validation")


def test_a_stage_trains_on_the_same_limited_examples() -> None:
    config, request = composed("dataset.limit=200", "seed=1")
    assert rows(stage("teacher", config, request)[0], "train") == rows(config, "train")


@pytest.mark.parametrize(("words", "typed"), [([], False), (["dataset.limit=70"], True)])
def test_a_stage_knows_whether_the_limit_that_it_takes_over_was_typed(words: list[str], typed: bool) -> None:
    config, request = composed("scale=smoke", *words, teacher=f"{TEACHER} scale=paper")
    its, asked = stage("teacher", config, request)
    assert its.dataset.limit == config.dataset.limit is not None
    assert ("dataset.limit" in [word.split("=")[0] for word in asked_for(asked)]) is typed


def test_a_limited_run_of_another_seed_has_a_teacher_of_its_own_and_an_unlimited_one_shares_it() -> None:
    def keys(*words: str) -> int:
        return len({run_key(stage("teacher", *composed(f"seed={n}", *words))[0]) for n in range(3)})

    assert (keys(), keys("dataset.limit=200"), keys("dataset.validation=0.2")) == (1, 3, 3)


@pytest.mark.parametrize("own", ["dataset.limit=500", "dataset.validation=0", "dataset.seed=7"])
def test_a_teacher_that_would_see_held_out_examples_is_refused(own: str) -> None:
    config, request = composed("dataset.validation=0.2", teacher=f"{TEACHER} {own}")
    with pytest.raises(UserError, match=r"it learns from examples that this run, with dataset.*, holds out"):
        stage("teacher", config, request)


def test_a_teacher_of_more_examples_than_the_student_is_the_users_choice() -> None:
    its, _ = stage("teacher", *composed("dataset.limit=100", teacher=f"{TEACHER} dataset.limit=null"))
    assert its.dataset.limit is None


def test_a_null_that_words_refer_to_is_a_null_in_them_and_what_is_typed_stays() -> None:
    words = "model=None/net.pt a=${.samples} b='${.layers}' c=None d=${.preparations.${.kind}}"
    method = {
        "samples": None,
        "layers": [1, None],
        "kind": "x",
        "preparations": {"x": None},
        "teacher": words,
        "start": None,
    }
    config = OmegaConf.create({"method": method})
    assert isinstance(config, DictConfig)
    found = stage_words(config, "method", "teacher")
    assert found == "model=None/net.pt a=null b='[1, 'null']' c=None d=null"
    assert shlex.split(found)[2] == "b=[1, null]"
    assert stage_words(config, "method", "start") is None


def recorded() -> list[dict[str, Any]]:
    found = [json.loads(path.read_text()) for path in sorted((ROOT / "results").glob("*/*.json"))]
    return [result for result in found if "paraphraser" in result.get("stages", {})]


def test_every_recorded_paraphraser_is_of_the_teacher_of_its_run() -> None:
    results = recorded()
    assert len(results) >= 26
    for result in results:
        of = result["stages"]["paraphraser"]["config"]["model"]["teacher"]
        assert of == result["config"]["method"]["teacher"] == result["stages"]["teacher"]["words"]
        its, ours = (result["stages"][key]["metrics"] for key in ("paraphraser", "teacher"))
        assert its["teacher_test_loss"] == ours["test_loss"]


DETECTOR = ["paper=yogi", "dataset=digit_scenes", "model=ssd_digits", "method=optimizer/adam", "logger=none"]


def test_settings_within_settings_are_taken_over_one_by_one() -> None:
    words = [
        "paper=transfer_automl",
        "dataset=image_tasks",
        "method=design_search/t_naml",
        "dataset.tasks=[cifar10]",
    ]
    text = "dataset.tasks=[mnist] dataset.sets.svhn.limit=7 method=design_search/multitask_naml"
    parent, request = compose([*words, "dataset.sets.mnist.limit=9", "dataset.sets.svhn.limit=8"])
    config, _ = stage_run(text, "pretrained", parent, request)
    assert (config.dataset.sets.mnist.limit, config.dataset.sets.svhn.limit) == (9, 7)
    assert config.dataset.tasks == ["mnist"]


def test_a_detector_may_start_from_a_classifier_of_other_data() -> None:
    text = "dataset=digits model=resnet_digits model.width=16"
    config, _ = stage_run(text, START, *compose([*DETECTOR, f"start='{text}'"]))
    assert config.dataset._target_.endswith("Digits")
    assert config.model._target_.endswith("ResNet")


def test_a_detector_may_start_from_itself_on_other_data_but_not_on_inputs_normalised_otherwise() -> None:
    parent = compose([*DETECTOR, "start='dataset.side=48'"])
    config, _ = stage_run("dataset.side=48", START, *parent)
    assert config.model._target_ == parent[0].model._target_ and config.dataset.side == 48
    with pytest.raises(UserError, match=r"it is trained with dataset\.normalise="):
        stage_run("dataset.normalise=none", START, *parent)


def test_a_classifier_starts_from_its_own_model_and_data_alone() -> None:
    parent = compose(
        ["paper=yogi", "dataset=digits", "model=resnet8", "logger=none", "start='model=resnet14'"]
    )
    with pytest.raises(UserError, match=r"model\.depth"):
        stage_run("model=resnet14", START, *parent)
    with pytest.raises(UserError, match="the same data set"):
        stage_run("dataset=mnist", START, *parent)
