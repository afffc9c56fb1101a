"""The methods' objectives against their terms written out, and what they refuse."""

import math
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.method import TrainingMethod
from common.base.stages import Stage
from common.data.images.digits import Digits
from common.distillation.hints import AttentionTransfer, KnowledgeDistillation
from common.distillation.losses import at_loss, attention_map, kd_loss
from common.distillation.teacher import Teacher
from common.models.features import feature_shapes, forward_features
from common.models.resnet import ResNet
from common.runs.compose import compose
from common.runs.pipeline import make_stages
from common.runs.runner import build, execute, first_network, trained_module
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


def attached(method: TrainingMethod, student: nn.Module) -> TrainingMethod:
    method.task = Classification(10)
    method.attach(student, lambda: student, digits())
    return method


def kd(model: nn.Module, **changes: Any) -> KnowledgeDistillation:
    options: dict[str, Any] = {"ce_weight": 0.1, "kd_weight": 0.9, "temperature": 4.0, "reduction": "sample"}
    return KnowledgeDistillation(optimizer=SGD, teacher=stage(model), **(options | changes))


def at(model: nn.Module, **changes: Any) -> AttentionTransfer:
    options: dict[str, Any] = {
        "beta": 1000.0,
        "reference_pixels": 64,
        "reduction": "mean_square",
        "layers": None,
    }
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
    make: Callable[[nn.Module], TrainingMethod], batch: tuple[Tensor, Tensor]
) -> None:
    inputs, targets = batch
    student = resnet()
    attached(make(resnet(width=8)), student).loss(student, inputs, targets).backward()
    found = [parameter.grad for parameter in student.parameters()]
    student.zero_grad()
    functional.cross_entropy(student(inputs), targets).backward()
    for grad, parameter in zip(found, student.parameters(), strict=True):
        torch.testing.assert_close(grad, parameter.grad)


class Detector(ResNet):
    """It gives two tensors, as detectors do."""

    def forward(self, inputs: Tensor) -> Any:
        logits = super().forward(inputs)
        return logits, 2 * logits


class OfTheFirst(Classification):
    """Judges the first of two outputs."""

    def fit_of(self, model: nn.Module, outputs: Any, inputs: Tensor, targets: Tensor | None) -> Tensor:
        return super().fit_of(model, outputs[0], inputs, targets)


def test_attention_of_networks_with_several_outputs_is_transferred_as_that_of_classifiers(
    batch: tuple[Tensor, Tensor],
) -> None:
    found = []
    for kind, task in ((ResNet, Classification(10)), (Detector, OfTheFirst(10))):
        torch.manual_seed(0)
        student, teacher = (
            kind(shape=SHAPE, classes=10, blocks=[1, 1], width=width, block="basic", shortcut="B")
            for width in (4, 8)
        )
        method = attached(at(teacher), student)
        method.task = task
        found.append(method.loss(student, *batch))
    torch.testing.assert_close(*found)


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
    method = at(resnet(), beta_decay="linear")
    method.epochs = 4.0
    betas = []
    for epoch in range(5):
        method.start_epoch(epoch)
        betas.append(method._beta())
    assert betas == [1000, 750, 500, 250, 0]


def test_chosen_layers_are_those_of_equal_name() -> None:
    method = at(resnet(3, 8), layers=["stages.1"])
    attached(method, resnet(2))
    assert method.pairs == [("stages.1", "stages.1")]


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
    method = kd(resnet())
    method.task = Regression()
    with pytest.raises(UserError, match="imitates a classifier's logits"):
        method.attach(resnet(), resnet, digits())


NUMBERS = [
    *(("temperature", value, "positive") for value in (0.0, -1.0, math.nan, math.inf)),
    *(
        (key, value, "at least 0")
        for key in ("ce_weight", "kd_weight")
        for value in (-0.1, math.nan, math.inf)
    ),
]


@pytest.mark.parametrize(("key", "value", "valid"), NUMBERS)
@pytest.mark.parametrize("make", [kd, at])
def test_a_number_that_weighs_nothing_is_refused_by_its_key(
    make: Callable[..., TrainingMethod], key: str, value: float, valid: str
) -> None:
    with pytest.raises(UserError, match=f"^method.{key}={value}: must be {valid} and finite$"):
        make(resnet(), **{key: value})


@pytest.mark.parametrize(("key", "value"), [("beta", -1.0), ("beta", math.nan), ("reference_pixels", 0)])
def test_at_refuses_a_beta_and_a_reference_that_cannot_be(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^method.{key}={value}: must be"):
        at(resnet(), **{key: value})


def penalised(method: TrainingMethod, weight: float, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of a student without and with a penalty of its own."""
    student = resnet()
    attached(method, student)
    plain = method.loss(student, *batch)
    student.penalty = lambda: torch.tensor(weight)  # type: ignore[assignment]
    return plain, method.loss(student, *batch)


@pytest.mark.parametrize("ce_weight", [0.0, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("make", [kd, at])
def test_the_students_own_penalty_is_never_scaled(
    make: Callable[..., TrainingMethod], ce_weight: float, batch: tuple[Tensor, Tensor]
) -> None:
    plain, found = penalised(make(resnet(width=8), ce_weight=ce_weight, kd_weight=0.9), 7.0, batch)
    torch.testing.assert_close(found - plain, torch.tensor(7.0), rtol=1e-4, atol=1e-4)


class Picture(nn.Module):
    """A network of one feature: the picture itself."""

    features = ("picture",)
    task = "classification"

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.picture = nn.Conv2d(1, 1, 1, bias=False)
        nn.init.constant_(self.picture.weight, gain)
        self.bend = gain > 1

    def forward(self, inputs: Tensor) -> Tensor:
        shown = self.picture(inputs if not self.bend else inputs.square())
        return shown.mean((1, 2, 3), keepdim=True).flatten(1).expand(-1, 10)


@pytest.mark.parametrize("reduction", ["mean_square", "norm"])
@pytest.mark.parametrize("size", [(8, 8), (28, 28), (32, 32), (64, 128)])
def test_ats_strength_does_not_depend_on_the_size_of_the_pictures(
    size: tuple[int, int], reduction: str
) -> None:
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(3, 1, 4, 4, generator=generator)
    targets = torch.zeros(3, dtype=torch.int64)
    found = []
    for height, width in ((4, 4), size):
        pictures = functional.interpolate(small, (height, width), mode="nearest-exact")
        method = at(Picture(2.0), beta=100.0, reduction=reduction, ce_weight=0.0, reference_pixels=1024)
        method.task = Classification(10)
        data: Any = SimpleNamespace(shape=(1, height, width))
        student = Picture(1.0)
        method.attach(student, Picture, data)
        found.append(float(method.loss(student, pictures, targets)))
    assert found[0] > 1e-3
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_at_has_the_papers_beta_at_the_papers_sizes_and_the_reference_can_be_left_out() -> None:
    for shape, reference, beta in (
        ((1, 32, 32), 1024, 1000.0),
        ((1, 224, 224), 50176, 1000.0),
        ((1, 8, 8), 1024, 62.5),
        ((1, 8, 8), None, 1000.0),
        ((1, 8, 8), 64, 1000.0),
    ):
        method = at(Picture(2.0), reference_pixels=reference)
        method.task = Classification(10)
        data: Any = SimpleNamespace(shape=shape)
        method.attach(Picture(), Picture, data)
        assert method._beta() == beta


@pytest.mark.parametrize(
    ("words", "beta"),
    [
        (["entry=moonshine.table2.c10_wrn40_2_g_n_at"], 1000.0),
        (["entry=moonshine.cifar_small.g_n_at"], 1000.0),
        (["entry=moonshine.table3.res34_gn_at"], 1000.0),
        (["entry=moonshine.table4.erfnet_gn_at"], 1000.0),
        (["entry=moonshine.table4_encoder.erfnet_gn_at"], 1000.0),
        (["entry=moonshine.digits_probe.g_n_at"], 30.0),
        (["entry=factor_transfer.table1.c10_resnet20_from_resnet56_at"], 1000.0),
        (["entry=factor_transfer.table_imagenet.in_at"], 1000.0),
        (["entry=factor_transfer.digits.at"], 10.0),
        (["paper=yogi", "dataset=digits", "method=distillation/attention_transfer"], 62.5),
    ],
)
def test_every_entry_of_at_has_the_weight_that_it_names_at_its_own_size(
    words: list[str], beta: float
) -> None:
    config, _ = compose(words)
    data, method = instantiate(config.dataset), config.method
    assert method.beta * math.prod(data.shape[1:]) / method.reference_pixels == beta


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
    method = attached(at(teacher, kd_weight=1.0), student).train()
    assert not list(method.parameters())
    assert not method.state_dict()
    method.loss(student, inputs, targets).backward()
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
    stages = make_stages(config, request, execute, trained_module, first_network)
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
