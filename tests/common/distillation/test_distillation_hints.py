"""The distillers' objectives against their terms written out, and what they refuse."""

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.data.bundled import Digits
from common.distillation.distiller import Distiller, feature_shapes
from common.distillation.hints import AttentionTransfer, KnowledgeDistillation
from common.distillation.losses import at_loss, attention_map, kd_loss
from common.distillation.teacher import Teacher
from common.models.features import forward_features
from common.models.resnet import ResNet
from common.runs.compose import compose
from common.runs.errors import UserError
from common.runs.pipeline import make_stages
from common.runs.runner import build, execute, trained_module
from common.runs.stages import Stage
from common.training.supervised import SupervisedModule
from common.training.tasks import Classification, Regression

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

SGD = partial(torch.optim.SGD, lr=0.1)
SHAPE = (1, 8, 8)


def resnet(blocks: int = 2, width: int = 4, classes: int = 10) -> ResNet:
    return ResNet(shape=SHAPE, classes=classes, blocks=[1] * blocks, width=width, block="basic", shortcut="B")


def stage(model: nn.Module) -> Stage:
    return Stage(words="model=x", key="", metrics={}, model=model)


def digits() -> Digits:
    config, _ = compose(["paper=yogi", "dataset=digits"])
    options: dict[str, Any] = {k: v for k, v in config.dataset.items() if k != "_target_"}
    return Digits(**options)


def attached(distiller: Distiller, student: nn.Module) -> Distiller:
    distiller.task = Classification(10)
    distiller.attach(student, lambda: student, digits())
    return distiller


def kd(model: nn.Module, **changes: Any) -> KnowledgeDistillation:
    options: dict[str, Any] = {"ce_weight": 0.1, "kd_weight": 0.9, "temperature": 4.0, "reduction": "sample"}
    return KnowledgeDistillation(optimizer=SGD, teacher=stage(model), **(options | changes))


def at(model: nn.Module, **changes: Any) -> AttentionTransfer:
    options: dict[str, Any] = {"beta": 1000.0, "reduction": "mean_square", "layers": None}
    options |= {"beta_decay": "none", "ce_weight": 1.0, "kd_weight": 0.0, "temperature": 4.0}
    options |= {"kd_reduction": "sample"}
    return AttentionTransfer(optimizer=SGD, teacher=stage(model), **(options | changes))


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(8, *SHAPE, generator=generator), torch.randint(10, (8,), generator=generator)


def test_kd_is_the_weighted_sum_of_its_terms(batch: tuple[Tensor, Tensor]) -> None:
    inputs, targets = batch
    student, teacher = resnet(), resnet(width=8)
    found = attached(kd(teacher), student).loss(student, inputs, targets)
    logits = student(inputs)
    imitation = kd_loss(logits, teacher.eval()(inputs), 4.0, "sample")
    torch.testing.assert_close(found, 0.1 * functional.cross_entropy(logits, targets) + 0.9 * imitation)


@pytest.mark.parametrize("make", [lambda m: kd(m, ce_weight=1.0, kd_weight=0.0), lambda m: at(m, beta=0.0)])
def test_without_the_teachers_term_the_gradient_is_cross_entropys(
    make: Callable[[nn.Module], Distiller], batch: tuple[Tensor, Tensor]
) -> None:
    inputs, targets = batch
    student = resnet()
    attached(make(resnet(width=8)), student).loss(student, inputs, targets).backward()
    found = [parameter.grad for parameter in student.parameters()]
    student.zero_grad()
    functional.cross_entropy(student(inputs), targets).backward()
    for grad, parameter in zip(found, student.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


@pytest.mark.parametrize(("blocks", "weight"), [(1, 3.0), (2, 1.5), (3, 1.0)])
def test_at_weighs_each_layer_by_three_over_their_number(
    blocks: int, weight: float, batch: tuple[Tensor, Tensor]
) -> None:
    inputs, targets = batch
    student, teacher = resnet(blocks), resnet(blocks, width=8)
    found = attached(at(teacher, kd_weight=0.9, ce_weight=0.1), student).loss(student, inputs, targets)
    logits, own = forward_features(student, inputs)
    with torch.no_grad():
        theirs, other = forward_features(teacher.eval(), inputs)
    distances = [
        at_loss(attention_map(own[n]), attention_map(other[n]), "mean_square") for n in student.features
    ]
    expected = 0.1 * functional.cross_entropy(logits, targets) + 0.9 * kd_loss(logits, theirs, 4.0, "sample")
    torch.testing.assert_close(found, expected + 1000 * weight * torch.stack(distances).sum())


def test_beta_falls_linearly_to_nothing_if_asked_to() -> None:
    distiller = at(resnet(), beta_decay="linear")
    distiller.epochs = 4.0
    betas = []
    for epoch in range(5):
        distiller.start_epoch(epoch)
        betas.append(distiller._beta())
    assert betas == [1000, 750, 500, 250, 0]


def test_chosen_layers_are_those_of_equal_name() -> None:
    distiller = at(resnet(3, 8), layers=["stages.1"])
    attached(distiller, resnet(2))
    assert distiller.pairs == [("stages.1", "stages.1")]


@pytest.mark.parametrize(
    ("teacher", "changes", "says"),
    [
        (resnet(3), {}, "the student has 2 features"),
        (resnet(), {"layers": ["stages.7"]}, "the student has no feature stages.7"),
        (resnet(1), {"layers": ["stages.1"]}, "the teacher has no feature stages.1"),
        (resnet(classes=7), {"kd_weight": 1.0}, "it has 7 classes, the data set 10"),
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), {}, "Sequential names no features"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_by_name(
    teacher: nn.Module, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        attached(at(teacher, **changes), resnet())


def test_features_of_other_sizes_are_refused_with_both_sizes() -> None:
    teacher = resnet()
    teacher.features = ("stages.1", "stages.0")
    with pytest.raises(UserError, match=r"the student's stages.0 is 8x8, the teacher's stages.1 4x4"):
        attached(at(teacher), resnet())


def test_logits_are_imitated_in_classification_only() -> None:
    distiller = kd(resnet())
    distiller.task = Regression()
    with pytest.raises(UserError, match="imitates a classifier's logits"):
        distiller.attach(resnet(), resnet, digits())


def test_a_temperature_that_is_not_positive_is_refused() -> None:
    with pytest.raises(UserError, match="temperature=0"):
        kd(resnet(), temperature=0.0)


def test_feature_shapes_are_those_of_a_pass_and_leave_the_model_in_its_mode() -> None:
    model = resnet().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert feature_shapes(model, SHAPE) == {"stages.0": (4, 8, 8), "stages.1": (8, 4, 4)}
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_teacher_is_no_parameter_gets_no_gradient_and_stays_in_evaluation_mode(
    batch: tuple[Tensor, Tensor],
) -> None:
    inputs, targets = batch
    teacher, student = resnet(width=8), resnet()
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    distiller = attached(at(teacher, kd_weight=1.0), student).train()
    assert not list(distiller.parameters())
    assert not distiller.state_dict()
    distiller.loss(student, inputs, targets).backward()
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_what_a_teacher_gives_can_be_saved_for_a_backward_pass(batch: tuple[Tensor, Tensor]) -> None:
    inputs, _ = batch
    teacher = Teacher(resnet())
    (feature,) = teacher.targets(inputs, lambda logits, features: (features["stages.1"].mean(1),))
    weight = torch.ones((), requires_grad=True)
    (weight * feature * teacher.logits(inputs).mean()).sum().backward()
    assert weight.grad is not None


def test_a_distilled_run_equals_a_plain_loop_of_steps(tmp_path: Path) -> None:
    words = ["paper=yogi", "dataset=digits", "model=resnet8", "dataset.limit=64", "dataset.batch_size=32"]
    words += ["paper.epochs=2", "method=distillation/kd", "logger=none", "trainer=cpu"]
    words += ["teacher='model=resnet8 method=distillation/none paper.epochs=1'", f"output_dir={tmp_path}"]
    config, request = compose(words)
    found = execute(config, request).result
    stages = make_stages(config, request, execute, trained_module)
    teacher = stages["method"]["teacher"].stage.model.eval()
    pl.seed_everything(0, verbose=False)
    module = build(config, request, stages)
    assert isinstance(module, SupervisedModule)
    student, data = module.model, module.data
    data.setup()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, foreach=True)
    loader = data.loader(0)
    for [item] in islice(loader, 2 * loader.steps_per_epoch):
        inputs, targets = data.ready(item)
        optimizer.zero_grad()
        logits = student(inputs)
        with torch.no_grad():
            theirs = teacher(inputs)
        loss = 0.1 * functional.cross_entropy(logits, targets) + 0.9 * kd_loss(logits, theirs, 4.0, "sample")
        loss.backward()
        optimizer.step()
    metrics = Classification(10).evaluate(student, data, "test")
    assert found["metrics"]["test_loss"] == pytest.approx(metrics["test_loss"], rel=1e-6)
    assert found["metrics"]["test_error"] == pytest.approx(100 * (1 - metrics["test_accuracy"]))
