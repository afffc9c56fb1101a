"""Networks read as matrices, the paper's three, the trainings, and what is refused."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from common.base.errors import UserError
from common.data.images.digits import Digits
from common.data.images.mnist import Mnist
from common.metrics.parameters import count_parameters
from common.models.lenet import LeNet5
from common.models.mlp import MLP
from papers.sdp_cert.bounds import (
    crown_objective,
    input_box,
    interval_bounds,
    margins,
    optimised_linear_bounds,
)
from papers.sdp_cert.grad_cert import grad_matrix
from papers.sdp_cert.network import ReluNetwork, read_network, relu_network
from papers.sdp_cert.networks import OfficialNetwork
from papers.sdp_cert.robust import AdversarialTraining, GradTraining, LinearTraining, live_network

ADAM = partial(torch.optim.Adam, lr=1e-3)
HIDDEN = {"grad_nn": [500], "lp_nn": [500], "pgd_nn": [200, 100, 50]}
OPTIONS = {"optimizer": ADAM, "eps": 0.1, "clip_input": True, "warmup": 0.0}


def mlp(hidden: list[int], activation: str = "relu") -> MLP:
    torch.manual_seed(0)
    return MLP(shape=(1, 8, 8), classes=10, hidden=hidden, activation=activation)


def digits(normalise: str = "unit_interval") -> Digits:
    return Digits(
        kind="image_classification", data_dir="none", seed=0, source="real", limit=None, validation=0.0,
        normalise=normalise, verify=True, batch_size=64, positive=None, augment="none",
    )  # fmt: skip


def official(name: str, folder: Path) -> OfficialNetwork:
    return OfficialNetwork(
        shape=(1, 28, 28), classes=10, hidden=HIDDEN[name], file=f"{name}.npz", data_dir=str(folder)
    )


def test_the_matrices_give_the_networks_logits() -> None:
    module = mlp([7, 5])
    network = read_network(module, (1, 8, 8))
    x = torch.rand(6, 64)
    assert (network.hidden_layers, network.inputs, network.classes) == (2, 64, 10)
    assert torch.allclose(network(x.double()).float(), module(x.view(6, 1, 8, 8)), atol=1e-6)


def test_affine_layers_between_two_relus_become_one_matrix() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(12, 6), nn.Dropout(0.5), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4),
    ).eval()  # fmt: skip
    module[1].running_mean.normal_()
    network = read_network(module, (1, 8, 8))
    x = torch.rand(5, 1, 8, 8)
    assert [tuple(W.shape) for W in network.weights] == [(48, 64), (5, 48), (4, 5)]
    assert torch.allclose(network(x.flatten(1).double()).float(), module(x), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "shape", "line"),
    [
        (lambda: mlp([4], "tanh"), (1, 8, 8), r"layer layers\.2 \(Tanh\) cannot be certified"),
        (lambda: LeNet5(shape=(1, 28, 28), classes=10), (1, 28, 28), r"layer convolutions\.1 \(MaxPool2d\)"),
        (lambda: nn.Sequential(nn.Linear(4, 3), nn.ReLU()), (4,), "ends with a ReLU"),
    ],
)
def test_a_layer_that_cannot_be_certified_is_named(
    module: Callable[[], nn.Module], shape: tuple[int, ...], line: str
) -> None:
    with pytest.raises(UserError, match=line):
        read_network(module(), shape)


def test_matrices_that_do_not_fit_or_are_not_finite_are_refused() -> None:
    with pytest.raises(UserError, match="do not fit"):
        relu_network([torch.ones(3, 2), torch.ones(2, 4)], [torch.ones(3), torch.ones(2)])
    with pytest.raises(UserError, match="not finite"):
        relu_network([torch.full((3, 2), torch.nan)], [torch.ones(3)])


@pytest.mark.parametrize(("name", "size"), [("grad_nn", 397_510), ("lp_nn", 397_510), ("pgd_nn", 182_660)])
def test_the_papers_networks_have_its_sizes(name: str, size: int, tmp_path: Path) -> None:
    assert count_parameters(official(name, tmp_path)) == size


def test_a_missing_damaged_or_foreign_file_of_weights_gets_one_line(tmp_path: Path) -> None:
    folder = tmp_path / "sdp_cert"
    folder.mkdir()
    with pytest.raises(UserError, match="is missing: it holds the paper's network"):
        official("grad_nn", tmp_path).load()
    (folder / "grad_nn.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="is damaged"):
        official("grad_nn", tmp_path).load()
    np.savez(folder / "grad_nn.npz", weight0=np.zeros((3, 784), np.float32))
    with pytest.raises(UserError, match="of another network: weight0"):
        official("grad_nn", tmp_path).load()


def test_the_papers_networks_refuse_other_data(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="takes 784 inputs"):
        OfficialNetwork(shape=(1, 8, 8), classes=10, hidden=[500], file="grad_nn.npz", data_dir=str(tmp_path))


# ---- the trainings


@pytest.mark.parametrize("kind", [AdversarialTraining, LinearTraining, GradTraining])
def test_the_robust_loss_is_never_below_the_clean_one_and_gives_every_weight_a_gradient(kind: type) -> None:
    extra = {
        AdversarialTraining: {"steps": 5, "step_size": 0.02, "weight": 1.0},
        LinearTraining: {},
        GradTraining: {"strength": 1.0, "pairs": 3},
    }[kind]
    data = digits()
    data.setup()
    student = mlp([12])
    method = kind(**OPTIONS, **extra)
    method.attach(student, lambda: student, data)
    inputs, targets = data.batch("train", slice(0, 32), augment=False)
    torch.manual_seed(0)
    loss = method.loss(student, inputs, targets)
    method.full_eps = 0.0
    clean = method.loss(student, inputs, targets)
    assert loss.item() > clean.item()
    if kind is not GradTraining:
        plain = nn.functional.cross_entropy(student(inputs), targets)
        assert clean.item() == pytest.approx(plain.item())
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


def test_the_linear_trainings_loss_is_above_that_of_any_attack() -> None:
    data = digits()
    data.setup()
    student = mlp([12])
    method = LinearTraining(**OPTIONS)
    inputs, targets = data.batch("train", slice(0, 16), augment=False)
    assert targets is not None
    worst = method.loss(student, inputs, targets)
    for seed in range(20):
        noise = torch.rand(inputs.shape, generator=torch.Generator().manual_seed(seed)) * 0.2 - 0.1
        attacked = student((inputs + noise.sign() * 0.1).clamp(0, 1))
        assert float(nn.functional.cross_entropy(attacked, targets)) <= float(worst)


def test_grad_trainings_matrices_are_those_of_grad_cert() -> None:
    network = live_network(mlp([6]))
    pairs = torch.tensor([[0, 3], [2, 7]])
    M = GradTraining._matrices(network, pairs)
    for i, (a, b) in enumerate(pairs.tolist()):
        v = network.weights[1][a] - network.weights[1][b]
        assert torch.allclose(M[i], grad_matrix(network.weights[0], v))


def test_eps_warms_up_and_the_warm_up_survives_a_kill() -> None:
    method = LinearTraining(**(OPTIONS | {"warmup": 0.5}))
    method.end_step(mlp([4]), 0.25)
    assert method.eps == pytest.approx(0.05)
    again = LinearTraining(**(OPTIONS | {"warmup": 0.5}))
    again.load_state_dict(method.state_dict())
    assert again.eps == method.eps
    method.end_step(mlp([4]), 0.75)
    assert method.eps == 0.1


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"eps": -1.0}, "method.eps=-1.0"),
        ({"warmup": 2.0}, "method.warmup=2.0"),
        ({"eps": float("nan")}, "eps"),
    ],
)
def test_a_training_out_of_range_gets_one_line(change: dict[str, float], line: str) -> None:
    with pytest.raises(UserError, match=line):
        LinearTraining(**(OPTIONS | change))


def test_trainings_refuse_networks_and_inputs_that_they_cannot_take() -> None:
    deep = GradTraining(**OPTIONS, strength=1.0, pairs=3)
    with pytest.raises(UserError, match="one hidden layer, not 2"):
        deep.attach(mlp([6, 5]), lambda: mlp([6]), digits())
    with pytest.raises(UserError, match="unit_interval"):
        LinearTraining(**OPTIONS).attach(mlp([6]), lambda: mlp([6]), digits("standard"))
    with pytest.raises(UserError, match="Conv2d: this training is for fully connected"):
        live_network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 10)))


# ---- the paper's networks, on real data


@pytest.fixture(scope="module")
def mnist_images() -> Callable[[Path], tuple[torch.Tensor, torch.Tensor]]:
    def read(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
        data = Mnist(
            kind="image_classification", data_dir=str(folder), seed=0, source="real", limit=None,
            validation=0.0, normalise="unit_interval", verify=True, batch_size=1, positive=None,
            augment="none",
        )  # fmt: skip
        test = data.read("test")
        assert test.targets is not None
        return test.inputs.flatten(1).double() / 255, test.targets

    return read


def loaded(name: str, need: Callable[[str], Path]) -> tuple[ReluNetwork, torch.Tensor, Path]:
    folder = need(f"sdp_cert/{name}.npz").parents[1]
    model = official(name, folder)
    model.load()
    order = model.order()
    assert order is not None and order.sort().values.equal(torch.arange(10_000))
    return read_network(model, (1, 28, 28)), order, folder


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "error"), [("grad_nn", 4.18), ("lp_nn", 8.73), ("pgd_nn", 2.47)])
def test_the_papers_networks_have_the_known_clean_errors(
    name: str, error: float, need: Callable[[str], Path], mnist_images: Callable
) -> None:
    network, _, folder = loaded(name, need)
    need("mnist/t10k-images-idx3-ubyte.gz")
    x, labels = mnist_images(folder)
    wrong = (network(x).argmax(1) != labels).double().mean()
    assert float(wrong) * 100 == pytest.approx(error, abs=1e-9)


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "value"), [("grad_nn", -0.0647), ("lp_nn", -5.1875), ("pgd_nn", 40.2347)])
def test_the_lp_of_the_papers_first_image_and_target_0_is_the_known_one(
    name: str, value: float, need: Callable[[str], Path], mnist_images: Callable
) -> None:
    network, order, folder = loaded(name, need)
    need("mnist/t10k-images-idx3-ubyte.gz")
    x, labels = mnist_images(folder)
    first = order[:1]
    goal = margins(network, labels[first])
    assert int(goal.targets[0, 0]) == 0
    only = type(goal)(goal.rows[:, :1], goal.constants[:, :1], goal.targets[:, :1])
    box = input_box(x[first], 0.1, True)
    layers = interval_bounds(network, box)
    lp = optimised_linear_bounds(network, layers, box, only, steps=200, lr=0.1, stop_below=None)
    assert float(lp) == pytest.approx(value, abs=2e-4 * max(1, abs(value)))
    assert float(crown_objective(network, layers, box, only, "adaptive")) >= float(lp)
