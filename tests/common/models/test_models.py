"""Every model: its published size, its shapes, the formulas it stands for, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.metrics.parameters import count_parameters
from common.models.autoencoder import Autoencoder
from common.models.convnet import ConvNet
from common.models.densenet import DenseNet
from common.models.lenet import LeNet5
from common.models.linear import LogisticRegression, RobustRegression
from common.models.mlp import MLP
from common.models.resnet import CifarResNet, PaddedShortcut, ResNet
from common.models.weightless import weightless

CONF = Path(__file__).parents[3] / "conf" / "model"
MNIST: dict[str, Any] = {"shape": (1, 28, 28), "classes": 10}
CIFAR: dict[str, Any] = {"shape": (3, 32, 32), "classes": 10}
DIGITS: dict[str, Any] = {"shape": (1, 8, 8), "classes": 10}
TABLE: dict[str, Any] = {"shape": (123,), "classes": 2}

# (model, data, parameters, where the number is from)
PUBLISHED = [
    ("mlp", MNIST, 784 * 128 + 128 + 128 * 10 + 10, "arithmetic"),
    ("lenet_300_100", MNIST, 266_610, "Han et al. 2015, table 1: 267K"),
    ("convnet", CIFAR, 113_738, "by its layers: 896 + 18,496 + 73,856 + 20,490"),
    ("lenet5", MNIST, 431_080, "Han et al. 2015, table 1: 431K"),
    ("lenet5_relu", MNIST, 431_080, "as lenet5"),
    ("logistic", TABLE, 124, "d + 1"),
    ("logistic", MNIST, 7_850, "10 (d + 1)"),
    ("nonconvex_logistic", TABLE, 123, "d"),
    ("robust_regression", {"shape": (10,), "classes": None}, 11, "d + 1"),
    ("autoencoder_mnist", MNIST, 2_837_314, "784-1000-500-250-30, mirrored"),
    ("autoencoder_curves", {"shape": (1, 28, 28), "classes": None}, 842_340, "784-400-...-6, mirrored"),
    ("autoencoder_digits", DIGITS, 35_280, "64-128-64-16, mirrored"),
    ("resnet8", CIFAR, 75_290, "arithmetic"),
    ("resnet14", CIFAR, 172_506, "arithmetic"),
    ("resnet20", CIFAR, 269_722, "He et al. 2016, table 6: 0.27M"),
    ("resnet32", CIFAR, 464_154, "He et al. 2016, table 6: 0.46M"),
    ("resnet44", CIFAR, 658_586, "He et al. 2016, table 6: 0.66M"),
    ("resnet56", CIFAR, 853_018, "He et al. 2016, table 6: 0.85M"),
    ("resnet110", CIFAR, 1_727_962, "He et al. 2016, table 6: 1.7M"),
    ("resnet50", CIFAR, 23_520_842, "ResNet-50 with a 3x3 stem and 10 classes"),
    ("densenet_40_12", CIFAR, 1_019_722, "Huang et al. 2017, table 2: 1.0M"),
    ("densenet_100_12", CIFAR, 6_979_642, "Huang et al. 2017, table 2: 7.0M"),
    ("densenet_bc_100_12", CIFAR, 769_162, "Huang et al. 2017, table 2: 0.8M"),
]


def build(name: str, data: dict[str, Any]) -> nn.Module:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    return get_object(config.pop("_target_"))(**config, **data)


@pytest.mark.parametrize(("name", "data", "parameters", "source"), PUBLISHED)
def test_a_model_has_its_published_number_of_parameters(
    name: str, data: dict[str, Any], parameters: int, source: str
) -> None:
    with weightless():
        model = build(name, data)
    assert all(p.is_meta for p in model.parameters())
    assert count_parameters(model) == parameters, source


@pytest.mark.parametrize(
    ("depth", "block", "shortcut", "parameters"),
    [
        (20, "basic", "B", 272_474),
        (56, "basic", "B", 855_770),
        (1202, "basic", "A", 19_421_274),
        (164, "bottleneck", "B", 1_704_154),
    ],
)
def test_other_resnets_of_the_family_have_their_published_sizes(
    depth: int, block: Any, shortcut: Any, parameters: int
) -> None:
    with weightless():
        model = CifarResNet(**CIFAR, depth=depth, block=block, shortcut=shortcut)
    assert count_parameters(model) == parameters


@pytest.mark.parametrize(
    ("depth", "growth", "bc", "millions"),
    [(100, 24, False, 27.2), (250, 24, True, 15.3), (190, 40, True, 25.6)],
)
def test_other_densenets_of_the_family_have_their_published_sizes(
    depth: int, growth: int, bc: bool, millions: float
) -> None:
    with weightless():
        model = DenseNet(**CIFAR, depth=depth, growth=growth, bc=bc)
    assert round(count_parameters(model) / 1e6, 1) == millions


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("n", [1, 3])
def test_a_resnets_depth_is_its_number_of_weight_layers(block: Any, n: int) -> None:
    depth = {"basic": 6, "bottleneck": 9}[block] * n + 2
    with weightless():
        model = CifarResNet(**CIFAR, depth=depth, block=block, shortcut="A")
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == depth


@pytest.mark.parametrize("bc", [False, True])
def test_a_densenets_depth_is_its_number_of_weight_layers(bc: bool) -> None:
    with weightless():
        model = DenseNet(**CIFAR, depth=40, growth=12, bc=bc)
    assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in model.modules()) == 40


@pytest.mark.parametrize(("name", "data"), [(name, data) for name, data, *_ in PUBLISHED])
def test_a_model_maps_a_batch_to_what_its_task_says(name: str, data: dict[str, Any]) -> None:
    with weightless():
        model = build(name, data)
        outputs = model(torch.empty(3, *data["shape"]))
    expected = {
        "classification": (3, data["classes"]),
        "regression": (3,),
        "reconstruction": (3, math.prod(data["shape"])),
    }
    assert outputs.shape == expected[model.task]


@pytest.mark.parametrize("name", ["resnet8", "densenet_40_12", "mlp"])
def test_convolutional_and_vector_models_take_small_grey_images_too(name: str) -> None:
    model = build(name, DIGITS)
    loss = functional.cross_entropy(model(torch.rand(2, *DIGITS["shape"])), torch.tensor([0, 1]))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def slow_option_a(inputs: Tensor, outputs: int) -> Tensor:
    """Every second pixel, copied one channel after the other; what remains is zero."""
    b, channels, h, w = inputs.shape
    result = torch.zeros(b, outputs, h // 2, w // 2)
    for channel in range(channels):
        for i in range(h // 2):
            for j in range(w // 2):
                result[:, channel, i, j] = inputs[:, channel, 2 * i, 2 * j]
    return result


def test_the_shortcut_of_option_a_copies_every_second_pixel_and_adds_zero_channels() -> None:
    inputs = torch.randn(2, 3, 6, 4)
    assert torch.equal(PaddedShortcut(3, 5, 2)(inputs), slow_option_a(inputs, 5))


def test_a_resnet_equals_the_papers_equations_written_out() -> None:
    torch.manual_seed(0)
    model = CifarResNet(**CIFAR, depth=8, block="basic", shortcut="A").eval()
    weights = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    images = torch.randn(2, 3, 32, 32)

    def layer(x: Tensor, i: int, stride: int = 1) -> Tensor:
        y = functional.conv2d(x, weights[i].weight, stride=stride, padding=1)
        mean, var = (s.view(1, -1, 1, 1) for s in (norms[i].running_mean, norms[i].running_var))
        return (y - mean) / (var + 1e-5).sqrt()

    x = layer(images, 0).clamp(min=0)
    for stage in range(3):
        y = layer(layer(x, 2 * stage + 1, 1 if stage == 0 else 2).clamp(min=0), 2 * stage + 2)
        x = (y + (x if stage == 0 else slow_option_a(x, 16 * 2**stage))).clamp(min=0)
    expected = x.mean((2, 3)) @ model.classifier.weight.T + model.classifier.bias
    torch.testing.assert_close(model(images), expected, rtol=1e-4, atol=1e-5)


def test_a_dense_layer_keeps_its_inputs_and_appends_its_own_channels() -> None:
    model = DenseNet(**DIGITS, depth=7, growth=4, bc=False).eval()
    stem, dense = model.stem, model.stages[0][0]
    features = stem(torch.rand(2, 1, 8, 8))
    outputs = dense(features)
    assert outputs.shape == (2, 16 + 4, 8, 8)
    assert torch.equal(outputs[:, :16], features)


def test_convolutions_start_with_the_variance_of_he_et_al() -> None:
    torch.manual_seed(0)
    model = CifarResNet(**CIFAR, depth=20, block="basic", shortcut="A")
    last = [m for m in model.modules() if isinstance(m, nn.Conv2d)][-1]
    assert last.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.02)


def test_binary_cross_entropy_is_the_logistic_loss_of_one_weight_vector() -> None:
    torch.manual_seed(0)
    model = LogisticRegression(**TABLE, regulariser="none", alpha=0.0, bias=True).double()
    nn.init.normal_(model.linear.weight)
    nn.init.constant_(model.linear.bias, 0.3)
    x, targets = torch.randn(40, 123, dtype=torch.float64), torch.arange(40) % 2
    z = x @ model.linear.weight[0] + 0.3
    logistic = torch.log1p(torch.exp(-(2 * targets - 1) * z)).mean()
    torch.testing.assert_close(functional.cross_entropy(model(x), targets), logistic)


@pytest.mark.parametrize(
    ("regulariser", "expected"),
    [("none", 0.0), ("l2", 0.4 / 2 * (1 + 4 + 9)), ("nonconvex", 0.4 * (1 / 2 + 4 / 5 + 9 / 10))],
)
def test_a_penalty_is_its_formula_over_the_weights_without_the_bias(
    regulariser: Any, expected: float
) -> None:
    model = LogisticRegression(shape=(3,), classes=2, regulariser=regulariser, alpha=0.4, bias=True)
    with torch.no_grad():
        model.linear.weight.copy_(torch.tensor([[1.0, -2.0, 3.0]]))
        model.linear.bias.fill_(100.0)
    assert model.penalty().item() == pytest.approx(expected)


def test_linear_models_start_at_zero() -> None:
    logistic = LogisticRegression(**MNIST, regulariser="l2", alpha=1.0, bias=True)
    robust = RobustRegression(shape=(4,), classes=None, bias=True)
    assert all((p == 0).all() for model in (logistic, robust) for p in model.parameters())


def test_the_robust_loss_is_the_mean_of_log_one_plus_half_the_squared_residual() -> None:
    model = RobustRegression(shape=(4,), classes=None, bias=False)
    loss = model.loss(model(torch.rand(2, 4)), torch.tensor([1.0, -3.0]))
    assert loss.item() == pytest.approx((math.log(1.5) + math.log(5.5)) / 2)


def test_an_autoencoder_has_sigmoids_everywhere_but_at_code_and_output() -> None:
    torch.manual_seed(0)
    model = Autoencoder(**DIGITS, hidden=[6, 2], init="torch")
    w = [m for m in model.modules() if isinstance(m, nn.Linear)]
    x = torch.rand(5, 1, 8, 8)
    code = w[1](torch.sigmoid(w[0](x.view(5, 64))))
    torch.testing.assert_close(model(x), w[3](torch.sigmoid(w[2](code))))


def test_an_autoencoder_starts_with_xaviers_variance_and_no_biases() -> None:
    torch.manual_seed(0)
    model = Autoencoder(**MNIST, hidden=[1000, 30], init="xavier_normal")
    first = model.encoder[1]
    assert first.weight.std().item() == pytest.approx(math.sqrt(2 / 1784), rel=0.01)
    assert all((m.bias == 0).all() for m in model.modules() if isinstance(m, nn.Linear))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LeNet5(**CIFAR), r"lenet5 .*\(3, 32, 32\); valid: 28x28"),
        (lambda: LeNet5(shape=(784,), classes=10), r"lenet5 .*\(784,\); valid: 28x28"),
        (lambda: CifarResNet(**CIFAR, depth=21, block="basic", shortcut="A"), r"depth=21; .* 6n \+ 2"),
        (lambda: CifarResNet(**CIFAR, depth=26, block="bottleneck", shortcut="A"), r"depth=26; .* 9n \+ 2"),
        (lambda: CifarResNet(**CIFAR, depth=2, block="basic", shortcut="A"), r"depth=2; "),
        (
            lambda: CifarResNet(**TABLE, depth=8, block="basic", shortcut="A"),
            r"resnet .*\(123,\); valid: images",
        ),
        (
            lambda: ResNet(**CIFAR, blocks=[], width=8, block="basic", shortcut="A"),
            r"blocks=\[\]; valid: one or more",
        ),
        (lambda: DenseNet(**CIFAR, depth=41, growth=12, bc=False), r"depth=41; .* 3n \+ 4"),
        (lambda: DenseNet(**CIFAR, depth=43, growth=12, bc=True), r"depth=43; .* 6n \+ 4"),
        (lambda: DenseNet(**CIFAR, depth=40, growth=0, bc=True), r"growth=0; valid"),
        (lambda: MLP(shape=(10,), classes=None, hidden=[3], activation="relu"), r"mlp .* classes"),
        (lambda: MLP(**TABLE, hidden=[3, 0], activation="relu"), r"hidden=\[3, 0\]; valid"),
        (
            lambda: LogisticRegression(**TABLE, regulariser="l2", alpha=-1.0, bias=True),
            r"alpha=-1.0; valid: a number >= 0",
        ),
        (lambda: ConvNet(**CIFAR, widths=[]), r"widths=\[\]; valid: one or more"),
        (lambda: ConvNet(**DIGITS, widths=[4, 0]), r"widths=\[4, 0\]; valid"),
        (lambda: RobustRegression(**TABLE, bias=True), r"robust_regression .* 2 classes"),
        (lambda: Autoencoder(**MNIST, hidden=[], init="torch"), r"hidden=\[\]; valid"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
