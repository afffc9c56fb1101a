"""ONE's loss against closed forms, and its branches against the networks that they are made of."""

import math
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.models.densenet import DenseNet
from common.models.imagenet_resnet import ImageNetResNet
from common.models.mlp import MLP
from common.models.resnet import CifarResNet, ResNet
from common.models.vgg import VGG
from common.models.wide_resnet import WideResNet
from common.runs.compose import compose
from common.training.tasks import Classification
from papers.one.one import ONE, Gate, ensemble_logits, kl_ramp, one_loss

SHAPE, CLASSES = (3, 32, 32), 4
FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "resnet": partial(ResNet, blocks=[1, 1], width=4, block="basic", shortcut="B"),
    "cifar": partial(CifarResNet, depth=8, block="basic", shortcut="A"),
    "bottleneck": partial(CifarResNet, depth=11, block="bottleneck", shortcut="B"),
    "wrn": partial(WideResNet, depth=10, width=1),
    "densenet": partial(DenseNet, depth=10, growth=4, bc=True),
    "vgg": partial(
        VGG, widths=[[4], [8]], batch_norm=True, last_pool="max", pixels=1, hidden=[], dropout=0.0
    ),
    "imagenet": partial(ImageNetResNet, blocks=[1, 1, 1, 1], widths=[4, 8, 8, 8], block="basic"),
}
DEFAULTS: dict[str, Any] = {
    "optimizer": partial(torch.optim.SGD, lr=0.1),
    "branches": 3,
    "unshared": 1,
    "temperature": 3.0,
    "kl_rampup": 0.0,
    "distill": True,
    "share": True,
    "gate": True,
    "gate_source": "mean",
}


def attached(family: str = "resnet", **keys: Any) -> tuple[ONE, nn.Module]:
    torch.manual_seed(0)
    make_model = partial(FAMILIES[family], shape=SHAPE, classes=CLASSES)
    one = ONE(**(DEFAULTS | keys))
    one.task = Classification(CLASSES)
    data: Any = SimpleNamespace(shape=SHAPE)
    student = make_model()
    assert one.attach(student, make_model, data) is student
    return one, student


def random_case(branches: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(7, branches, CLASSES, generator=generator)
    gates = functional.softmax(torch.randn(7, branches, generator=generator), dim=1)
    return logits, gates, torch.randint(CLASSES, (7,), generator=generator)


@given(st.integers(0, 10**6), st.integers(1, 5), st.floats(0.5, 8), st.floats(0, 2))
@settings(max_examples=40, deadline=None)
def test_the_gradients_are_the_closed_forms_and_the_gate_learns_from_the_ensembles_loss_alone(
    seed: int, branches: int, T: float, w: float
) -> None:
    z, g, y = random_case(branches, seed)
    z.requires_grad_()
    g.requires_grad_()
    one_loss(z, g, y, T, w).backward()
    with torch.no_grad():
        b = len(z)
        ensemble = ensemble_logits(z, g)
        hot = functional.one_hot(y, CLASSES)
        p, p_e = z.softmax(2), ensemble.softmax(1)
        soft, soft_e = (z / T).softmax(2), (ensemble / T).softmax(1)
        from_ensemble = g[:, :, None] * (p_e - hot)[:, None]
        expected = (p - hot[:, None]) + from_ensemble + w * T * (soft - soft_e[:, None])
        gate_expected = torch.einsum("bk,bik->bi", p_e - hot, z)
    assert z.grad is not None and g.grad is not None
    torch.testing.assert_close(z.grad, expected / b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(g.grad, gate_expected / b, rtol=1e-4, atol=1e-5)


def test_the_loss_is_the_sum_of_its_terms_as_pytorch_writes_them() -> None:
    z, g, y = random_case(3)
    T, w = 3.0, 0.7
    ensemble = (g[:, :, None] * z).sum(1)
    expected = functional.cross_entropy(ensemble, y)
    for i in range(3):
        student, teacher = functional.log_softmax(z[:, i] / T, 1), functional.softmax(ensemble / T, 1)
        expected = expected + functional.cross_entropy(z[:, i], y)
        expected = expected + w * T**2 * functional.kl_div(student, teacher, reduction="batchmean")
    torch.testing.assert_close(one_loss(z, g, y, T, w), expected)


def test_equal_branches_have_no_divergence_for_any_gate() -> None:
    z, g, y = random_case(3)
    z = z[:, :1].repeat(1, 3, 1)
    torch.testing.assert_close(one_loss(z, g, y, 3.0, 1.0), one_loss(z, g, y, 3.0, 0.0))


@given(st.integers(0, 10**6), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_the_ensemble_lies_within_its_branches_class_by_class(seed: int, branches: int) -> None:
    z, g, _ = random_case(branches, seed)
    ensemble = ensemble_logits(z, g)
    assert (ensemble <= z.amax(1) + 1e-5).all()
    assert (ensemble >= z.amin(1) - 1e-5).all()


def test_a_single_branch_has_exactly_twice_the_plain_gradient() -> None:
    one, student = attached(branches=1)
    twin = deepcopy(student)
    images, labels = torch.randn(6, *SHAPE), torch.randint(CLASSES, (6,))
    one.loss(student, images, labels).backward()
    functional.cross_entropy(twin(images), labels).backward()
    for own, plain in zip(student.parameters(), twin.parameters(), strict=True):
        assert own.grad is not None and plain.grad is not None
        torch.testing.assert_close(own.grad, 2 * plain.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_student_is_branch_0_and_the_others_start_elsewhere(family: str) -> None:
    one, student = attached(family)
    images = torch.randn(4, *SHAPE)
    one.eval()
    student.eval()
    with torch.no_grad():
        logits, gates = one.run(student, images)
        torch.testing.assert_close(logits[:, 0], student(images), rtol=0, atol=0)
        torch.testing.assert_close(logits[:, 0], one.deployed(student)(images), rtol=0, atol=0)
    assert logits.shape == (4, 3, CLASSES)
    assert not torch.allclose(logits[:, 0], logits[:, 1])
    torch.testing.assert_close(gates.sum(1), torch.ones(4))
    assert set(student.state_dict()) == set(FAMILIES[family](shape=SHAPE, classes=CLASSES).state_dict())


@pytest.mark.parametrize("family", FAMILIES)
def test_after_training_the_students_weights_in_a_plain_net_give_branch_0s_logits(family: str) -> None:
    one, student = attached(family)
    optimizer = torch.optim.SGD([*student.parameters(), *one.parameters()], lr=0.01)
    images, labels = torch.randn(6, *SHAPE), torch.randint(CLASSES, (6,))
    for _ in range(2):
        optimizer.zero_grad()
        one.loss(student, images, labels).backward()
        assert all(p.grad is not None for p in [*student.parameters(), *one.parameters()])
        optimizer.step()
    plain = FAMILIES[family](shape=SHAPE, classes=CLASSES)
    plain.load_state_dict(one.deployed(student).state_dict())
    with torch.no_grad():
        expected = one.eval().run(student.eval(), images)[0][:, 0]
        torch.testing.assert_close(plain.eval()(images), expected, rtol=0, atol=0)


def test_every_branch_normalises_with_its_own_statistics() -> None:
    one, student = attached("cifar")
    images = torch.randn(6, *SHAPE)
    with torch.no_grad():
        one.run(student, images)
    statistics = [b for high in one.highs for name, b in high.named_buffers() if "running_mean" in name]
    half = len(statistics) // 2
    assert half > 0
    assert not any(torch.allclose(a, b) for a, b in zip(statistics[:half], statistics[half:], strict=True))
    counts = [b for name, b in [*one.named_buffers(), *student.named_buffers()] if "batches" in name]
    assert {int(count) for count in counts} == {1}


def test_without_sharing_the_branches_are_whole_networks_and_the_gate_sees_as_told() -> None:
    one, student = attached(share=False)
    images = torch.randn(5, *SHAPE)
    whole = 2 * sum(p.numel() for p in student.parameters())
    gate = one.gate
    assert gate is not None
    assert sum(p.numel() for p in [*one.lows.parameters(), *one.highs.parameters()]) == whole
    with torch.no_grad():
        one.eval()
        student.eval()
        _, gates = one.run(student, images)
        maps = [low(images).mean(dim=(2, 3)) for low in (student.split(1)[0], *one.lows)]
        torch.testing.assert_close(gates, gate(torch.stack(maps).mean(0)))
        one.gate_source = "first"
        torch.testing.assert_close(one.run(student, images)[1], gate(maps[0]))


def test_without_gate_the_teacher_is_the_mean_of_the_branches() -> None:
    one, student = attached(gate=False)
    logits, gates = one.run(student, torch.randn(5, *SHAPE))
    torch.testing.assert_close(ensemble_logits(logits, gates), logits.mean(1))
    assert one.gate is None


def test_without_distillation_the_loss_has_no_divergence() -> None:
    images, labels = torch.randn(6, *SHAPE), torch.randint(CLASSES, (6,))
    losses = {}
    for distill in (True, False):
        one, student = attached(distill=distill)
        losses[distill] = one.loss(student, images, labels)
    one, student = attached()
    logits, gates = one.run(student, images)
    torch.testing.assert_close(losses[False], one_loss(logits, gates, labels, 3.0, 0.0))
    torch.testing.assert_close(losses[True], one_loss(logits, gates, labels, 3.0, 1.0))
    assert losses[True] > losses[False]


def test_the_gate_is_written_out_and_takes_a_batch_of_one() -> None:
    torch.manual_seed(0)
    gate, h = Gate(5, 3), torch.randn(8, 5)
    scores = h @ gate.linear.weight.T + gate.linear.bias
    normed = (scores - scores.mean(0)) / (scores.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(gate(h), functional.softmax(normed.clamp(min=0), dim=1))
    before = gate.norm.running_mean.clone()  # type: ignore[union-attr]
    assert gate(h[:1]).shape == (1, 3)
    assert torch.equal(gate.norm.running_mean, before)  # type: ignore[arg-type]
    assert gate.norm.training


def test_the_ramp_goes_from_exp_minus_5_to_1_and_never_falls() -> None:
    weights = [kl_ramp(epoch, 80) for epoch in range(300)]
    assert weights[0] == math.exp(-5)
    assert weights[40] == pytest.approx(math.exp(-1.25))
    assert set(weights[80:]) == {1.0}
    assert weights == sorted(weights)
    assert kl_ramp(0, 0) == 1.0


@pytest.mark.parametrize(
    ("epochs", "mean"), [(300, 0.837), (150, 0.836), (60, 0.831), (20, 0.814), (5, 0.748)]
)
def test_the_ramp_takes_the_same_share_of_a_run_of_any_length(epochs: int, mean: float) -> None:
    one, _ = attached(kl_rampup=80 / 300)
    one.epochs = float(epochs)
    weights = []
    for epoch in range(epochs):
        one.start_epoch(epoch)
        weights.append(one.kl_weight())
    assert weights == [kl_ramp(epoch, 80 * epochs / 300) for epoch in range(epochs)]
    assert sum(weights) / epochs == pytest.approx(mean, abs=6e-4)


def test_at_the_papers_300_epochs_the_ramp_is_exactly_the_authors_80() -> None:
    config, _ = compose(["entry=one.table1.cifar100_resnet32_one"])
    assert config.paper.epochs == 300
    one, _ = attached(kl_rampup=config.method.kl_rampup)
    one.epochs = config.paper.epochs
    for epoch in range(300):
        one.start_epoch(epoch)
        assert one.kl_weight() == kl_ramp(epoch, 80.0)


@pytest.mark.parametrize("epochs", [0.5, 1.0, 3.0])
def test_a_run_too_short_for_a_ramp_is_distilled_from_its_start(epochs: float) -> None:
    one, _ = attached(kl_rampup=80 / 300)
    one.epochs = epochs
    assert one.kl_weight() == 1.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_the_loss_is_computed_in_float64_where_the_logits_are_and_else_in_float32(dtype: torch.dtype) -> None:
    z, g, y = random_case(3)
    z, g = z.to(dtype), g.to(dtype)
    found = one_loss(z, g, y, 3.0, 0.7)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert found.dtype == wide
    torch.testing.assert_close(found, one_loss(z.to(wide), g.to(wide), y, 3.0, 0.7), rtol=0, atol=0)
    torch.testing.assert_close(one_loss(z, g.float(), y, 3.0, 0.7), found, rtol=1e-6, atol=0)


def test_without_the_detached_target_the_gradients_in_float64_are_those_of_differences() -> None:
    z, g, y = random_case(3)
    z, g = z.double().requires_grad_(), g.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda z, g: one_loss(z, g, y, 3.0, 0.0), (z, g))


@pytest.mark.parametrize("gate", [True, False])
def test_a_network_in_float64_is_trained_in_float64(gate: bool) -> None:
    one, student = attached(gate=gate)
    one.double(), student.double()
    images, labels = torch.randn(6, *SHAPE, dtype=torch.float64), torch.randint(CLASSES, (6,))
    loss = one.loss(student, images, labels)
    assert loss.dtype == torch.float64
    loss.backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float64 for p in student.parameters())


def test_the_ramp_follows_the_epoch_under_way() -> None:
    images, labels = torch.randn(6, *SHAPE), torch.randint(CLASSES, (6,))
    one, student = attached(kl_rampup=0.25)
    # of 16 epochs: 4
    one.epochs = 16.0
    one.start_epoch(2)
    with torch.no_grad():
        found = one.loss(student, images, labels)
        logits, gates = one.run(student, images)
    torch.testing.assert_close(found, one_loss(logits, gates, labels, 3.0, math.exp(-1.25)))


def test_what_cannot_be_is_refused_in_one_line() -> None:
    wrong: list[tuple[str, float, str]] = [("branches", 0, "at least 1"), ("unshared", 0, "at least 1")]
    wrong += [("temperature", value, "positive") for value in (0.0, -1.0, math.nan, math.inf)]
    wrong += [("kl_rampup", value, "from 0 to 1") for value in (-0.1, 80.0, math.nan)]
    for key, value, valid in wrong:
        with pytest.raises(UserError, match=f"method.{key}={value}: must be {valid} and finite"):
            ONE(**(DEFAULTS | {key: value}))
    with pytest.raises(UserError, match="valid: 1 to 1 of 2 stages"):
        attached(unshared=2)
    one = ONE(**DEFAULTS)
    one.task = Classification(CLASSES)
    make_model = partial(MLP, shape=SHAPE, classes=CLASSES, hidden=[3], activation="relu")
    data: Any = SimpleNamespace(shape=SHAPE)
    with pytest.raises(UserError, match="MLP cannot be cut"):
        one.attach(make_model(), make_model, data)
