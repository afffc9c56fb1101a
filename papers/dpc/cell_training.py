"""Training one cell: a short loop of its own, as a search makes thousands of them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from common.architectures.objective import ArchitectureObjective, seed_of
from common.base.dataset import DataSet, SplitName
from common.training.made_optimizer import made_optimizer
from common.training.minibatches import minibatches
from common.training.segmentation import Segmentation
from papers.dpc.backbones import padded_side
from papers.dpc.cached_features import CachedFeatures
from papers.dpc.cell import Cell
from papers.dpc.heads import map_of, table_cost
from papers.dpc.network import DeepLab, decay_of
from papers.dpc.space import CellSpace


class Recipe(NamedTuple):
    """How a cell is trained.

    Attributes:
        optimizer: makes one of parameters.
        power: the learning rate is its own times (1 - t / horizon)^power at step t.
        horizon: the length of a training in full, in steps: one that stops early decays no faster.
        batch_size: examples of a step.
        seed: of the run.
        weight_decay, class_weights: as the network has them.
        score: the split whose mIoU is the score.
        device: where.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    power: float
    horizon: int
    batch_size: int
    seed: int
    weight_decay: float
    class_weights: float | None
    score: SplitName
    device: str


class CellObjective(ArchitectureObjective[Cell]):
    """mIoU of cells on the cached maps of a frozen backbone, in percent.

    Args:
        space: of the cells.
        template: the network whose backbone made the maps; its head is exchanged.
        folder: of the cache.
        recipe: see `Recipe`.
        measure_test: also measure the test split, as `test`.
    """

    def __init__(
        self, space: CellSpace, template: DeepLab, folder: Path, recipe: Recipe, measure_test: bool
    ) -> None:
        self.space, self.recipe, self.measure_test = space, recipe, measure_test
        self.data: DataSet = CachedFeatures(folder, recipe.batch_size)
        self.template = template
        # raises now what would fail later
        self.data.size(recipe.score)
        self._task: Segmentation | None = None

    @property
    def image(self) -> tuple[int, int]:
        """(H, W) of the images."""
        assert isinstance(self.data, CachedFeatures)
        return self.data.stored.image

    def build(self, architecture: Cell) -> nn.Module:
        """The cell and a classifier, on maps."""
        return self.template.on_features(architecture, self.image)

    def count(self, architecture: Cell) -> dict[str, float]:
        """parameters and madds of the branches as table 1 counts them, at the map of the images' size."""
        backbone = self.template.backbone
        filled = [padded_side(side, backbone.output_stride) for side in self.image]
        map_size = map_of((filled[0], filled[1]), backbone.output_stride)
        cost = table_cost(architecture, backbone.channels, self.template.settings.filters, map_size)
        return {"parameters": cost.parameters, "madds": cost.madds}

    def train(self, architecture: Cell, budget: int) -> dict[str, float]:
        """score, the mIoU of the split to judge by; test where it is measured; the last training loss."""
        torch.manual_seed(seed_of(self.recipe.seed, architecture.key))
        network = self.build(architecture).to(self.recipe.device)
        self.data.move(self.recipe.device)
        loss = train_briefly(network, self.data, self.task(), self.recipe, budget)
        if not math.isfinite(loss):
            return {"score": math.nan, "loss": loss}
        measures = {"score": self._miou(network, self.recipe.score), "loss": loss}
        if self.measure_test:
            measures["test"] = self._miou(network, "test")
        return measures

    def task(self) -> Segmentation:
        """The loss and the measure; class weights are of all training pixels, once in a process."""
        if self._task is None:
            self._task = Segmentation(self.data, self.recipe.class_weights)
        return self._task

    def _miou(self, network: nn.Module, split: SplitName) -> float:
        return self.task().evaluate(network, self.data, split)[f"{split}_class_iou"]


class NetworkObjective(CellObjective):
    """mIoU of whole networks, trained end to end from a backbone's weights, in percent.

    Args:
        space, template, recipe, measure_test: see `CellObjective`; the template's decoder, if any, is kept.
        data: the images.
    """

    def __init__(
        self, space: CellSpace, template: DeepLab, data: DataSet, recipe: Recipe, measure_test: bool
    ) -> None:
        self.space, self.recipe, self.measure_test = space, recipe, measure_test
        self.data, self.template = data, template
        self._task = None

    @property
    def image(self) -> tuple[int, int]:
        return self.data.shape[1], self.data.shape[2]

    def build(self, architecture: Cell) -> nn.Module:
        network = self.template.with_head(architecture)
        for parameter in network.parameters():
            parameter.requires_grad_(True)
        return network


def train_briefly(network: nn.Module, data: DataSet, task: Segmentation, recipe: Recipe, steps: int) -> float:
    """Train a network in place by minibatches; the loss of the last step, NaN or infinite where it diverged.

    Stops at the first loss that is not finite; that is looked at every 50 steps, so that a GPU need not wait.
    """
    optimizer = made_optimizer(recipe.optimizer, list(network.parameters()), "method.optimizer")
    rates = [group["lr"] for group in optimizer.param_groups]
    network.train()
    loss = torch.zeros(())
    for step, (inputs, targets) in zip(range(steps), minibatches(data, recipe.seed), strict=False):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * (1 - step / recipe.horizon) ** recipe.power
        optimizer.zero_grad(set_to_none=True)
        loss = task.loss(network, inputs, targets) + _penalty(network, recipe)
        loss.backward()
        optimizer.step()
        if step % 50 == 49 and not bool(loss.isfinite()):
            break
    return float(loss.detach())


def _penalty(network: nn.Module, recipe: Recipe) -> Tensor | float:
    # a whole network has its own, which is in the task's loss
    return 0.0 if isinstance(network, DeepLab) else decay_of(network, recipe.weight_decay)
