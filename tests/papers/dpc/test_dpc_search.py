"""The cache of maps, trainings on it, and the search as a run."""

import json
import pickle
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from test_dpc_network import SETTINGS

from common.architectures.evaluate import Job, Workers, evaluate_all
from common.architectures.searchers import MixtureSearch
from common.base.errors import UserError
from common.base.module import PaperModule
from common.base.stages import Stage
from common.training.segmentation import Segmentation
from papers.dpc.backbones import padded
from papers.dpc.cached_features import CachedFeatures
from papers.dpc.caching import CacheModule, FeatureCache
from papers.dpc.cell import ASPP_SMALL, POINTWISE, TOP1
from papers.dpc.cell_training import CellObjective, NetworkObjective, Recipe, train_briefly
from papers.dpc.context_squares import ContextSquares
from papers.dpc.heads import table_cost
from papers.dpc.module import DPCModule, branch_norms, head_cost
from papers.dpc.network import DeepLab
from papers.dpc.search import CellSearch, CellSearchModule
from papers.dpc.space import CellSpace

SMALL_SPACE = {"branches": 3, "rates": [1, 2], "grids": [1]}
BUDGET: dict[str, Any] = {
    "evaluations": 4, "batch": 2, "steps": 4, "proxy_share": 0.5, "rerank": 3, "in_full": "cached",
    "references": ["pointwise"], "score_split": "validation",
    "processes": 1, "launcher": "joblib", "threads": 1,
}  # fmt: skip


def squares(**changes: Any) -> ContextSquares:
    settings: dict[str, Any] = {
        "kind": "segmentation", "data_dir": "data", "seed": 0, "source": "real", "limit": 24,
        "validation": 0.25, "normalise": "none", "verify": True, "batch_size": 6, "positive": None,
    }  # fmt: skip
    return ContextSquares(**(settings | changes))


def network(**changes: Any) -> DeepLab:
    torch.manual_seed(0)
    return DeepLab(**(SETTINGS | {"shape": (3, 48, 48), "classes": 3, "width": 4, "filters": 4} | changes))


def fit(module: PaperModule, root: Path, steps: int = -1) -> PaperModule:
    root.mkdir(exist_ok=True)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, max_steps=steps, logger=False, enable_checkpointing=False,
        default_root_dir=root, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return module


def caching(**changes: Any) -> CacheModule:
    settings: dict[str, Any] = {"calibrate": True, "mirror": False, "precision": "float32"}
    method = FeatureCache(**(settings | changes))
    return CacheModule(data=squares(), model=network(), method=method)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    root = tmp_path_factory.mktemp("cache")
    module = fit(caching(), root)
    return Stage(
        words="method=caching/backbone", key="dpc/0", metrics={}, model=module.network(), folder=root
    )


def recipe(**changes: Any) -> Recipe:
    fields: dict[str, Any] = {
        "optimizer": partial(torch.optim.Adam, lr=0.01), "power": 0.9, "horizon": 4, "batch_size": 6,
        "seed": 0, "weight_decay": 0.0, "class_weights": None, "score": "validation", "device": "cpu",
    }  # fmt: skip
    return Recipe(**(fields | changes))


def objective(stage: Stage, **changes: Any) -> CellObjective:
    assert stage.folder is not None and isinstance(stage.model, DeepLab)
    return CellObjective(CellSpace(), stage.model, stage.folder, recipe(**changes), measure_test=True)


@pytest.fixture(autouse=True, scope="module")
def few() -> Iterator[None]:
    """A test split of a few images is enough for all but its own test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContextSquares, "TEST_SIZE", 30)
        yield


# --- the task


def test_squares_have_the_class_of_the_mark_in_channel_1_or_2() -> None:
    data = squares(limit=None, validation=0.0)
    data.setup()
    images, targets = data.batch("train", slice(0, 60), augment=False)
    assert targets is not None and images.shape == (60, 3, 48, 48)
    clean = images.round()
    for image, target in zip(clean, targets, strict=True):
        (mark,) = [k for k in (1, 2) if image[k].sum() > 18]
        # now and then the noise is above a half
        assert abs(image[mark].sum() - 36) <= 1
        assert set(target.unique().tolist()) == {0, mark}
        assert ((target > 0) != (image[0] == 1)).sum() <= 1
    assert (images - clean).std() == pytest.approx(0.1, rel=0.02)


# --- the cache


def test_the_cache_holds_what_the_calibrated_backbone_gives(stage: Stage) -> None:
    assert stage.folder is not None and isinstance(stage.model, DeepLab)
    data, cached = squares(), CachedFeatures(stage.folder, 6)
    data.setup()
    assert [cached.size(split) for split in ("train", "validation", "test")] == [18, 6, 30]
    backbone = stage.model.backbone.eval()
    for split in ("train", "validation", "test"):
        images, targets = data.batch(split, slice(0, 6), augment=False)
        maps, labels = cached.batch(split, torch.arange(6), augment=False)
        with torch.no_grad():
            torch.testing.assert_close(maps, backbone(padded(images, 4)), rtol=1e-4, atol=1e-5)
        assert targets is not None and labels is not None and torch.equal(labels, targets)


def test_calibration_gives_the_statistics_of_the_training_images(tmp_path: Path) -> None:
    module: Any = fit(caching(), tmp_path)
    data = squares()
    data.setup()
    images, _ = data.batch("train", slice(None), augment=False)
    first, norm = module.network().backbone.layers[0], module.network().backbone.layers[1]
    with torch.no_grad():
        maps = first(padded(images, 4))
    torch.testing.assert_close(norm.running_mean, maps.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(norm.running_var, maps.var((0, 2, 3)), rtol=1e-2, atol=1e-4)


def test_mirror_images_follow_the_training_images(tmp_path: Path) -> None:
    module: Any = fit(caching(mirror=True, calibrate=False), tmp_path)
    cached, data = CachedFeatures(tmp_path, 6), squares()
    data.setup()
    assert (cached.size("train"), cached.size("validation")) == (36, 6)
    images, targets = data.batch("train", slice(0, 18), augment=False)
    maps, labels = cached.batch("train", slice(18, 36), augment=False)
    with torch.no_grad():
        wanted = module.network().backbone.eval()(padded(images.flip(3), 4))
    torch.testing.assert_close(maps, wanted, rtol=1e-4, atol=1e-5)
    assert targets is not None and labels is not None and torch.equal(labels, targets.flip(2))


def test_half_precision_is_half_as_large_and_rounded_to_bfloat16(tmp_path: Path) -> None:
    fit(caching(calibrate=False), tmp_path / "whole")
    fit(caching(calibrate=False, precision="bfloat16"), tmp_path / "half")
    whole, half = (CachedFeatures(tmp_path / name, 6) for name in ("whole", "half"))
    maps, rounded = (cached.batch("test", slice(0, 20), augment=False)[0] for cached in (whole, half))
    assert torch.equal(rounded, maps.bfloat16().float())
    sizes = [(tmp_path / name / "features_test.npy").stat().st_size for name in ("whole", "half")]
    assert sizes[0] - 128 == 2 * (sizes[1] - 128)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_cache_that_was_stopped_anywhere_is_the_same_in_the_end(tmp_path: Path, steps: int) -> None:
    whole = fit(caching(mirror=True), tmp_path / "whole")
    begun = fit(caching(mirror=True), tmp_path / "broken", steps=steps)
    again = caching(mirror=True)
    again.load_state_dict(begun.state_dict())
    again.load_search_state(begun.search_state())
    fit(again, tmp_path / "broken")
    for name in ("features_train", "targets_train", "features_validation", "features_test"):
        first, second = (np.load(tmp_path / folder / f"{name}.npy") for folder in ("whole", "broken"))
        assert np.array_equal(first, second), name
    assert again.results() == whole.results()


def test_a_cache_is_a_path_to_other_processes(stage: Stage) -> None:
    assert stage.folder is not None
    cached = CachedFeatures(stage.folder, 6)
    text = pickle.dumps(cached)
    assert len(text) < 1000
    assert torch.equal(
        pickle.loads(text).batch("test", slice(0, 3), False)[0], cached.batch("test", slice(0, 3), False)[0]
    )


@pytest.mark.parametrize("damage", ["missing", "half", "unfinished"])
def test_a_cache_that_is_damaged_is_one_line(tmp_path: Path, damage: str) -> None:
    fit(caching(), tmp_path)
    path = tmp_path / "features_train.npy"
    if damage == "missing":
        path.unlink()
    elif damage == "half":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        (tmp_path / "cache.json").unlink()
    with pytest.raises(UserError, match="force=true"):
        CachedFeatures(tmp_path, 6)


# --- trainings


def test_a_training_is_the_plain_loop(stage: Stage) -> None:
    task_objective = objective(stage)
    torch.manual_seed(5)
    ours, plain = (task_objective.build(ASPP_SMALL) for _ in range(2))
    plain.load_state_dict(ours.state_dict())
    for module in (*ours.modules(), *plain.modules()):
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    loss = train_briefly(ours, task_objective.data, task_objective.task(), recipe(seed=3), 3)
    optimizer = torch.optim.Adam(plain.parameters(), lr=0.01)
    order = torch.randperm(18, generator=torch.Generator().manual_seed(3 * 1_000_003))
    last = torch.zeros(())
    for step, rows in enumerate(order.split(6)):
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * (1 - step / 4) ** 0.9
        maps, labels = task_objective.data.batch("train", rows, augment=False)
        assert labels is not None
        last = F.cross_entropy(plain.train()(maps), labels)
        optimizer.zero_grad()
        last.backward()
        optimizer.step()
    assert loss == pytest.approx(float(last.detach()), rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, msg=name)


def test_a_score_depends_on_cell_seed_and_budget_alone(stage: Stage) -> None:
    first = objective(stage).train(TOP1, 2)
    torch.manual_seed(99)
    torch.rand(7)
    assert objective(stage).train(TOP1, 2) == first
    assert objective(stage, seed=1).train(TOP1, 2)["loss"] != first["loss"]


def test_a_score_is_the_miou_of_the_split_in_percent(stage: Stage) -> None:
    task_objective = objective(stage)
    found = task_objective.train(POINTWISE, 2)
    torch.manual_seed(0)
    assert 0 <= found["score"] <= 100
    assert set(found) == {"score", "loss", "test"}
    data = task_objective.data
    assert isinstance(task_objective.task(), Segmentation) and data.size("validation") == 6


def test_a_training_that_diverges_has_no_score(stage: Stage) -> None:
    found = objective(stage, optimizer=partial(torch.optim.SGD, lr=float("1e30"))).train(TOP1, 4)
    assert np.isnan(found["score"])


def test_costs_are_those_of_table_1_at_the_map(stage: Stage) -> None:
    cost = table_cost(TOP1, 4, 4, (13, 13))
    assert objective(stage).count(TOP1) == {"parameters": cost.parameters, "madds": cost.madds}


def test_whole_networks_are_trained_from_the_caches_backbone(stage: Stage) -> None:
    assert isinstance(stage.model, DeepLab)
    data = squares()
    data.setup()
    whole = NetworkObjective(CellSpace(), stage.model, data, recipe(), measure_test=False)
    before = {name: value.clone() for name, value in stage.model.state_dict().items()}
    built: Any = whole.build(TOP1)
    assert all(
        torch.equal(built.backbone.state_dict()[n], v) for n, v in stage.model.backbone.state_dict().items()
    )
    assert all(parameter.requires_grad for parameter in built.parameters())
    assert set(whole.train(TOP1, 2)) == {"score", "loss"}
    assert all(torch.equal(value, before[name]) for name, value in stage.model.state_dict().items())


# --- the search


def search(stage: Stage, **changes: Any) -> CellSearchModule:
    method = CellSearch(
        searcher=MixtureSearch(near=0.5, best=2),
        optimizer=partial(torch.optim.Adam, lr=0.01),
        features=stage,
        full_features=None,
        power=0.9,
        **SMALL_SPACE,  # type: ignore[arg-type]
    )
    return CellSearchModule(data=squares(), model=network(), method=method, seed=0, **(BUDGET | changes))


@pytest.mark.parametrize("in_full", ["cached", "end_to_end"])
def test_a_search_finds_a_cell_and_says_what_it_is_worth(tmp_path: Path, stage: Stage, in_full: Any) -> None:
    module: Any = fit(search(stage, in_full=in_full), tmp_path)
    found = module.results()
    assert found["space_size"] == 6 * 6**3
    assert (found["evaluations"], len(module.ranked), len(module.compared)) == (4, 3, 1)
    cell = CellSpace(**SMALL_SPACE).decode(tuple(found["found"]))  # type: ignore[arg-type]
    assert json.loads((tmp_path / "found.json").read_text()) == cell.to_json()
    assert found["gain_over_pointwise"] == found["found_test"] - found["pointwise_test"]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit"])
def test_workers_read_the_one_cache_and_give_the_same_scores(
    tmp_path: Path, stage: Stage, launcher: Any
) -> None:
    cells = [TOP1, POINTWISE]
    alone, shared = (
        evaluate_all(
            [Job(objective(stage), cell, 2, tmp_path / name / f"{k}.json") for k, cell in enumerate(cells)],
            workers,
        )
        for name, workers in (("one", Workers()), ("two", Workers(processes=2, launcher=launcher)))
    )
    assert [item.measures for item in shared] == [item.measures for item in alone]
    assert all(item.failure is None for item in shared)


def untimed(module: PaperModule) -> dict[str, Any]:
    return {name: value for name, value in module.results().items() if "minutes" not in name}


def test_a_search_that_was_killed_goes_on_to_the_same_end(tmp_path: Path, stage: Stage) -> None:
    whole = fit(search(stage), tmp_path / "whole")
    begun = fit(search(stage), tmp_path / "broken", steps=1)
    again = search(stage)
    again.load_search_state(begun.search_state())
    assert untimed(fit(again, tmp_path / "broken")) == untimed(whole)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"references": ["top9"]}, "cell top9: valid: top1"),
        ({"proxy_share": 0.0}, r"paper\.proxy_share"),
    ],
)
def test_what_cannot_be_searched_is_refused(stage: Stage, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        search(stage, **changes)


def test_a_search_without_a_validation_split_says_what_is_valid(tmp_path: Path) -> None:
    module = CacheModule(
        data=squares(validation=0.0),
        model=network(),
        method=FeatureCache(calibrate=False, mirror=False, precision="float32"),
    )
    fit(module, tmp_path)
    stage = Stage(words="x=y", key="dpc/0", metrics={}, model=module.network(), folder=tmp_path)
    with pytest.raises(UserError, match=r"paper\.score_split=validation: the data have no such split"):
        search(stage)
    fit(search(stage, score_split="test"), tmp_path / "on_test")


def test_a_stage_that_makes_no_cache_is_refused(stage: Stage) -> None:
    other = Stage(
        words="model=mlp", key="dpc/1", metrics={}, model=torch.nn.Linear(1, 1), folder=stage.folder
    )
    with pytest.raises(UserError, match="is no run that makes a cache"):
        search(other)


# --- whole networks


def test_the_paper_has_a_module_for_each_kind_of_method(stage: Stage) -> None:
    settings: dict[str, Any] = BUDGET | {
        "data": squares(), "model": network(), "seed": 0, "make_model": network, "schedule": None,
        "start": None, "epochs": 1.0, "test_every": None, "pixels": "mean", "measure_gradient": False,
        "cost_size": None,
    }  # fmt: skip
    cache: Any = FeatureCache(calibrate=False, mirror=False, precision="float32")
    assert isinstance(DPCModule(method=cache, **settings), CacheModule)
    method: Any = CellSearch(
        searcher=MixtureSearch(near=0.5, best=2),
        optimizer=None,
        features=stage,
        full_features=None,
        power=0.9,
        **SMALL_SPACE,  # type: ignore[arg-type]
    )
    assert isinstance(DPCModule(method=method, **settings), CellSearchModule)


def test_costs_and_norms_of_a_network_are_told() -> None:
    whole = network(shape=(3, 1024, 2048), backbone="mobilenet_v2", output_stride=16, filters=256)
    cost = table_cost(TOP1, 320, 256, (65, 129))
    assert head_cost(whole, (1024, 2048)) == cost
    norms = branch_norms(whole)
    assert sorted(norms[f"branch{k}_rank"] for k in range(5)) == [1, 2, 3, 4, 5]
    largest = max(range(5), key=lambda k: norms[f"branch{k}_norm"])
    assert norms[f"branch{largest}_rank"] == 1
    assert branch_norms(network(head="aspp")) == {}
