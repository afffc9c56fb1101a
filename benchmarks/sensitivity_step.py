"""A step of sensitivity on LeNet-300 against a plain step, and S against Jacobians of single examples."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, jacrev, vmap
from torch.nn import functional

from benchmarks.figures import Figure, command
from common.models.mlp import MLP
from common.training.tasks import Classification
from papers.sensitivity.sensitivity import Measure, Sensitivity

SETTINGS: dict[str, Any] = {
    "decay": 1e-5,
    "alpha": "unspecific",
    "output": "logits",
    "batch_reduce": "mean_of_abs",
    "rescale": "none",
    "outputs": "all",
    "directions": 1,
    "order": "simultaneous",
    "pruning": "none",
    "threshold": 0.0,
    "every": 1.0,
    "tolerance": 0.0,
    "patience": 1.0,
    "check": 1.0,
    "begin": 0.0,
    "parameters": "all",
}
SHAPE, CLASSES, BATCH, TURNS, JACOBIANS = (1, 28, 28), 10, 100, 40, 3


def jacobian_sensitivity(network: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """S from the Jacobians of single examples, a few at a time."""
    parameters = {name: p.detach() for name, p in network.named_parameters()}

    def outputs(values: dict[str, Tensor], image: Tensor) -> Tensor:
        return functional_call(network, values, (image[None],))[0]

    found = {name: torch.zeros_like(p) for name, p in parameters.items()}
    for part in images.split(10):
        for name, each in vmap(jacrev(outputs), (None, 0))(parameters, part).items():
            found[name] += each.abs().mean(1).sum(0) / len(images)
    return found


class Steps:
    """A plain step of SGD, a step of sensitivity, and S alone, on one network each."""

    def __init__(self, hidden: list[int], batch: int) -> None:
        torch.manual_seed(0)
        make = partial(MLP, shape=SHAPE, classes=CLASSES, hidden=hidden, activation="relu")
        self.plain_network, self.network = make(), make()
        sgd = partial(torch.optim.SGD, lr=0.01, foreach=True)
        self.method = Sensitivity(optimizer=sgd, **SETTINGS)
        self.method.prepare(Classification(CLASSES), 1.0)
        data: Any = SimpleNamespace(shape=SHAPE, classes=CLASSES)
        self.method.attach(self.network, make, data)
        self.plain_optimizer = sgd(self.plain_network.parameters())
        self.optimizer = sgd(self.network.parameters())
        self.images = torch.randn(batch, *SHAPE)
        self.labels = torch.arange(batch) % CLASSES

    def plain(self) -> None:
        self.plain_optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(self.plain_network(self.images), self.labels).backward()
        self.plain_optimizer.step()

    def sensitivity(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.method.loss(self.network, self.images, self.labels).backward()
        self.optimizer.step()
        self.method.end_step(self.network, 0.1)

    def alone(self) -> dict[str, Tensor]:
        return Measure()(self.network, self.images, None)

    def by_jacobians(self) -> dict[str, Tensor]:
        return jacobian_sensitivity(self.network, self.images)


def ratios(first: Callable[[], Any], second: Callable[[], Any], turns: int) -> float:
    """The median over turns of the first's processor time by the second's, each in turn."""
    found = []
    for turn in range(turns + 1):
        seconds = []
        for work in (first, second):
            start = time.process_time()
            work()
            seconds.append(time.process_time() - start)
        # the first turn warms up
        found += [seconds[0] / max(seconds[1], 1e-9)] if turn else []
    return statistics.median(found)


def main(tiny: bool = False) -> dict[str, Figure]:
    """Both figures, on one thread."""
    torch.set_num_threads(1)
    steps = Steps([8], 4) if tiny else Steps([300, 100], BATCH)
    turns, jacobians = (2, 1) if tiny else (TURNS, JACOBIANS)
    for name, value in steps.by_jacobians().items():
        torch.testing.assert_close(steps.alone()[name], value, rtol=1e-3, atol=1e-6)
    step = ratios(steps.sensitivity, steps.plain, turns)
    alone = ratios(steps.by_jacobians, steps.alone, jacobians)
    return {
        "step": Figure(
            step,
            "x its time",
            "sensitivity: a step with unspecific S of 10 outputs, LeNet-300, batch 100",
            "a plain step of SGD",
            at_most=3.0,
        ),
        "jacobians": Figure(
            alone,
            "x as fast",
            "sensitivity: unspecific S of 10 outputs, LeNet-300, batch 100",
            "Jacobians of single examples by `torch.func`",
            at_least=100.0,
        ),
    }


if __name__ == "__main__":
    command(main)
