import inspect
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.base.errors import UserError
from common.runs.check import (
    accepted,
    check_config,
    check_imports,
    check_paths,
    check_ranges,
    check_top_level,
    load_target,
)

ADAM = {"_target_": "torch.optim.Adam", "_partial_": True, "lr": 0.1, "betas": [0.9, 0.99], "eps": 1}


def check(**changes: object) -> None:
    check_config(OmegaConf.create({"method": ADAM | changes}))


def test_a_fitting_config_passes_and_a_whole_number_may_stand_for_a_float() -> None:
    check()


@pytest.mark.parametrize(
    ("trainer", "message"),
    [
        ({"devices": 2}, "one process on one device.*torchrun"),
        ({"devices": "auto"}, "one process on one device"),
        ({"devices": [0, 1]}, "one process on one device"),
        ({"num_nodes": 2}, "trainer.num_nodes: a run does not heed it"),
        ({"strategy": "fsdp"}, "trainer.strategy=fsdp: valid: auto, or trainer=ddp"),
        ({"max_steps": 3}, r"trainer.max_steps.*paper.epochs"),
        ({"max_time": "00:00:00:01"}, r"trainer.max_time.*Ctrl-C"),
        ({"overfit_batches": 1}, "debug=overfit"),
    ],
)
def test_an_argument_of_the_trainer_that_a_run_does_not_heed_is_refused(
    trainer: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_top_level(OmegaConf.create({"trainer": trainer}))


@pytest.mark.parametrize("trainer", [{"devices": 1}, {"devices": [3]}, {"strategy": "ddp", "devices": 2}])
def test_one_device_by_its_number_and_ddp_are_trainers(trainer: dict[str, object]) -> None:
    check_top_level(OmegaConf.create({"trainer": {"_target_": "x", "accelerator": "cpu", **trainer}}))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_no_generator_takes_is_refused(seed: int) -> None:
    with pytest.raises(UserError, match=f"seed={seed}; valid: a whole number from 0 to 4294967295"):
        check_top_level(OmegaConf.create({"seed": seed}))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"paper": {"epochs": 0}}, r"paper\.epochs=0: must be positive and finite"),
        ({"method": {"optimizer": {"lr": -1.0}}}, r"method\.optimizer\.lr=-1\.0: must be at least 0"),
        ({"dataset": {"batch_size": -3}}, r"dataset\.batch_size=-3: must be positive"),
        ({"method": {"weight_decay": float("nan")}}, r"method\.weight_decay=nan: must be at least 0"),
        ({"paper": {"epochs": "three"}}, r"paper\.epochs=three: must be a number"),
        ({"dataset": {"batch_size": "big"}}, r"dataset\.batch_size=big: must be a number"),
        ({"dataset": {"batch_size": 1000.0}}, r"dataset\.batch_size=1000\.0: must be a whole number"),
        ({"dataset": {"limit": 0}}, r"dataset\.limit=0: give at least 1, or null"),
        ({"dataset": {"limit": "few"}}, r"dataset\.limit=few: must be a number"),
        ({"dataset": {"validation": 1.5}}, r"dataset\.validation=1\.5: give a fraction"),
    ],
)
def test_a_number_that_its_name_alone_rules_out_is_refused(node: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_ranges(OmegaConf.create(node))


def test_numbers_at_the_ends_of_their_ranges_and_no_numbers_are_left_alone() -> None:
    node = {"lr": 0.0, "momentum": 0, "batch_size": 1, "weight_decay": None, "steps": -1}
    data = {"limit": None, "validation": "official"}
    check_ranges(OmegaConf.create({"method": node, "paper": {"epochs": "${seed}"}, "dataset": data}))


@pytest.mark.parametrize(
    ("key", "value"), [("pause", 2), ("pause", 0), ("clip", -1), ("ema", 1), ("checkpoint_every", -1)]
)
def test_a_number_of_the_top_level_out_of_its_range_is_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{key}={value}; valid: "):
        check_top_level(OmegaConf.create({key: value}))


def test_numbers_of_the_top_level_in_their_ranges_pass() -> None:
    valid = {"pause": 0.5, "clip": 1, "ema": 0.0, "checkpoint_every": 0, "test_limit": None}
    check_top_level(OmegaConf.create(valid))


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ({"path": ""}, r"dataset\.path=: give a path \(valid: your own"),
        ({"path": "no such.csv"}, r"dataset\.path=no such\.csv: no such file or folder, from .*; there is "),
        ({"path": "here", "test_path": "~/there"}, r"dataset\.test_path=~/there: no such file or folder; "),
    ],
)
def test_files_of_ones_own_that_are_not_there_are_named_before_anything_is_imported(
    dataset: dict[str, object], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=message):
        check_paths(OmegaConf.create(dataset), "your own")
    check_paths(OmegaConf.create(dataset | {"source": "synthetic"}), "your own")
    check_paths(OmegaConf.create({"path": "~/here", "test_path": None}), "your own")


def test_a_class_of_a_module_that_nobody_imports_is_refused_before_anything_is_imported() -> None:
    check_imports(OmegaConf.create({"method": ADAM}))
    with pytest.raises(UserError, match=r"model\._target_=my_nets\.Net: configs may only name"):
        check_imports(OmegaConf.create({"model": {"_target_": "my_nets.Net"}}))


def test_an_unknown_key_is_refused_by_name_with_the_valid_ones() -> None:
    with pytest.raises(
        UserError, match=r"method\.momentum=0\.9: torch\.optim\.Adam takes no 'momentum'.*betas"
    ):
        check(momentum=0.9)


@pytest.mark.parametrize(("key", "value"), [("eps", "small"), ("eps", "1"), ("betas", [0.9]), ("amsgrad", 3)])
def test_a_wrong_type_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"method\.{key}="):
        check(**{key: value})


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        ("common.data.tables.own_table.TableClassification", "drop", "age"),
        ("common.data.tables.own_table.TableClassification", "positive", 3),
        ("common.models.mlp.MLP", "hidden", 16),
        ("common.distillation.hints.AttentionTransfer", "layers", "stage1"),
    ],
)
def test_one_value_where_a_list_is_needed_is_shown_as_a_list(target: str, key: str, value: object) -> None:
    with pytest.raises(
        UserError, match=rf"method\.{key}={value}: a list is needed \(valid: method\.{key}=\[{value}\]\)"
    ):
        check_config(OmegaConf.create({"method": {"_target_": target, key: value}}))


@pytest.mark.parametrize(
    "target", ["os.system", "builtins.eval", "subprocess.run", "common.data.none.Nothing"]
)
def test_a_target_outside_the_listed_packages_or_not_there_is_refused(target: str) -> None:
    with pytest.raises(UserError, match=r"method\._target_"):
        check(_target_=target)


def test_a_package_that_is_missing_is_named_with_the_command_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # an earlier test may have imported it
    monkeypatch.delitem(sys.modules, "common.data.functions.synthetic", raising=False)
    monkeypatch.delattr("common.data.functions.synthetic", raising=False)
    monkeypatch.setitem(sys.modules, "botorch.test_functions", None)
    with pytest.raises(UserError, match="needs the package botorch: make setup-full"):
        check(_target_="common.data.functions.synthetic.Levy")


def test_nested_nodes_are_checked_too() -> None:
    with pytest.raises(UserError, match=r"paper\.inner\.wrong"):
        check_config(OmegaConf.create({"paper": {"inner": ADAM | {"wrong": 1}}}))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("foo", 1, "takes no 'foo'"),
        ("limit", "many", "valid integer"),
        ("source", "fake", "'real' or 'synthetic'"),
    ],
)
def test_options_that_a_constructor_hands_on_are_checked_too(key: str, value: object, message: str) -> None:
    node = {"_target_": "common.data.images.digits.Digits", "limit": 3, "augment": "none", key: value}
    with pytest.raises(UserError, match=message):
        check_config(OmegaConf.create({"dataset": node}))


@pytest.mark.parametrize(
    "name", ["tables.own_table.OwnTable", "images.own_folder.OwnFolder", "detection.own_boxes.OwnBoxes"]
)
def test_what_a_command_hands_to_a_data_set_is_no_setting_of_it(name: str) -> None:
    target = load_target(f"common.data.{name}", "dataset")
    assert "origin" in inspect.signature(target).parameters
    assert "origin" not in accepted(target) and "path" in accepted(target)


@pytest.mark.parametrize("key", ["output_dir", "data_dir", "results_dir"])
def test_a_folder_without_a_name_is_refused(key: str) -> None:
    with pytest.raises(UserError, match=f"{key}=: name a folder"):
        check_top_level(OmegaConf.create({key: ""}))
