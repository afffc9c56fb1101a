import sys
from pathlib import Path
from typing import Any

import pytest

from common.runs import code
from common.runs.code import code_hash, settings_hash, settings_name, stale
from common.runs.evidence import joined

CHOICES = {"dataset": "digits", "method": "optimizer/yogi"}
SERVED = {"entries": [], "reported": {}, "overrides": []}
CONFIG = {"paper": {"_target_": "papers.yogi.module.YogiModule"}, "parts": [{"_target_": "torch.nn.ReLU"}]}


def made(**changes: Any) -> dict[str, Any]:
    """A result of the present code."""
    words = "paper=yogi"
    result = {"paper": "yogi", "choices": CHOICES, "config": CONFIG, "scale": "laptop"}
    result |= {
        "code": code_hash("yogi", CHOICES, CONFIG),
        "settings": {words: settings_hash(words, "laptop")},
    }
    return {**result, **changes}


def test_the_hash_differs_between_papers_and_between_choices() -> None:
    assert code_hash("spider", CHOICES, CONFIG) != code_hash("yogi", CHOICES, CONFIG)
    assert code_hash("yogi", CHOICES, CONFIG) != code_hash("yogi", {**CHOICES, "dataset": "mnist"}, CONFIG)


def test_a_result_is_stale_when_its_hash_is_another() -> None:
    assert not stale(made())
    assert stale(made(code="older"))


def test_a_result_is_stale_when_a_run_that_it_needed_is() -> None:
    assert not stale(made(stages={"teacher": made()}))
    assert stale(made(stages={"teacher": made(code="older")}))


def test_a_result_that_two_codes_made_is_stale_though_the_second_is_the_present_one() -> None:
    now = made()["code"]
    assert stale(made(codes=["older", now]))


def test_a_result_is_stale_when_the_settings_of_an_entry_that_it_serves_are_others_or_gone() -> None:
    entry = "yogi.table_ae.mnist_adam_default"
    assert not stale(made(settings={entry: settings_hash(entry, "laptop")}))
    assert stale(made(settings={entry: settings_hash(entry, "smoke")}))
    assert stale(made(settings={"yogi.table_ae.gone": "0123456789ab"}))


def test_of_a_run_that_two_scales_share_the_settings_of_each_count() -> None:
    row = "yogi.counterexample.adam"
    served = [
        made(scale=scale, settings={settings_name(row, scale): settings_hash(row, scale)}, **SERVED)
        for scale in ("laptop", "paper")
    ]
    for old, new in (served, served[::-1]):
        both = joined(old, new)
        assert sorted(both["settings"]) == [f"{row} scale=laptop", f"{row} scale=paper"]
        assert not stale(both)
        for name in both["settings"]:
            assert stale({**both, "settings": {**both["settings"], name: "0123456789ab"}})


def test_settings_of_an_older_result_are_those_of_its_own_scale_whatever_scale_it_is_made_for_anew() -> None:
    row = "yogi.table_ae.mnist_adam_default"
    older = made(scale="laptop", settings={row: settings_hash(row, "laptop")}, **SERVED)
    assert not stale(joined(older, made(scale="paper", settings={}, **SERVED)))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of a few files in place of this one."""
    files = {
        "common/__init__.py": "",
        "common/digits.py": "class Digits:\n    size = 8\n",
        "papers/__init__.py": "",
        "papers/yogi/__init__.py": "",
        "papers/yogi/module.py": "class YogiModule:\n    x = 1\n",
        "conf/paper/yogi.yaml": "epochs: 1",
        "conf/recipe/yogi/digits.yaml": "limit: 1",
        "conf/recipe/yogi/mnist.yaml": "limit: 1",
        "conf/dataset/digits.yaml": "# digits\nsize: 1",
        "conf/dataset/mnist.yaml": "size: 1",
        "conf/method/kd.yaml": "defaults: [{/method/optimizer@optimizer: sgd}, {override /dataset: mnist}]",
        "conf/method/optimizer/sgd.yaml": "lr: 1",
        "conf/method/optimizer/adam.yaml": "lr: 1",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(code, "ROOT", tmp_path)
    return tmp_path


RUN: dict[str, Any] = {
    "paper": {"_target_": "papers.yogi.module.YogiModule"},
    "method": {"steps": [{"_target_": "common.digits.Digits"}]},
}


@pytest.mark.parametrize(
    ("name", "text", "changes"),
    [
        ("papers/yogi/module.py", "class YogiModule:\n    x = 2\n", True),
        ("papers/yogi/module.py", '"""Text."""\nclass YogiModule:\n    x = 1\n', False),
        ("common/digits.py", "class Digits:\n    size = 9\n", True),
        ("conf/paper/yogi.yaml", "epochs: 2", True),
        ("conf/recipe/yogi/digits.yaml", "limit: 2", True),
        ("conf/recipe/yogi/mnist.yaml", "limit: 2", False),
        ("conf/dataset/digits.yaml", "size: 2", True),
        ("conf/dataset/digits.yaml", "# said otherwise\nsize: 1", False),
        ("conf/dataset/mnist.yaml", "size: 2", False),
        ("conf/method/kd.yaml", "defaults: [{/method/optimizer@optimizer: adam}]", True),
        ("conf/method/optimizer/sgd.yaml", "lr: 2", True),
        ("conf/method/optimizer/adam.yaml", "lr: 2", False),
        ("papers/yogi/README.md", "text", False),
    ],
)
def test_the_hash_follows_what_decides_a_result_and_nothing_else(
    name: str, text: str, changes: bool, project: Path
) -> None:
    def found() -> str:
        code._project.cache_clear()
        code._values_hash.cache_clear()
        return code_hash("yogi", {"dataset": "digits", "method": "kd"}, RUN)

    before = found()
    (project / name).write_text(text)
    assert (found() != before) == changes


@pytest.mark.parametrize(("kind", "changes"), [("detection", True), ("image_classification", False)])
def test_a_tasks_own_module_decides_the_runs_on_its_kind_of_data_alone(
    kind: str, changes: bool, project: Path
) -> None:
    def found() -> str:
        code._project.cache_clear()
        return code_hash("yogi", {"dataset": "digits"}, {**RUN, "dataset": {"kind": kind}})

    file = project / "common" / "training" / "detection.py"
    file.parent.mkdir()
    file.write_text("class Detection:\n    x = 1\n")
    before = found()
    file.write_text("class Detection:\n    x = 2\n")
    assert (found() != before) == changes


def test_a_classifiers_code_is_no_other_tasks() -> None:
    project = code._project(code.ROOT, ())
    modules = {module for module, _ in project.reached("papers.yogi.module.YogiModule")}
    others = {"detection", "segmentation", "tagging", "translation", "multi_task", "answering"}
    assert "common.training.supervised" in modules
    assert not {f"common.training.{task}" for task in others} & modules


@pytest.mark.parametrize(("key", "changes"), [("set", True), ("choose", True), ("reported", False)])
def test_the_settings_of_a_row_are_what_it_sets_and_not_what_was_reported(
    key: str, changes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(row: dict[str, Any]) -> str:
        tables = {"tables": [{"id": "t", "metrics": {}, "rows": [{"id": "r", **row}, {"id": "other"}]}]}
        monkeypatch.setattr("common.tables.tables.load_tables", lambda paper: tables)
        monkeypatch.setattr(code, "load_tables", lambda paper: tables)
        code._settings.cache_clear()
        return settings_hash("yogi.t.r", "paper")

    try:
        assert (found({}) != found({key: {"a": "b"}})) == changes
    finally:
        code._settings.cache_clear()


def test_a_network_of_ones_own_is_known_again_where_its_import_says_and_nothing_is_imported(
    project: Path, tmp_path: Path
) -> None:
    file = tmp_path / "of mine" / "far_nets.py"
    file.parent.mkdir()
    file.write_text("raise SystemExit\nclass Net:\n    width = 1\n")
    config = {**RUN, "model": {"_target_": "far_nets.Net"}}
    words = [f"import='{file}'", "seed=0"]

    def run(where: tuple[Path, ...]) -> dict[str, Any]:
        code._project.cache_clear()
        found = code_hash("yogi", {"dataset": "digits"}, config, where)
        return {
            "paper": "yogi", "choices": {"dataset": "digits"}, "config": config, "code": found,
            "overrides": words, "scale": "laptop",
        }  # fmt: skip

    made = run((file.parent,))
    assert not code.stale(made) and "far_nets" not in sys.modules
    code._project.cache_clear()
    file.write_text("raise SystemExit\nclass Net:\n    width = 2\n")
    assert code.stale(made)
