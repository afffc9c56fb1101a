"""Methods within methods: their losses against the terms written out, and what does not go together."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.method import TrainingMethod
from common.base.stages import Stage
from common.base.task import Task
from common.distillation.ensembles import Independent, Snapshot
from common.distillation.hints import AttentionTransfer, KnowledgeDistillation
from common.distillation.losses import at_loss, attention_map, kd_loss
from common.distillation.mutual import Mutual, mutual_divergence
from common.models.features import forward_features
from common.models.resnet import ResNet
from common.training.tasks import Classification

SGD = partial(torch.optim.SGD, lr=0.1)
SHAPE = (1, 8, 8)
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = torch.randn(8, *SHAPE, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.randint(10, (8,), generator=GENERATOR)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Networks and what they are probed with are in double precision."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Data:
    """Eight examples."""

    shape, classes, evaluation_batch = SHAPE, 10, 8

    def size(self, split: str) -> int:
        return 8

    def batches(self, split: str, size: int) -> list[tuple[Tensor, Tensor]]:
        return [(INPUTS, TARGETS)]


def net(seed: int = 0, width: int = 4) -> ResNet:
    torch.manual_seed(seed)
    return ResNet(shape=SHAPE, classes=10, blocks=[1, 1], width=width, block="basic", shortcut="B")


def stage(model: nn.Module) -> Stage:
    return Stage(words="model=x", key="", metrics={}, model=model)


def kd(teacher: nn.Module, inner: TrainingMethod | None = None) -> KnowledgeDistillation:
    return KnowledgeDistillation(
        optimizer=SGD,
        inner=inner,
        teacher=stage(teacher),
        ce_weight=0.3,
        kd_weight=0.7,
        temperature=4.0,
        reduction="sample",
    )


def at(teacher: nn.Module, inner: TrainingMethod | None = None, ce_weight: float = 0.5) -> AttentionTransfer:
    return AttentionTransfer(
        optimizer=SGD,
        inner=inner,
        teacher=stage(teacher),
        beta=100.0,
        reference_pixels=None,
        reduction="mean_square",
        layers=None,
        beta_decay="none",
        ce_weight=ce_weight,
        kd_weight=0.0,
        temperature=4.0,
        kd_reduction="sample",
    )


def attached(method: TrainingMethod, student: nn.Module) -> TrainingMethod:
    data: Any = Data()
    made = iter(range(1, 9))
    method.prepare(Classification(10), 2.0)
    assert method.attach(student, lambda: net(next(made)), data) is student
    return method


def terms(student: nn.Module, for_kd: nn.Module, for_at: nn.Module) -> tuple[Tensor, Tensor, Tensor]:
    """CE, KD's term and AT's (of two layers, so 3 / 2 times their sum)."""
    logits, features = forward_features(student, INPUTS)
    with torch.no_grad():
        theirs, maps = for_kd.eval()(INPUTS), forward_features(for_at.eval(), INPUTS)[1]
    pairs = zip(features.values(), maps.values(), strict=True)
    distances = [at_loss(attention_map(a), attention_map(b), "mean_square") for a, b in pairs]
    imitation = kd_loss(logits, theirs, 4.0, "sample")
    return functional.cross_entropy(logits, TARGETS), imitation, 1.5 * torch.stack(distances).sum()


def test_each_method_of_a_chain_weighs_what_the_one_within_it_asks_for() -> None:
    one, two, student = net(7, 8), net(8, 8), net()
    ce, imitation, attention = terms(student, one, two)
    expected = {
        at(two, inner=kd(one)): 0.5 * (0.3 * ce + 0.7 * imitation) + 100 * attention,
        kd(one, inner=at(two)): 0.3 * (0.5 * ce + 100 * attention) + 0.7 * imitation,
        at(two, inner=Snapshot(optimizer=SGD, snapshots=2, inner=kd(one)), ce_weight=1.0): (
            0.3 * ce + 0.7 * imitation + 100 * attention
        ),
        Snapshot(optimizer=SGD, snapshots=2, inner=kd(one)): 0.3 * ce + 0.7 * imitation,
        kd(one, inner=TrainingMethod(optimizer=SGD)): 0.3 * ce + 0.7 * imitation,
    }
    for method, loss in expected.items():
        found = attached(method, student).loss(student, INPUTS, TARGETS)
        torch.testing.assert_close(found, loss, rtol=1e-12, atol=1e-14)


def test_two_teachers_teach_one_student() -> None:
    one, two, student = net(7, 8), net(8, 8), net()
    ce, first, _ = terms(student, one, one)
    _, second, _ = terms(student, two, two)
    found = attached(kd(two, inner=kd(one)), student).loss(student, INPUTS, TARGETS)
    torch.testing.assert_close(found, 0.3 * (0.3 * ce + 0.7 * first) + 0.7 * second)


def test_a_chain_makes_one_forward_pass_and_adds_the_penalty_once() -> None:
    class Penalised(nn.Module):
        task = "classification"
        features: tuple[str, ...] = ()

        def __init__(self) -> None:
            super().__init__()
            self.body, self.passes = net(), 0
            self.body.features, self.features = (
                self.body.features,
                tuple(f"body.{name}" for name in self.body.features),
            )

        def forward(self, inputs: Tensor) -> Tensor:
            self.passes += 1
            return self.body(inputs)

        def penalty(self) -> Tensor:
            return torch.tensor(2.0, dtype=torch.float64)

    teacher, student = net(7, 8), Penalised()
    method = attached(at(teacher, inner=kd(teacher)), student)
    student.passes = 0
    found = method.loss(student, INPUTS, TARGETS)
    assert student.passes == 1
    ce, imitation, attention = terms(student.body, teacher, teacher)
    torch.testing.assert_close(found, 0.5 * (0.3 * ce + 0.7 * imitation) + 100 * attention + 2)


@pytest.mark.parametrize("kind", [Independent, Mutual])
def test_every_one_of_several_networks_learns_from_the_teacher(kind: type[Any]) -> None:
    teacher, student = net(7, 8), net()
    method = attached(kind(optimizer=SGD, nets=3, inner=at(teacher, inner=kd(teacher))), student)
    expected = torch.zeros((), dtype=torch.float64)
    assert isinstance(method, Independent | Mutual)
    for one in method.networks(student):
        ce, imitation, attention = terms(one, teacher, teacher)
        expected = expected + 0.5 * (0.3 * ce + 0.7 * imitation) + 100 * attention
    if kind is Mutual:
        logits = torch.stack([one(INPUTS) for one in method.networks(student)], dim=1)
        expected = expected + mutual_divergence(logits)
    found = method.loss(student, INPUTS, TARGETS)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    assert set(method.evaluate(student, Data(), "test")) >= {"test_ensemble_error"}  # type: ignore[arg-type]


@pytest.mark.parametrize("outer", [kd, at])
def test_a_method_that_makes_its_own_passes_is_within_none_that_adds_to_the_loss(outer: Any) -> None:
    for inner in (Independent(optimizer=SGD, nets=2), Mutual(optimizer=SGD, nets=2)):
        with pytest.raises(UserError, match=r"^method\.inner: \w+ makes forward passes of its own, and \w+ "):
            outer(net(7), inner=inner)
    with pytest.raises(UserError, match=r"^method\.inner: Independent makes forward passes of its own"):
        Mutual(optimizer=SGD, nets=2, inner=Independent(optimizer=SGD, nets=2))


def test_several_networks_refuse_a_method_that_keeps_something_of_one() -> None:
    with pytest.raises(UserError, match=r"^method\.inner: Snapshot holds what belongs to one network"):
        attached(Independent(optimizer=SGD, nets=2, inner=Snapshot(optimizer=SGD, snapshots=2)), net())


def test_a_method_that_leaves_the_loss_alone_takes_any() -> None:
    student = net()
    peers = Independent(optimizer=SGD, nets=2)
    method = attached(Snapshot(optimizer=SGD, snapshots=1, inner=peers), student)
    task: Task = Classification(10)
    expected = sum(task.loss(one, INPUTS, TARGETS) for one in peers.networks(student))
    torch.testing.assert_close(method.loss(student, INPUTS, TARGETS), expected)
    found = method.evaluate(student, Data(), "test")  # type: ignore[arg-type]
    assert {"test_ensemble_error", "inner_test_ensemble_error"} <= set(found)


def test_what_the_method_within_refuses_names_its_key() -> None:
    student = net()
    with pytest.raises(UserError, match=r"^method\.inner\.layers="):
        inner = at(ResNet(shape=SHAPE, classes=10, blocks=[1], width=4, block="basic", shortcut="B"))
        attached(kd(net(7), inner=inner), student)
