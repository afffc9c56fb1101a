"""Training one network of cells: a short loop of its own, as a search makes many."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.architectures.objective import ArchitectureObjective, seed_of
from common.base.dataset import DataSet, SplitName
from common.base.modes import evaluation_mode
from common.metrics.parameters import count_parameters
from common.models.weightless import weightless
from common.training.made_optimizer import made_optimizer
from common.training.minibatches import minibatches
from papers.nao.cell import ConvArchitecture
from papers.nao.network import NAONet
from papers.nao.space import ConvSpace

Score = Literal["accuracy", "loss"]


class ChildRecipe(NamedTuple):
    """How a network is trained.

    Attributes:
        optimizer: makes one of parameters.
        horizon: lr_t = lr (1 + cos(pi t / (horizon T))) / 2 in a training of T steps.
        clip: largest norm of a gradient.
        cutout: side of the square that is blanked in each training image; 0: none.
        seed: of the run.
        score: what is maximised: the accuracy in percent, or the mean loss, negated.
        split: on which split.
        device: where.
    """

    optimizer: Callable[..., torch.optim.Optimizer]
    horizon: float
    clip: float
    cutout: int
    seed: int
    score: Score
    split: SplitName
    device: str


class ChildObjective(ArchitectureObjective[ConvArchitecture]):
    """Networks of cells, each trained by itself.

    Architectures that are the same function are trained as the one that stands for them, so a score
    follows from the key.

    Args:
        space: of the cells.
        template: a network whose cells are exchanged.
        data: the images.
        recipe: see `ChildRecipe`.
        measure_test: also measure the test split at the end, as `test` (accuracy in percent).
        looks: how often in a training, at equal distances, both splits are measured, for curves.
    """

    def __init__(
        self,
        space: ConvSpace,
        template: NAONet,
        data: DataSet,
        recipe: ChildRecipe,
        measure_test: bool,
        looks: int = 0,
    ) -> None:
        self.space, self.template, self.data, self.recipe = space, template, data, recipe
        self.measure_test, self.looks = measure_test, looks

    def build(self, architecture: ConvArchitecture) -> NAONet:
        return self.template.with_architecture(architecture.canonical)

    def count(self, architecture: ConvArchitecture) -> dict[str, float]:
        """parameters, without the second classifier."""
        with weightless():
            network = self.build(architecture)
        head = 0 if network.head is None else count_parameters(network.head)
        return {"parameters": count_parameters(network) - head}

    def train(self, architecture: ConvArchitecture, budget: int) -> dict[str, float]:
        """score; accuracy (percent) and loss of the split to judge by; test where measured; train_loss.

        Of curves accuracy@t, loss@t and test@t after t steps.
        """
        torch.manual_seed(seed_of(self.recipe.seed, architecture.key))
        network = self.build(architecture).to(self.recipe.device)
        self.data.setup()
        self.data.move(self.recipe.device)
        curve: dict[str, float] = {}

        def look(step: int) -> None:
            accuracy, loss = evaluated(network, self.data, self.recipe.split)
            curve.update({f"accuracy@{step}": accuracy, f"loss@{step}": loss})
            curve[f"test@{step}"] = evaluated(network, self.data, "test")[0]

        at = {round(budget * (number + 1) / self.looks) for number in range(self.looks)}
        train_loss = train_child(network, self.data, self.recipe, budget, at, look)
        if not math.isfinite(train_loss):
            return {"score": math.nan, "train_loss": train_loss}
        accuracy, loss = evaluated(network, self.data, self.recipe.split)
        score = accuracy if self.recipe.score == "accuracy" else -loss
        measures = {"score": score, "accuracy": accuracy, "loss": loss, "train_loss": train_loss, **curve}
        if self.measure_test:
            measures["test"] = evaluated(network, self.data, "test")[0]
        return measures


def train_child(
    network: NAONet,
    data: DataSet,
    recipe: ChildRecipe,
    steps: int,
    looks: set[int] | None = None,
    look: Callable[[int], None] | None = None,
) -> float:
    """Train a network in place; the loss of the last step, NaN or infinite where it diverged.

    Args:
        looks: after which of the steps 1, 2, ... `look` is called with the step.
    """
    parameters = list(network.parameters())
    optimizer = made_optimizer(recipe.optimizer, parameters, "method.optimizer")
    rates = [group["lr"] for group in optimizer.param_groups]
    network.train()
    loss = torch.zeros(())
    for step, (inputs, targets) in zip(range(steps), minibatches(data, recipe.seed), strict=False):
        factor = (1 + math.cos(math.pi * step / (recipe.horizon * steps))) / 2
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        assert targets is not None
        network.progress.fill_((step + 1) / steps)
        optimizer.zero_grad(set_to_none=True)
        outputs = network(cut_out(inputs, recipe.cutout))
        loss = functional.cross_entropy(outputs, targets) + network.auxiliary_loss(targets)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, recipe.clip)
        optimizer.step()
        if step % 50 == 49 and not bool(loss.isfinite()):
            break
        if look is not None and looks and step + 1 in looks:
            look(step + 1)
            network.train()
    return float(loss.detach())


@torch.no_grad()
def evaluated(network: nn.Module, data: DataSet, split: SplitName) -> tuple[float, float]:
    """Accuracy in percent and mean cross-entropy of a split."""
    right, loss, count = 0, 0.0, 0
    with evaluation_mode(network):
        for inputs, targets in data.batches(split, data.evaluation_batch):
            assert targets is not None
            outputs = network(inputs)
            right += int((outputs.argmax(1) == targets).sum())
            loss += float(functional.cross_entropy(outputs, targets, reduction="sum"))
            count += len(targets)
    return 100 * right / count, loss / count


def cut_out(images: Tensor, side: int) -> Tensor:
    """Images [b, c, h, w] with a square of zeros each, cut at the border (DeVries and Taylor 2017).

    Its middle is a pixel of the image, all alike probable, drawn from torch's global generator.
    """
    if side == 0:
        return images
    _, _, height, width = images.shape
    masks = []
    for extent in (height, width):
        middle = torch.randint(extent, (len(images), 1), device=images.device)
        places = torch.arange(extent, device=images.device)
        masks.append((places >= middle - side // 2) & (places < middle - side // 2 + side))
    blank = masks[0][:, None, :, None] & masks[1][:, None, None, :]
    return images.masked_fill(blank, 0.0)
