import importlib
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.task import Task
from common.data.shared.in_memory import TensorData
from common.models.autoencoder import Autoencoder
from common.models.linear import LogisticRegression, RobustRegression
from common.models.mlp import MLP
from common.models.resnet import CifarResNet
from common.training.task_of import task_of

CONF = Path(__file__).resolve().parents[3] / "conf" / "dataset"
Array = np.ndarray[Any, np.dtype[Any]]


class Line(nn.Module):
    """A regression model without a loss of its own."""

    task: ClassVar = "regression"

    def __init__(self, d: int) -> None:
        super().__init__()
        self.linear = nn.Linear(d, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.linear(inputs).squeeze(1)


@pytest.fixture(autouse=True)
def uneven_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 60: every split used here ends in a smaller one."""
    monkeypatch.setattr(DataSet, "EVALUATION_BATCH", 60)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def dataset(name: str, **overrides: Any) -> TensorData:
    """A set up data set from its YAML file."""
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    config |= {"data_dir": "unused", "seed": 0} | overrides
    module, _, cls = config.pop("_target_").rpartition(".")
    data: TensorData = getattr(importlib.import_module(module), cls)(**config)
    data.setup()
    return data


def shaken(model: nn.Module) -> nn.Module:
    """The model with random weights where it starts at zero."""
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def outputs(model: nn.Module, data: TensorData, split: SplitName) -> tuple[Array, Array, Array | None]:
    """(inputs, outputs, targets) of a whole split at once, in double precision and evaluation mode."""
    inputs, targets = data.batch(split, slice(None), augment=False)
    model.eval()
    with torch.no_grad():
        found = model.double()(inputs.double()).numpy()
    model.float().train()
    return inputs.double().numpy(), found, None if targets is None else targets.numpy()


def cross_entropies(logits: Array, labels: Array) -> Array:
    """log sum_k exp(z_k) - z_y for each row."""
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


def pixel_cross_entropies(logits: Array, images: Array) -> Array:
    """-x log p - (1 - x) log(1 - p), p = 1 / (1 + exp(-z)), for each pixel of each row."""
    p, x = 1 / (1 + np.exp(-logits)), images.reshape(len(images), -1)
    return -x * np.log(p) - (1 - x) * np.log(1 - p)


def batch_loss(task: Task, model: nn.Module, data: TensorData, rows: slice) -> float:
    inputs, targets = data.batch("train", rows, augment=False)
    return task.loss(model, inputs, targets).item()


@pytest.mark.parametrize("size", [1, 59, 60, 61, 150])
def test_evaluation_batches_are_the_split_in_order(size: int) -> None:
    data = dataset("digits", limit=size)
    batches = list(data.batches("train", data.evaluation_batch))
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert [len(batch) for batch, _ in batches] == [60] * (size // 60) + [size % 60] * (size % 60 > 0)
    assert torch.equal(torch.cat([batch for batch, _ in batches]), inputs)
    assert targets is not None
    assert torch.equal(torch.cat([labels for _, labels in batches if labels is not None]), targets)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_classification_is_mean_cross_entropy_and_fraction_of_hits(split: SplitName) -> None:
    data = dataset("digits", limit=220, validation=0.3)
    model = MLP(shape=data.shape, classes=10, hidden=[20], activation="tanh")
    _, logits, labels = outputs(model, data, split)
    assert labels is not None
    found = task_of(model, data, "sum").evaluate(model, data, split)
    assert found == {
        f"{split}_loss": pytest.approx(cross_entropies(logits, labels).mean(), rel=1e-5),
        f"{split}_accuracy": pytest.approx((logits.argmax(1) == labels).mean(), rel=1e-6),
        f"{split}_error": pytest.approx(100 * (logits.argmax(1) != labels).mean(), rel=1e-6),
    }


def test_a_layer_that_is_frozen_in_evaluation_mode_still_is_after_an_evaluation() -> None:
    data = dataset("digits", limit=120)
    model = CifarResNet(shape=data.shape, classes=10, depth=8, block="basic", shortcut="A").train()
    frozen = [layer.eval() for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)]
    task = task_of(model, data, "mean")
    task.evaluate(model, data, "test")
    task.full_gradient_norm_sq(model, data)
    assert model.training and not any(layer.training for layer in frozen)


def test_with_many_classes_a_hit_among_the_five_best_is_measured_too() -> None:
    data = dataset("cifar100", source="synthetic", limit=130)
    model = MLP(shape=data.shape, classes=100, hidden=[20], activation="tanh")
    _, logits, labels = outputs(model, data, "train")
    assert labels is not None
    found = task_of(model, data, "sum").evaluate(model, data, "train")
    hits = (np.argsort(logits, axis=1)[:, -5:] == labels[:, None]).any(1)
    assert found["train_top5_accuracy"] == pytest.approx(hits.mean(), rel=1e-6)
    assert found["train_top5_error"] == pytest.approx(100 * (1 - hits.mean()), rel=1e-6)


def test_classification_loss_of_a_minibatch_is_its_mean_cross_entropy() -> None:
    data = dataset("digits", limit=100)
    model = MLP(shape=data.shape, classes=10, hidden=[20], activation="tanh")
    _, logits, labels = outputs(model, data, "train")
    assert labels is not None
    loss = batch_loss(task_of(model, data, "sum"), model, data, slice(10, 27))
    assert loss == pytest.approx(cross_entropies(logits, labels)[10:27].mean(), rel=1e-5)


@pytest.mark.parametrize("regulariser", ["l2", "nonconvex"])
def test_a_regulariser_is_added_once_to_loss_and_metric(regulariser: Any) -> None:
    data = dataset("breast_cancer")
    model = LogisticRegression(shape=data.shape, classes=2, regulariser=regulariser, alpha=0.1, bias=True)
    shaken(model)
    inputs, _, labels = outputs(model, data, "train")
    assert labels is not None
    w, b = model.linear.weight.detach().double().numpy()[0], model.linear.bias.item()
    margins = (2 * labels - 1) * (inputs @ w + b)
    r = 0.05 * (w**2).sum() if regulariser == "l2" else 0.1 * (w**2 / (1 + w**2)).sum()
    losses = np.log1p(np.exp(-margins))
    task = task_of(model, data, "sum")
    found = task.evaluate(model, data, "train")
    assert found["train_loss"] == pytest.approx(losses.mean() + r, rel=1e-5)
    assert found["train_accuracy"] == pytest.approx((margins > 0).mean(), rel=1e-6)
    assert batch_loss(task, model, data, slice(0, 7)) == pytest.approx(losses[:7].mean() + r, rel=1e-5)


@pytest.mark.parametrize("pixels", ["sum", "mean"])
def test_reconstruction_is_pixel_cross_entropy_and_summed_squared_error(pixels: Any) -> None:
    data = dataset("digits", limit=130, normalise="unit_interval")
    model = Autoencoder(shape=data.shape, classes=10, hidden=[12, 3], init="xavier_normal")
    shaken(model)
    images, logits, _ = outputs(model, data, "train")
    entropies = pixel_cross_entropies(logits, images)
    losses = entropies.sum(1) if pixels == "sum" else entropies.mean(1)
    errors = (1 / (1 + np.exp(-logits)) - images.reshape(len(images), -1)) ** 2
    task = task_of(model, data, pixels)
    assert task.evaluate(model, data, "train") == {
        "train_loss": pytest.approx(losses.mean(), rel=1e-5),
        "train_squared_error": pytest.approx(errors.sum(1).mean(), rel=1e-5),
    }
    assert batch_loss(task, model, data, slice(3, 20)) == pytest.approx(losses[3:20].mean(), rel=1e-5)


def test_reconstruction_needs_no_labels() -> None:
    data = dataset("curves", source="synthetic", limit=70)
    model = Autoencoder(shape=data.shape, classes=None, hidden=[5], init="torch")
    images, logits, labels = outputs(model, data, "test")
    assert labels is None
    found = task_of(model, data, "sum").evaluate(model, data, "test")
    assert found["test_loss"] == pytest.approx(pixel_cross_entropies(logits, images).sum(1).mean(), rel=1e-5)


@pytest.mark.parametrize("normalise", ["standard", "unit_rows", "none"])
def test_reconstruction_refuses_inputs_outside_the_unit_interval(normalise: str) -> None:
    data = dataset("digits", normalise=normalise)
    model = Autoencoder(shape=data.shape, classes=10, hidden=[3], init="torch")
    with pytest.raises(UserError, match=f"^dataset.normalise={normalise}: .*unit_interval") as error:
        task_of(model, data, "sum")
    assert "\n" not in str(error.value)


def test_regression_without_a_loss_of_its_own_is_mean_squared_error() -> None:
    data = dataset("diabetes")
    model = Line(10)
    _, predictions, targets = outputs(model, data, "test")
    assert targets is not None
    squares = (predictions - targets) ** 2
    assert task_of(model, data, "sum").evaluate(model, data, "test") == {  # type: ignore[arg-type]
        "test_loss": pytest.approx(squares.mean(), rel=1e-5),
        "test_rmse": pytest.approx(math.sqrt(squares.mean()), rel=1e-5),
    }


def test_robust_regression_is_its_own_loss_and_root_mean_squared_error() -> None:
    data = dataset("diabetes")
    model = RobustRegression(shape=data.shape, classes=None, bias=True)
    shaken(model)
    _, predictions, targets = outputs(model, data, "train")
    assert targets is not None
    squares = (predictions - targets) ** 2
    task = task_of(model, data, "sum")
    assert task.evaluate(model, data, "train") == {
        "train_loss": pytest.approx(np.log(1 + squares / 2).mean(), rel=1e-5),
        "train_rmse": pytest.approx(math.sqrt(squares.mean()), rel=1e-5),
    }
    expected = np.log(1 + squares[:9] / 2).mean()
    assert batch_loss(task, model, data, slice(0, 9)) == pytest.approx(expected, rel=1e-5)


RESNET8 = partial(CifarResNet, depth=8, block="basic", shortcut="A")
NONCONVEX = partial(LogisticRegression, regulariser="nonconvex", alpha=0.1, bias=False)


@pytest.mark.parametrize(
    ("name", "overrides", "model_of"),
    [
        ("digits", {"limit": 130}, partial(MLP, hidden=[9], activation="tanh")),
        ("digits", {"limit": 70}, RESNET8),
        (
            "digits",
            {"limit": 130, "normalise": "unit_interval"},
            partial(Autoencoder, hidden=[6], init="torch"),
        ),
        ("breast_cancer", {}, NONCONVEX),
        ("diabetes", {}, partial(RobustRegression, bias=True)),
    ],
)
def test_full_gradient_is_that_of_the_loss_over_the_whole_set_at_once(
    name: str, overrides: dict[str, Any], model_of: Callable[..., nn.Module]
) -> None:
    data = dataset(name, **overrides)
    model = shaken(model_of(shape=data.shape, classes=data.classes))
    task = task_of(model, data, "sum")  # type: ignore[arg-type]
    found = task.full_gradient_norm_sq(model, data)
    inputs, targets = data.batch("train", slice(None), augment=False)
    if targets is not None and targets.is_floating_point():
        targets = targets.double()
    loss = task.loss(model.double().eval(), inputs.double(), targets)
    gradient = torch.autograd.grad(loss, list(model.parameters()))
    assert found == pytest.approx(sum(float(g.square().sum()) for g in gradient), rel=1e-4)
    assert found > 1e-6


def test_judging_a_model_leaves_it_as_it_was() -> None:
    data = dataset("digits", limit=70)
    model = RESNET8(shape=data.shape, classes=10)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = task_of(model, data, "sum")
    for training in (True, False):
        model.train(training)
        task.evaluate(model, data, "test")
        task.full_gradient_norm_sq(model, data)
        assert all(module.training is training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_judging_does_not_augment() -> None:
    data = dataset("cifar10", source="synthetic", limit=70)
    model = MLP(shape=data.shape, classes=10, hidden=[5], activation="relu")
    task, random = task_of(model, data, "sum"), torch.get_rng_state()
    assert task.evaluate(model, data, "train") == task.evaluate(model, data, "train")
    task.full_gradient_norm_sq(model, data)
    assert torch.equal(random, torch.get_rng_state())
