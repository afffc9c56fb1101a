"""What the tests of sdp_cert share: random networks, and the paper's programme as it is printed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor

from papers.sdp_cert.bounds import Interval, Objective, input_box, interval_bounds, margins
from papers.sdp_cert.network import ReluNetwork, relu_network


@dataclass(frozen=True)
class Problem:
    """A network with boxes around a few inputs."""

    network: ReluNetwork
    x: Tensor
    labels: Tensor
    box: Interval
    layers: list[Interval]
    goal: Objective

    @property
    def parts(self) -> tuple[ReluNetwork, list[Interval], Interval, Objective]:
        return self.network, self.layers, self.box, self.goal

    @property
    def all(self) -> Tensor:
        """Every target."""
        return torch.ones_like(self.goal.constants, dtype=torch.bool)

    def clean(self) -> Tensor:
        """The margins at the inputs themselves."""
        logits = self.network(self.x)
        return logits.gather(1, self.goal.targets) - logits.gather(1, self.labels[:, None])


def random_network(sizes: list[int], seed: int, scale: float = 1.0) -> ReluNetwork:
    generator = torch.Generator().manual_seed(seed)
    shapes = list(zip(sizes[1:], sizes[:-1], strict=True))
    weights = [torch.randn(n, m, generator=generator).double() * scale / m**0.5 for n, m in shapes]
    return relu_network(weights, [torch.randn(n, generator=generator).double() * 0.1 for n, _ in shapes])


def problem(
    sizes: list[int], eps: float, seed: int, examples: int = 1, clip: bool = True, network: Any = None
) -> Problem:
    network = network or random_network(sizes, seed)
    x = torch.rand(examples, network.inputs, generator=torch.Generator().manual_seed(seed + 1)).double()
    box, labels = input_box(x, eps, clip), network(x).argmax(1)
    return Problem(network, x, labels, box, interval_bounds(network, box), margins(network, labels))


def points(p: Problem, count: int, seed: int = 0) -> Tensor:
    """The largest margins [e, k] over random points of the box, half of them vertices."""
    generator = torch.Generator().manual_seed(seed)
    u = torch.rand(count, *p.x.shape, generator=generator).double()
    u[::2] = u[::2].round()
    logits = p.network(p.box.lower + u * (p.box.upper - p.box.lower))
    targets = p.goal.targets.expand(count, -1, -1)
    labels = p.labels[None, :, None].expand(count, -1, 1)
    return (logits.gather(2, targets) - logits.gather(2, labels)).amax(0)


def printed_sdp(p: Problem, example: int, row: int, cut: bool = False) -> float:
    """The optimum of the SDP as the paper prints it, in the x-variables, by Clarabel."""
    network = p.network
    sizes = [network.inputs, *(len(b) for b in network.biases[:-1])]
    at = np.cumsum([1, *sizes])
    P = cp.Variable((at[-1], at[-1]), PSD=True)
    constraints = [P[0, 0] == 1]
    boxes = [p.box, *(layer.relu() for layer in p.layers)]
    for i, box in enumerate(boxes):
        s, low, high = slice(at[i], at[i + 1]), box.lower[example].numpy(), box.upper[example].numpy()
        constraints.append(cp.diag(P[s, s]) <= cp.multiply(low + high, P[0, s]) - low * high)
    for i, layer in enumerate(p.layers):
        s, t = slice(at[i], at[i + 1]), slice(at[i + 1], at[i + 2])
        W, b = network.weights[i].numpy(), network.biases[i].numpy()
        a, z = W @ P[0, s] + b, P[0, t]
        constraints += [z >= 0, z >= a]
        constraints.append(cp.diag(P[t, t]) == cp.diag(W @ P[s, t]) + cp.multiply(b, z))
        if cut:
            low, high = layer.lower[example].clamp_max(0), layer.upper[example].clamp_min(0)
            slope = (high / (high - low).clamp_min(1e-300)).numpy()
            constraints.append(z <= cp.multiply(slope, a - low.numpy()))
    c = p.goal.rows[example, row].numpy()
    program = cp.Problem(cp.Maximize(c @ P[0, at[-2] : at[-1]]), constraints)
    program.solve(solver="CLARABEL")
    return float(program.value) + float(p.goal.constants[example, row])


class SaveAfter(pl.Callback):
    """Saves a checkpoint after a number of steps, as the runner does."""

    def __init__(self, steps: int, path: Path) -> None:
        self.steps, self.path = steps, path

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *rest: Any) -> None:
        if rest[-1] == self.steps:
            trainer.save_checkpoint(self.path)


def fit(m: pl.LightningModule, root: Path, save: SaveAfter | None = None, resume: Path | None = None) -> None:
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, default_root_dir=root,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[save] if save else [],
    )  # fmt: skip
    trainer.fit(m, ckpt_path=resume, weights_only=True)
