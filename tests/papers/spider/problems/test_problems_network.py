"""Networks as problems: gradients without copies, the same function at two points."""

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.data.images.digits import Digits
from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.network import NetworkProblem
from papers.spider.problems.protocol import Batch


def digits(augment: str = "none", validation: float = 0.0) -> Digits:
    data = Digits(
        kind="image_classification", data_dir="data", seed=0, source="real", limit=200, validation=validation,
        normalise="standard", verify=True, batch_size=32, positive=None, augment=augment,
    )  # fmt: skip
    data.setup()
    return data


class Net(nn.Module):
    task = "classification"

    def __init__(self, norm: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(4 * 36, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Penalised(Net):
    def penalty(self) -> Tensor:
        return 0.1 * sum(p.square().sum() for p in self.parameters())


def draw(problem: NetworkProblem, size: int) -> Batch:
    return problem.draw(ReplicateSampler(0, 1, problem.n, problem.device, problem.dtype), size, None)


@pytest.mark.parametrize("net", [Net(norm=False), Net(norm=True), Penalised(norm=False)])
def test_gradient_agrees_with_autograd_of_the_module(net: Net) -> None:
    problem = NetworkProblem(digits(), net)
    batch, x = draw(problem, 40), problem.start(1)
    net.eval()
    loss = nn.functional.cross_entropy(net(batch.inputs), batch.targets)
    if isinstance(net, Penalised):
        loss = loss + net.penalty()
    expected = torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(net.parameters()))])
    torch.testing.assert_close(problem.gradient(x, batch)[0], expected, rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(problem.value(x, batch)[0], loss.detach())
    assert problem.recent_loss > 0


def test_full_gradient_is_the_mean_over_all_samples() -> None:
    problem = NetworkProblem(digits(), Net(norm=False))
    x = problem.start(1)
    inputs, targets = problem.data.batch("train", slice(None), augment=False)
    expected = problem.gradient(x, Batch(inputs, targets, len(inputs))).clone()
    torch.testing.assert_close(problem.true_gradient(x), expected)
    torch.testing.assert_close(problem.gradient(x, problem.everything()), expected)


def test_gradient_difference_is_of_the_same_function_at_two_points() -> None:
    problem = NetworkProblem(digits(augment="crop_flip"), Net(norm=True))
    x = problem.start(1)
    y = x + 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    problem.checkpoint(x, problem.everything())
    batch = draw(problem, 40)
    expected = problem.gradient(x, batch).clone() - problem.gradient(y, batch)
    torch.testing.assert_close(problem.gradient_difference(x, y, batch), expected, rtol=1e-4, atol=1e-6)
    assert float(problem.gradient_difference(x, x, batch).abs().max()) == 0.0


def test_statistics_are_renewed_at_checkpoints_only() -> None:
    problem = NetworkProblem(digits(), Net(norm=True))
    x, batch = problem.start(1), draw(problem, 40)
    problem.checkpoint(x, batch)
    norm = problem.norms[0]
    assert norm.running_mean is not None
    kept = norm.running_mean.clone()
    with torch.no_grad():
        expected = problem.model.body[0](batch.inputs).mean((0, 2, 3))
    torch.testing.assert_close(kept, expected, rtol=1e-4, atol=1e-6)
    problem.gradient(x + 1, batch)
    assert torch.equal(norm.running_mean, kept)


def test_statistics_survive_a_resume() -> None:
    problem = NetworkProblem(digits(), Net(norm=True))
    x = problem.start(1)
    problem.checkpoint(x, problem.everything())
    again = NetworkProblem(digits(), Net(norm=True))
    again.load_state_dict(problem.state_dict())
    assert torch.equal(again.true_gradient(x), problem.true_gradient(x))


def test_hessian_vector_product_is_the_limit_of_gradient_differences() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, 10)).double()
    net.task = "classification"
    problem = NetworkProblem(digits(), net)
    inputs, targets = problem.data.batch("train", slice(0, 50), augment=False)
    batch = Batch(inputs.double(), targets, 50)
    x = problem.start(1)
    v = torch.randn(x.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-5
    expected = problem.gradient(x + h * v, batch).clone() - problem.gradient(x - h * v, batch)
    torch.testing.assert_close(problem.hvp(x, v, batch), expected / (2 * h), rtol=1e-5, atol=1e-7)


def test_accuracies_are_of_each_split() -> None:
    problem = NetworkProblem(digits(validation=0.2), Net(norm=False))
    scores = problem.evaluate(problem.start(1))
    assert set(scores) == {"validation_loss", "validation_accuracy", "test_loss", "test_accuracy"}
    inputs, targets = problem.data.batch("test", slice(None), augment=False)
    with torch.no_grad():
        expected = (problem.model(inputs).argmax(1) == targets).double().mean()
    assert float(scores["test_accuracy"]) == pytest.approx(float(expected))


def test_a_network_runs_one_replicate() -> None:
    with pytest.raises(UserError, match=r"paper\.repeats=2.*valid: 1"):
        NetworkProblem(digits(), Net(norm=False)).start(2)
