"""The selection of all layers of a network against a loop that runs the whole network at every pick."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from papers.dcp.losses import AuxiliaryHead, stage_of
from papers.dcp.selectors import Greedy, Work, layers_within

SHAPE = (3, 8, 8)


class Net(nn.Module):
    """A residual block, a branch that is joined, and a flattened map before two linear layers."""

    task = "classification"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a, self.norm, self.b = (
            nn.Conv2d(4, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.Conv2d(6, 4, 3, padding=1),
        )
        self.p, self.q = nn.Conv2d(4, 5, 1, bias=False), nn.Conv2d(5, 4, 1)
        self.down = nn.Conv2d(8, 5, 3, stride=4)
        self.hidden, self.out = nn.Linear(20, 7), nn.Linear(7, 4)

    def forward(self, images: Tensor) -> Tensor:
        low = self.stem(images)
        low = (low + self.b(self.norm(self.a(low)).relu())).relu()
        both = torch.cat([low, self.q(functional.silu(self.p(low)))], 1)
        return self.out(self.hidden(self.down(both).relu().flatten(1)).relu())


def randomised(network: nn.Module, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
    return network.double().eval()


def outputs_of(network: nn.Module, names: Sequence[str], inputs: Tensor) -> dict[str, Tensor]:
    """The outputs of modules and, as "", of the network, in one forward pass."""
    found: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(name).register_forward_hook(
            lambda _, __, output, name=name: found.__setitem__(name, output)
        )
        for name in names
    ]
    found[""] = network(inputs)
    for hook in hooks:
        hook.remove()
    return found


def by_hand(
    network: nn.Module, layers: dict[str, int], head: AuxiliaryHead, data: tuple[Tensor, Tensor], weights: Any
) -> dict[str, tuple[list[int], float]]:
    """Algorithm 2 for each layer, the pretrained weights as its sub-problem's solution: picks and last L."""
    inputs, labels = data
    unpruned, network, found = copy.deepcopy(network), copy.deepcopy(network), {}
    for name, channels in layers.items():
        layer: Any = network.get_submodule(name)
        with torch.no_grad():
            wanted = outputs_of(unpruned, [name], inputs)[name]
        start, picks = layer.weight.detach().clone(), list[int]()

        def loss(name: str = name, wanted: Tensor = wanted) -> Tensor:
            given = outputs_of(network, [name, "b"], inputs)
            logits = head(given["b"]) if name == "b" else given[""]
            mean_square = (given[name] - wanted).square().sum() / (2 * wanted.numel())
            return weights[0] * mean_square + weights[1] * functional.cross_entropy(logits, labels)

        layer.weight.data = torch.zeros_like(start)
        while len(picks) < channels - math.floor(0.4 * channels):
            (gradient,) = torch.autograd.grad(loss(), layer.weight)
            norms = gradient.view(len(start), channels, -1).transpose(0, 1).flatten(1).norm(dim=1)
            norms[picks] = -1
            picks.append(int(norms.argmax()))
            kept = torch.zeros(channels, dtype=torch.float64)
            kept[picks] = 1
            layer.weight.data = (start.view(len(start), channels, -1) * kept.view(1, -1, 1)).view_as(start)
        found[name] = picks, float(loss().detach())
    return found


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.0, 1.0), (2.0, 0.3)])
def test_the_picks_and_losses_of_all_layers_are_those_of_whole_passes(weights: tuple[float, float]) -> None:
    network, head = randomised(Net(), 3), randomised(AuxiliaryHead(4, 4), 9)
    generator = torch.Generator().manual_seed(5)
    inputs = torch.randn(40, *SHAPE, dtype=torch.float64, generator=generator)
    labels = torch.randint(4, (40,), generator=generator)
    layers = layers_within(network, SHAPE, None)
    # not "down", whose inputs are joined
    assert list(layers) == ["b", "q", "hidden"]
    expected = by_hand(
        network, {name: group.channels for name, group in layers.items()}, head, (inputs, labels), weights
    )
    greedy = Greedy(
        prepared=None,
        rate=0.4,
        layers=None,
        samples=None,
        reconstruction=weights[0],
        discrimination=weights[1],
        step="none",
        steps=1,
        lr=0.01,
        score="fro",
        direction="forward",
        picks_per_pass=1,
        epsilon=None,
        losses=None,
        finetune="joint",
        preparations={},
        optimizer=partial(torch.optim.SGD, lr=0.1),
    )
    pruned, unpruned = copy.deepcopy(network), copy.deepcopy(network)
    for target in greedy.plan(pruned, layers):
        inner = stage_of(pruned, target.layer, ["b"]) == 0
        assert inner == (target.layer == "b")
        work = Work(
            network=pruned,
            baseline=unpruned,
            inputs=inputs,
            targets=labels,
            end="b" if inner else None,
            head=head if inner else None,
            loss=functional.cross_entropy,
            seed=0,
        )
        *_, last = greedy.passes(target, work, None)
        picks, loss = expected[target.layer]
        assert last.picks == picks
        assert last.losses[-1] == pytest.approx(loss, rel=1e-9)
        pruned.get_submodule(target.layer).weight.data.copy_(last.weight)
