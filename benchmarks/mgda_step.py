"""A step of MGDA-UB and of exact MGDA against the plain mean of losses, with 2 to 40 tasks on one core.

    python -m benchmarks.mgda_step

The authors' LeNet, 28x28 images, batch 256, random labels; a step is everything but the optimizer's. The
plain step is one `backward()` of the mean. Exact MGDA makes T passes through the encoder, one by one or
vectorised by vmap; the peer of both is T separate `torch.autograd.grad` calls of the losses through the whole
graph. All take turns in one process; ratios are of the least CPU times. Exits with 1 if at T = 40 MGDA-UB
takes more than LIMIT of the plain step, or if exact MGDA takes longer than T separate passes.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.figures import Figure, command
from papers.mgda.methods import MGDA, MGDAUB, MultiTaskMethod
from papers.mgda.networks import MultiLeNet
from papers.mgda.shared import SharedPass

BATCH, TURNS, LIMIT = 256, 5, 1.3
OPTIONS: dict[str, Any] = {
    "optimizer": partial(torch.optim.SGD, lr=0.1),
    "solver": "exact",
    "normaliser": "none",
    "normaliser_applies_to": "solver",
    "step_scale": 1.0,
    "head_scaling": "none",
}


class Steps:
    """A network with T heads, a minibatch, and the step of each method."""

    def __init__(self, tasks: int, batch: int) -> None:
        torch.manual_seed(0)
        self.network = MultiLeNet(
            shape=(1, 28, 28),
            classes=10,
            tasks=tasks,
            channels=[10, 20],
            kernel=5,
            pool=[2, 2],
            representation=50,
            hidden=50,
            dropout="official",
        )
        self.images = torch.randn(batch, 1, 28, 28)
        self.labels = torch.randint(10, (tasks, batch))

    def losses(self, outputs: Any) -> Tensor:
        each = zip(outputs, self.labels, strict=True)
        return torch.stack([functional.cross_entropy(output, label) for output, label in each])

    def plain(self) -> None:
        self.network.zero_grad(set_to_none=True)
        z = self.network.encoder(self.images)
        self.losses([head(z) for head in self.network.heads]).mean().backward()

    def separate(self) -> None:
        """T passes through all, as one would do by hand."""
        self.network.zero_grad(set_to_none=True)
        z = self.network.encoder(self.images)
        shared = list(self.network.encoder.parameters())
        for head, loss in zip(
            self.network.heads, self.losses([head(z) for head in self.network.heads]), strict=True
        ):
            torch.autograd.grad(loss, [*shared, *head.parameters()], retain_graph=True)

    def by(self, method: MultiTaskMethod) -> None:
        self.network.zero_grad(set_to_none=True)
        method.backward(SharedPass(self.network.encoder, list(self.network.heads), self.images, self.losses))


def least_times(works: dict[str, Callable[[], None]], turns: int) -> dict[str, float]:
    """The least CPU seconds of each work over the turns."""
    least = dict.fromkeys(works, float("inf"))
    for work in works.values():
        work()
    for _ in range(turns):
        for name, work in works.items():
            start = time.process_time()
            work()
            least[name] = min(least[name], time.process_time() - start)
    return least


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure with every number of tasks."""
    torch.set_num_threads(1)
    batch, turns = (2, 1) if tiny else (BATCH, TURNS)
    figures = {}
    for tasks in (2, 3) if tiny else (2, 10, 40):
        steps = Steps(tasks, batch)
        bound = MGDAUB(**OPTIONS, batched=False, rep_reduction="flatten")
        works = {
            "plain": steps.plain,
            "mgda_ub": partial(steps.by, bound),
            "mgda": partial(steps.by, MGDA(**OPTIONS, batched=False)),
            "mgda batched": partial(steps.by, MGDA(**OPTIONS, batched=True)),
            "separate": steps.separate,
        }
        times = least_times(works, turns)
        shown = "  ".join(f"{name} {seconds / times['plain']:.2f}" for name, seconds in times.items())
        print(f"T = {tasks:2}: plain {1e3 * times['plain']:6.1f} ms; over that: {shown}", flush=True)
        most = LIMIT if tasks == 40 else None
        exact = 1.0 if tasks == 40 else None
        figures[f"ub_{tasks}"] = Figure(
            times["mgda_ub"] / times["plain"],
            "x its time",
            f"mgda: a step of MGDA-UB with {tasks} heads",
            "a step of the plain mean of losses",
            at_most=most,
        )
        figures[f"exact_{tasks}"] = Figure(
            times["mgda"] / times["separate"],
            "x its time",
            f"mgda: a step of exact MGDA with {tasks} heads",
            f"{tasks} separate passes",
            at_most=exact,
        )
    return figures


if __name__ == "__main__":
    command(main)
