from omegaconf import OmegaConf

from common.runs.compose import compose
from common.runs.keys import run_key

CONFIG = {
    "seed": 0,
    "data_dir": "data",
    "force": False,
    "paper": {"_target_": "papers.spider.module.SpiderModule", "passes": 30},
    "dataset": {"_target_": "x", "data_dir": "${data_dir}", "limit": None},
    "model": {"_target_": "m", "data_dir": "${data_dir}", "hidden": [3]},
    "trainer": {"_target_": "t", "accelerator": "cpu", "devices": 1, "precision": "32-true"},
}


def key(**changes: object) -> str:
    config = OmegaConf.create(CONFIG)
    for dotted, value in changes.items():
        OmegaConf.update(config, dotted.replace("__", "."), value)
    return run_key(config)


def test_the_key_starts_with_the_paper() -> None:
    assert key().startswith("spider/")


def test_paths_devices_and_force_do_not_change_the_key() -> None:
    same = key(data_dir="elsewhere", force=True, trainer__accelerator="gpu", trainer__devices=2)
    assert same == key()


def test_seed_precision_limit_and_budget_change_the_key() -> None:
    keys = {
        key(),
        key(seed=1),
        key(trainer__precision="64-true"),
        key(dataset__limit=10),
        key(paper__passes=31),
        key(model__hidden=[4]),
    }
    assert len(keys) == 6


def test_a_key_that_a_file_has_got_since_changes_the_run_only_where_it_is_set() -> None:
    assert key(dataset__crop=None) == key() != key(dataset__crop=[8, 8])


def test_a_whole_float_and_its_integer_are_one_run() -> None:
    assert key(paper__passes=30.0) == key()


def test_a_method_within_a_method_is_part_of_the_key_but_for_the_optimizer_that_it_does_not_use() -> None:
    words = ["paper=yogi", "method=distillation/kd", "inner=distillation/kd"]
    plain, key = (run_key(compose(some)[0]) for some in (words[:2], words))
    assert plain != key != run_key(compose([*words, "method.inner.temperature=2"])[0])
    assert key == run_key(compose([*words, "method.inner.optimizer.lr=7"])[0])
