"""Channel selection with everything before the layer computed once, against the loop that runs it at every
pass.

    python -m benchmarks.dcp_selection

The loop is that of the authors' code: each pass over the selection set runs both networks up to the layer,
and the rest of the pruned one up to the loss. Both make the same passes, so they must pick the same channels.
Exits with 1 if they do not, if the cached one is less than FASTER times as fast, or if all layers of a
pre-activation ResNet-20 take LIMIT seconds or more at eta = 0.5 with 500 images.
"""

import copy
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.figures import Figure, command
from common.models.preact_resnet import PreactResNet
from papers.dcp.cut import Cut, before, cached_problem
from papers.dcp.layer_problem import LayerProblem, Rows, kept_channels
from papers.dcp.losses import block_names, head_for, pivots, stage_of
from papers.dcp.policy import prunable
from papers.dcp.selection import ChannelSelection, Selection

FASTER, LIMIT = 3.0, 120.0
LOSSES, CLASSES = 3, 10


@dataclass(frozen=True)
class Ground:
    """A network with its heads, and a selection set of random images."""

    network: nn.Module
    images: Tensor
    labels: Tensor
    ends: list[str]
    heads: list[nn.Module]

    def loss_of(self, network: nn.Module, layer: str) -> dict[str, Any]:
        """After which module, and by which head, a layer's discrimination loss is measured."""
        stage = stage_of(network, layer, self.ends)
        if stage == len(self.ends):
            return {"end": None, "head": None}
        return {"end": self.ends[stage], "head": self.heads[stage]}


def make_ground(depth: int, side: int, images: int) -> Ground:
    """A pre-activation ResNet whose batch normalisation has seen the images."""
    torch.manual_seed(0)
    network = PreactResNet(shape=(3, side, side), classes=CLASSES, depth=depth)
    inputs, labels = torch.randn(images, 3, side, side), torch.randint(CLASSES, (images,))
    with torch.no_grad():
        network.train()(inputs[:100])
    blocks = block_names(network)
    ends = [blocks[place - 1] for place in pivots(len(blocks), min(LOSSES, len(blocks) - 2))]
    heads = [head_for(network, end, inputs[:2], CLASSES) for end in ends]
    return Ground(network, inputs, labels, ends, heads)


class RunsAll(LayerProblem):
    """The problem of a layer that runs everything before the layer at every pass."""

    def __init__(self, ground: Ground, baseline: nn.Module, layer: str, cached: LayerProblem) -> None:
        super().__init__(
            cached.layer, cached.inputs, cached.baseline, cached.tail, name=layer, chunk=cached.chunk
        )
        where = ground.loss_of(ground.network, layer)
        self.head, self.images, self.labels = where["head"], ground.images, ground.labels
        self.cut = Cut(ground.network, layer, where["end"], ground.images[:3])
        self.unpruned = before(baseline, layer)
        self.teacher = baseline.get_submodule(layer)

    def terms(self, weight: Tensor, bias: Tensor | None, rows: Rows) -> tuple[Tensor | None, Tensor | None]:
        with torch.no_grad():
            features, *live = self.cut.before(self.images[rows])
            baseline = self.teacher(self.unpruned(self.images[rows])[0])
        outputs = functional.conv2d(features, weight, bias, padding=1)
        found = self.cut.after(outputs, live)
        logits = found if self.head is None else self.head(found)
        return 0.5 * (outputs - baseline).square().mean(), functional.cross_entropy(logits, self.labels[rows])


def select(problem: LayerProblem, eta: float) -> tuple[Selection, float]:
    """A layer's selection, and its seconds."""
    start = time.perf_counter()
    found = ChannelSelection().select(problem, kept_channels(problem.channels, eta))
    return found, time.perf_counter() - start


def against_the_loop(ground: Ground, layers: list[str], eta: float) -> dict[str, Figure]:
    """Some layers by both, in turn; the cached one's seconds are with those of the cache."""
    baseline = copy.deepcopy(ground.network)
    seconds, same, picks = {"cached": 0.0, "loop": 0.0}, 0, 0
    for layer in layers:
        start = time.perf_counter()
        problem = cached_problem(
            ground.network,
            baseline,
            layer,
            ground.images,
            ground.labels,
            **ground.loss_of(ground.network, layer),
        )
        seconds["cached"] += time.perf_counter() - start
        ours, own = select(problem, eta)
        theirs, other = select(RunsAll(ground, baseline, layer, problem), eta)
        print(f"{layer}: cached {own:.1f} s, loop {other:.1f} s, {len(ours.picks)} picks", flush=True)
        seconds["cached"] += own
        seconds["loop"] += other
        same += sum(a == b for a, b in zip(ours.picks, theirs.picks, strict=True))
        picks += len(ours.picks)
    what = "dcp: channel selection, a layer of each stage of ResNet-20"
    peer = "the same with all layers before it run at every pass"
    return {
        "cached": Figure(seconds["loop"] / seconds["cached"], "x as fast", what, peer, at_least=FASTER),
        "same_picks": Figure(same / picks, "of the picks the same", what, peer, at_least=1.0),
    }


def all_layers(ground: Ground, eta: float) -> float:
    """Seconds for all layers, each after those before it have been pruned."""
    network, baseline = copy.deepcopy(ground.network), ground.network
    start = time.perf_counter()
    for layer, group in prunable(network, tuple(ground.images.shape[1:])).items():
        problem = cached_problem(
            network, baseline, layer, ground.images, ground.labels, **ground.loss_of(network, layer)
        )
        found, seconds = select(problem, eta)
        with torch.no_grad():
            problem.layer.weight.copy_(found.weight)
        print(f"{layer}: {len(found.kept)} of {group.channels} channels, {seconds:.1f} s", flush=True)
    return time.perf_counter() - start


def main(tiny: bool = False) -> dict[str, Figure]:
    """Against the loop with 100 images; all layers with 500."""
    depth, side, few, many, eta = (8, 8, 8, 8, 0.9) if tiny else (20, 32, 100, 500, 0.5)
    middle = [f"stages.{stage}.{0 if tiny else 1}.residual.3" for stage in range(3)]
    figures = against_the_loop(make_ground(depth, side, few), middle, eta)
    ground = make_ground(depth, side, many)
    figures["all_layers"] = Figure(
        all_layers(ground, eta),
        "s",
        f"dcp: selection in all layers of ResNet-{depth} with {many} images, eta = {eta}",
        at_most=LIMIT,
    )
    return figures


if __name__ == "__main__":
    command(main)
