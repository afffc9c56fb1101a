"""The fine-tuning between the stages of a selection: Algorithms 1 and S1 of Zhuang et al., NeurIPS 2018."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet
from common.base.loader import BlockLoader
from common.base.task import Task
from common.training.finite import NonFinite
from common.training.schedules import Schedule
from papers.dcp.auxiliary import heard


class Stagewise:
    """Trains a partly pruned network and one head by L_S^p + L_f, before that head's layers are selected.

    Each of the P + 1 stages has an equal share of the epochs, and an optimizer and a schedule of its own; the
    last has L_f alone. Weights of channels that are gone stay 0. Algorithm S1 steps for L_S^p and then, with
    gradients of the same forward pass, for L_f; here one step has their sum.

    Args:
        network, heads: trained in place.
        ends: after which modules the heads stand.
        task, data, seed: of the run.
        optimizer: makes one of parameters.
        schedule: of `common.training.schedules`, with its settings.
        epochs: of all stages.

    Attributes:
        done: stages that were trained.
        last_loss: L_S^p + L_f of the last step.
    """

    def __init__(
        self,
        *,
        network: nn.Module,
        heads: nn.ModuleList,
        ends: list[str],
        task: Task,
        data: DataSet,
        seed: int,
        optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Schedule],
        epochs: float,
    ) -> None:
        self.network, self.heads, self.ends = network, heads, ends
        self.task, self.data, self.seed = task, data, seed
        self.make_optimizer, self.make_schedule, self.epochs = optimizer, schedule, epochs
        self.trained = [p for p in network.parameters() if p.requires_grad]
        self.done = self.steps = 0
        self.last_loss: float | None = None
        self._loader: BlockLoader | None = None
        self._blocks: Iterator[list[Any]]
        self._optimizer: torch.optim.Optimizer
        self._schedule: Schedule
        self._resumed: dict[str, Any] | None = None

    @property
    def stages(self) -> int:
        """P + 1."""
        return len(self.ends) + 1

    def block(self, gone: Mapping[str, Tensor]) -> None:
        """Some steps of the stage under way.

        Args:
            gone: of each layer that is done, which of its weights are 0, bool of their shape.

        Raises:
            NonFinite: a loss is.
        """
        loader = self._loader or self._begin()
        head = self.heads[self.done] if self.done < len(self.ends) else None
        self.network.train()
        if head is not None:
            head.train()
        started = time.perf_counter()
        for item in next(self._blocks)[: self._total(loader) - self.steps]:
            self._step(head, *self.data.ready(item))
            self._keep_at_zero(gone)
        loader.fit_block(time.perf_counter() - started)
        if loader.at_epoch_end and self.last_loss is not None:
            self._schedule.after_epoch(self.last_loss)
        if self.steps >= self._total(loader):
            self.done, self.steps, self._loader = self.done + 1, 0, None
            self.network.eval()
            self.heads.eval()

    def _total(self, loader: BlockLoader) -> int:
        return max(1, round(self.epochs / self.stages * loader.steps_per_epoch))

    def _begin(self) -> BlockLoader:
        """The loader of a stage; its optimizer and schedule are made, or go on."""
        parameters = list(self.trained)
        if self.done < len(self.ends):
            parameters += list(self.heads[self.done].parameters())
        for parameter in parameters:
            parameter.requires_grad_(True)
        loader = self._loader = self.data.loader(stage_seed(self.seed, self.done))
        self._optimizer = self.make_optimizer(parameters)
        self._schedule = self.make_schedule(
            self._optimizer, total_steps=self._total(loader), steps_per_epoch=loader.steps_per_epoch
        )
        if self._resumed is not None:
            loader.load_state_dict(self._resumed["loader"])
            self._optimizer.load_state_dict(self._resumed["optimizer"])
            self._schedule.load_state_dict(self._resumed["schedule"])
            self._resumed = None
        self._blocks = iter(loader)
        return loader

    def _step(self, head: nn.Module | None, inputs: Tensor, targets: Tensor | None) -> None:
        assert targets is not None
        self._optimizer.zero_grad(set_to_none=True)
        end = [] if head is None else [self.ends[self.done]]
        with heard(self.network, end) as outputs:
            loss = self.task.loss(self.network, inputs, targets)
        if head is not None:
            loss = loss + functional.cross_entropy(head(outputs[end[0]]), targets)
        loss.backward()
        self._optimizer.step()
        self._schedule.after_step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise NonFinite(
                step=self.steps, last_finite=self.last_loss, what=f"loss of fine-tuning stage {self.done + 1}"
            )
        self.last_loss = value
        self.steps += 1

    @torch.no_grad()
    def _keep_at_zero(self, gone: Mapping[str, Tensor]) -> None:
        for name, mask in gone.items():
            self.network.get_submodule(name).weight.masked_fill_(mask, 0.0)  # type: ignore[operator]

    def state_dict(self) -> dict[str, Any]:
        """How far it is."""
        under_way = None
        if self._loader is not None:
            under_way = {
                "loader": self._loader.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "schedule": self._schedule.state_dict(),
            }
        return {"done": self.done, "steps": self.steps, "last_loss": self.last_loss, "under_way": under_way}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave; the optimizer's when it is made."""
        self.done, self.steps, self.last_loss = state["done"], state["steps"], state["last_loss"]
        self._resumed = state["under_way"]


def stage_seed(seed: int, stage: int) -> int:
    """The seed of the minibatches of a stage: those of other stages and of other runs' seeds are others.

    Of 40 bits, since loaders multiply it.
    """
    drawn = np.random.SeedSequence((seed % 2**64, stage)).generate_state(1, np.uint64)
    return int(drawn[0]) >> 24
