"""Several processes that make one run together, each with its share of every batch (trainer=ddp)."""

import atexit
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from torch import Tensor, distributed

from common.base.dataset import Batch, DataSet
from common.base.errors import UserError
from common.training.supervised import SupervisedModule

# a process may wait that long for the others: the first may have to wait for another run
PATIENCE = timedelta(days=7)
START = "torchrun --nproc-per-node=N run.py ... trainer=ddp"


class Processes:
    """The processes of a run; every process of a run alone is the first of one.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size

    @property
    def first(self) -> bool:
        """Whether this process writes files and says how it goes."""
        return self.rank == 0

    def agree(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]


def processes_of(trainer: DictConfig) -> Processes:
    """The processes that make a run by a trainer of `conf/trainer`; they have met when this returns.

    Of several, only the first prints from then on.

    Raises:
        UserError: it wants several, and nothing has started them.
    """
    if trainer.get("strategy") != "ddp":
        return Processes(0, 1)
    if not distributed.is_initialized():
        if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= set(os.environ):
            raise UserError(f"trainer=ddp: several processes make this run, start them by {START}")
        backend = "gloo" if trainer.accelerator == "cpu" or not torch.cuda.is_available() else "nccl"
        if backend == "nccl":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group(backend, timeout=PATIENCE)
        atexit.register(_leave)
        if distributed.get_rank():
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
    return Processes(distributed.get_rank(), distributed.get_world_size())


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def trainer_settings(processes: Processes) -> dict[str, int]:
    """What Lightning's Trainer must be told of the processes: those of this machine, and machines."""
    if processes.size == 1:
        return {}
    here = int(os.environ["LOCAL_WORLD_SIZE"])
    return {"devices": here, "num_nodes": processes.size // here}


class Shares(pl.Callback):
    """Gives each process its share of every batch, and all of them the gradient of the whole.

    Rank r trains on the examples r, r + size, ... of a batch, each process having made the whole batch (so
    that its random crops are those of a single process). A batch too small to give each process two examples,
    without which batch normalisation has no variance, is shared by as many as it can. Before each step of the
    optimizer, gradients are summed over the processes with the weights n_r / n, which gives the gradient of
    the mean loss over the batch's n examples whatever their number: the run's result is that of a single
    process, but for the order of additions. What is computed within a batch by other means than a mean over
    examples is that of the share: the statistics of batch normalisation, dropout, and `running_loss`, which
    is the first process's.
    """

    def __init__(self, processes: Processes) -> None:
        self.processes = processes
        self.weight = 1.0

    def attach(self, module: pl.LightningModule) -> None:
        """Let a module train on its share.

        Raises:
            UserError: it does not train by minibatches.
        """
        if not isinstance(module, SupervisedModule):
            self._refuse(module, "does not train a network by minibatches")
        if type(module)._backward is not SupervisedModule._backward:
            self._refuse(module, "takes a gradient that is no mean over the examples of a batch")
        data, whole = module.data, module.data.ready
        _check_batch(data, self.processes.size)

        def ready(item: Any) -> Batch:
            inputs, targets = whole(item)
            mine, self.weight = share(len(inputs), self.processes)
            return inputs[mine], None if targets is None else targets[mine]

        data.ready = ready  # type: ignore[method-assign]

    @staticmethod
    def _refuse(module: pl.LightningModule, reason: str) -> NoReturn:
        raise UserError(
            f"trainer=ddp: {type(module).__name__} {reason} (valid: trainer=auto, trainer=cpu or trainer=gpu)"
        )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for optimizer in trainer.optimizers:
            optimizer.register_step_pre_hook(self._sum_gradients)

    def _sum_gradients(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None
        ]
        flat = torch.cat([gradient.flatten() for gradient in gradients]).mul_(self.weight)
        distributed.all_reduce(flat)
        torch._foreach_copy_(gradients, _like(flat, gradients))

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        # how many steps a block has follows from its seconds, which differ
        assert isinstance(pl_module, SupervisedModule)
        pl_module.loader.block = self.processes.agree(pl_module.loader.block)


def share(count: int, processes: Processes) -> tuple[slice, float]:
    """The examples of a batch of `count` that a process trains on, and their part of the batch.

    A process without a share of its own takes the first two examples, which count nothing.
    """
    sharing = min(processes.size, max(1, count // 2))
    if processes.rank >= sharing:
        return slice(0, 2), 0.0
    mine = slice(processes.rank, None, sharing)
    return mine, len(range(count)[mine]) / count


def _like(flat: Tensor, tensors: list[Tensor]) -> list[Tensor]:
    pieces = flat.split([tensor.numel() for tensor in tensors])
    return [piece.view_as(tensor) for piece, tensor in zip(pieces, tensors, strict=True)]


def _check_batch(data: DataSet, size: int) -> None:
    if data.batch_size < size:
        raise UserError(f"dataset.batch_size={data.batch_size}: smaller than the {size} processes")
