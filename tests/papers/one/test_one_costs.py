"""The costs and parameters of the paper's tables, and the loss around a minimum."""

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import nn

from common.base.method import TrainingMethod
from common.claims.claims import load_claims
from common.distillation.ensembles import Independent, Snapshot
from common.distillation.mutual import Mutual
from common.distillation.teacher import Teacher
from common.metrics.parameters import count_parameters
from common.models.weightless import weightless
from common.tables.tables import ROOT, entries, load_tables, metric_keys, runnable
from common.training.tasks import Classification
from papers.one.costs import costs
from papers.one.one import ONE
from papers.one.perturbation import moved, perturbed_losses, random_direction

SHAPE = (3, 32, 32)
SGD = partial(torch.optim.SGD, lr=0.1)


def network(name: str, classes: int = 100, **keys: Any) -> nn.Module:
    config = yaml.safe_load((ROOT / "conf" / "model" / f"{name}.yaml").read_text()) | keys
    with weightless():
        return get_object(config.pop("_target_"))(shape=SHAPE, classes=classes, **config)


def resnet32() -> nn.Module:
    return network("resnet32", shortcut="B")


def resnet110() -> nn.Module:
    """The authors' "ResNet-110"."""
    return network("resnet164")


def attached(method: TrainingMethod, make_model: Callable[[], nn.Module]) -> dict[str, float]:
    method.task = Classification(100)
    data: Any = SimpleNamespace(shape=SHAPE)
    with weightless():
        return costs(method.attach(make_model(), make_model, data), method, SHAPE)


def one(branches: int = 3, share: bool = True) -> ONE:
    return ONE(
        optimizer=SGD,
        branches=branches,
        unshared=1,
        temperature=3.0,
        kl_rampup=80 / 300,
        distill=True,
        share=share,
        gate=True,
        gate_source="mean",
    )


def test_the_costs_of_resnet32_are_those_of_table_3() -> None:
    found = attached(one(), resnet32)
    assert {name: round(cost, 2) for name, cost in found.items()} == {
        "train_cost": 2.28,
        "test_cost": 1.38,
        "ensemble_cost": 2.28,
    }


def test_the_paper_trains_the_bottleneck_resnet110_and_tests_the_basic_one() -> None:
    found = attached(one(), resnet110)
    assert round(found["train_cost"], 2) == 8.29
    assert round(found["test_cost"], 2) == 4.95
    assert costs(network("resnet110"), TrainingMethod(optimizer=SGD), SHAPE)["test_cost"] == pytest.approx(
        5.05, abs=0.01
    )


def test_ensembles_cost_as_many_nets_as_they_have() -> None:
    plain = costs(resnet32(), TrainingMethod(optimizer=SGD), SHAPE)["test_cost"]
    expected = {
        Mutual(optimizer=SGD, nets=2): (2, 2),
        Independent(optimizer=SGD, nets=3): (3, 3),
        Snapshot(optimizer=SGD, snapshots=5): (1, 5),
        TrainingMethod(optimizer=SGD): (1, 1),
    }
    for method, (train, test) in expected.items():
        found = attached(method, resnet32)
        assert found["train_cost"] == pytest.approx(train * plain)
        assert found["ensemble_cost"] == pytest.approx(test * plain)
        assert found["test_cost"] == plain


def test_a_teacher_costs_its_forward_pass_too() -> None:
    method = TrainingMethod(optimizer=SGD)
    method.teacher = Teacher(resnet110())  # type: ignore[assignment]
    teacher = costs(resnet110(), TrainingMethod(optimizer=SGD), SHAPE)["test_cost"]
    found = attached(method, resnet32)
    assert found["train_cost"] == pytest.approx(found["test_cost"] + teacher)
    assert found["train_cost"] == pytest.approx(6.43, abs=0.1)


def test_without_sharing_three_branches_cost_three_nets_and_the_gates() -> None:
    found = attached(one(share=False), resnet32)
    gate_and_sum = 2e-8 * (32 * 3 + 3 * 100)
    assert found["train_cost"] == pytest.approx(3 * found["test_cost"] + gate_and_sum)


@pytest.mark.parametrize(
    ("row", "millions"),
    [("resnet32", 0.5), ("resnet110", 1.7), ("resnext29_8x64d", 34.4), ("densenet_bc_190_40", 25.6)],
)
def test_the_backbones_have_the_parameters_of_table_1(row: str, millions: float) -> None:
    entry = next(e for e in runnable("one") if e.name == f"one.table1.cifar10_{row}_vanilla")
    keys = {
        key.removeprefix("model."): value
        for key, value in (entry.values | entry.budget["paper"]).items()
        if key.startswith("model.")
    }
    size = count_parameters(network(entry.choose["model"], 10, **keys))
    assert round(size / 1e6, 1) == millions
    assert entry.reported["parameters"] == pytest.approx(millions * 1e6)


def test_rows_of_one_and_one_e_are_one_run_and_ablations_differ_in_one_key() -> None:
    rows = {e.name.removeprefix("one."): e for e in entries("one")}
    for net in ("resnet32", "resnet110"):
        first, second = (rows[f"table4.ens_{net}_{kind}"] for kind in ("one", "one_e"))
        assert (first.choose, first.values, first.budget) == (second.choose, second.values, second.budget)
    full = rows["table5.abl_full"].values
    for part in ("distill", "share", "gate"):
        ablated = rows[f"table5.abl_no_{part}"].values
        assert set(ablated.items()) - set(full.items()) == {(f"method.{part}", False)}


def test_every_run_of_a_claim_is_an_entry_and_its_metric_one_of_the_tables() -> None:
    known = {entry.name: entry for entry in runnable("one")}
    for claim in load_claims("one"):
        for run in claim.all_runs():
            words = dict(word.split("=", 1) for word in run.words)
            assert claim.rule.metric in metric_keys("one", known[words["entry"]].table).values()
            assert set(words) <= {"scale", "entry", "seed", "dataset.source"}
    assert len(load_tables("one")["tables"]) == 9


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3, 4))


def test_a_filter_scaled_direction_has_the_norm_of_each_filter_and_leaves_the_rest() -> None:
    model = small()
    direction = random_direction(model, "filter", torch.Generator().manual_seed(0))
    for part, p in zip(direction, model.parameters(), strict=True):
        if p.dim() < 2:
            assert not part.any()
        else:
            torch.testing.assert_close(part.flatten(1).norm(dim=1), p.flatten(1).norm(dim=1))


def test_a_unit_direction_has_norm_1_over_all_parameters() -> None:
    direction = random_direction(small(), "unit", torch.Generator().manual_seed(0))
    assert torch.cat([part.flatten() for part in direction]).norm().item() == pytest.approx(1)


def test_on_a_quadratic_the_perturbed_loss_is_the_closed_form_and_the_model_is_put_back_exactly() -> None:
    model = nn.Linear(40, 30, bias=False)
    before = model.weight.detach().clone()

    def losses() -> dict[str, float]:
        with torch.no_grad():
            return {"test": float((model.weight - before).square().sum())}

    found = perturbed_losses(model, losses, [0.0, 0.5, 2.0], 3, "unit", seed=0)
    assert found["test"] == pytest.approx([0.0, 0.25, 4.0], rel=1e-4)
    assert torch.equal(model.weight, before)
    with moved(model, [torch.ones_like(before)], 2.0):
        torch.testing.assert_close(model.weight, before + 2)
