"""The controller: a recurrent network that writes a design choice by choice, R of them at once.

At step t the LSTM reads x_t = [embedding of the choice before; embedding of the task], and a softmax over the
choices of decision t reads h_t, with the skip connection [h_t; x_t] (Wong et al. 2018; Wong & Gesmundo 2017).
log p(a | task) = sum_t log p(a_t | a_1, ..., a_{t-1}, task).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.limits import require

# parameters that belong to single tasks; all others are what transfer takes along
TASK_WEIGHTS = "task_embedding"
# weights of each replicate are drawn apart from all that a search draws
STREAM = 7_368_787


@dataclass(frozen=True)
class ControllerSettings:
    """The sizes of a controller.

    Attributes:
        hidden: units of each LSTM layer.
        layers: of the LSTM.
        action_size: of the embedding of a choice.
        task_size: of the embedding of a task; 0: the controller does not know the task.
        skip: whether the softmax also reads what the LSTM reads.
        init: weights are uniform in [-init, init]; 0: all are zero, and every choice is uniform.
        task_init: standard deviation of the embeddings of tasks.
    """

    hidden: int = 50
    layers: int = 2
    action_size: int = 16
    task_size: int = 25
    skip: bool = True
    init: float = 0.1
    task_init: float = 1.0

    def __post_init__(self) -> None:
        require("at least 1", "method", hidden=self.hidden, layers=self.layers, action_size=self.action_size)
        require("at least 0", "method", task_size=self.task_size, init=self.init, task_init=self.task_init)


class Controller(nn.Module):
    """R controllers with weights of their own, over the same decisions and tasks.

    Each parameter has the replicates as its first dimension. The weights of replicate r follow from its seed
    alone.

    Args:
        counts: choices of each decision, L of them.
        tasks: T.
        seeds: of the replicates, R of them.
        settings: see `ControllerSettings`.
        dtype: of the weights.

    Attributes:
        names: of the tasks; empty where nobody has said them.
        decisions: by name the values that are chosen from; empty where nobody has said them.
    """

    first: Tensor
    mask: Tensor

    def __init__(
        self,
        counts: Sequence[int],
        tasks: int,
        seeds: Sequence[int],
        settings: ControllerSettings,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if tasks < 1:
            raise UserError("dataset.tasks=[]; valid: at least one task")
        self.counts, self.settings, self.seeds = tuple(counts), settings, list(seeds)
        self.names: list[str] = []
        self.decisions: dict[str, list[Any]] = {}
        widest, inputs = max(counts), settings.action_size + settings.task_size
        read = settings.hidden + (inputs if settings.skip else 0)
        generators = [torch.Generator().manual_seed(STREAM * (seed + 1)) for seed in seeds]

        def drawn(*shape: int, normal: bool = False) -> nn.Parameter:
            size, bound = torch.Size(shape), settings.init
            rows = [
                torch.randn(size, generator=g, dtype=dtype) * settings.task_init
                if normal
                else (2 * torch.rand(size, generator=g, dtype=dtype) - 1) * bound
                for g in generators
            ]
            return nn.Parameter(torch.stack(rows))

        # row 0: nothing is chosen yet
        self.action_embedding = drawn(1 + sum(counts), settings.action_size)
        self.input_weights, self.state_weights = nn.ParameterList(), nn.ParameterList()
        self.biases = nn.ParameterList()
        for layer in range(settings.layers):
            width = inputs if layer == 0 else settings.hidden
            self.input_weights.append(drawn(width, 4 * settings.hidden))
            self.state_weights.append(drawn(settings.hidden, 4 * settings.hidden))
            self.biases.append(drawn(4 * settings.hidden))
        self.head_weights = drawn(len(counts), read, widest)
        self.head_biases = drawn(len(counts), widest)
        # last, so that the number of tasks changes no other weight
        self.task_embedding = drawn(tasks, settings.task_size, normal=True)
        first = torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()][: len(counts)])
        # where the choices of decision t begin in the table of embeddings
        self.register_buffer("first", 1 + first, persistent=False)
        outside = torch.arange(widest) >= torch.tensor(counts)[:, None]
        # added to logits [L, C]: no choice beyond the number of a decision's choices
        mask = torch.zeros(outside.shape, dtype=dtype).masked_fill_(outside, -math.inf)
        self.register_buffer("mask", mask, persistent=False)

    @property
    def replicates(self) -> int:
        """R."""
        return len(self.seeds)

    def log_probabilities(self, tasks: Tensor, codes: Tensor) -> Tensor:
        """Of every choice at each step of given designs.

        Shapes: tasks int64 [R, B], codes int64 [R, B, L] -> [R, B, L, C], -inf where there is no such choice.
        """
        replicates, batch, length = codes.shape
        before = torch.cat([torch.zeros_like(codes[..., :1]), (codes + self.first)[..., :-1]], -1)
        x = self._inputs(tasks, before)
        # one product for the inputs of all steps
        flat = x.reshape(replicates, batch * length, -1)
        gates = torch.baddbmm(self.biases[0][:, None], flat, self.input_weights[0])
        steps = gates.reshape(replicates, batch, length, -1).unbind(2)
        state = self._start(replicates, batch, x)
        outputs = []
        for gate in steps:
            h, state = self._step(gate, state)
            outputs.append(h)
        read = torch.stack(outputs, 1)
        if self.settings.skip:
            read = torch.cat([read, x.transpose(1, 2)], -1)
        logits = torch.matmul(read, self.head_weights) + self.head_biases[:, :, None]
        return torch.log_softmax(logits.transpose(1, 2) + self.mask, -1)

    def log_prob(self, tasks: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """log p of whole designs, and the entropies of their steps summed: [R, B] each."""
        steps = self.log_probabilities(tasks, codes)
        chosen = steps.gather(-1, codes[..., None])[..., 0].sum(-1)
        return chosen, _entropy(steps).sum(-1)

    @torch.no_grad()
    def sample(self, tasks: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """Designs, and their log p.

        Shapes: tasks int64 [R, B], uniforms in [0, 1) [R, B, L] -> codes int64 [R, B, L], log p [R, B].
        """
        replicates, batch, length = uniforms.shape
        limits = torch.tensor(self.counts) - 1
        previous = torch.zeros(replicates, batch, 1, dtype=torch.int64, device=tasks.device)
        state = self._start(replicates, batch, self.task_embedding)
        codes, total = [], torch.zeros(replicates, batch, dtype=self.mask.dtype, device=tasks.device)
        for t in range(length):
            x = self._inputs(tasks, previous)[:, :, 0]
            gate = torch.baddbmm(self.biases[0][:, None], x, self.input_weights[0])
            h, state = self._step(gate, state)
            read = torch.cat([h, x], -1) if self.settings.skip else h
            logits = torch.baddbmm(self.head_biases[:, t, None], read, self.head_weights[:, t])
            logs = torch.log_softmax(logits + self.mask[t], -1)
            # the choice whose share of [0, 1) the number falls into
            code = (logs.exp().cumsum(-1) <= uniforms[:, :, t, None]).sum(-1).clamp_max(limits[t])
            codes.append(code)
            total = total + logs.gather(-1, code[..., None])[..., 0]
            previous = (code + self.first[t])[..., None]
        return torch.stack(codes, -1), total

    def transfer_from(self, other: "Controller") -> None:
        """Take over all weights but the embeddings of tasks.

        Args:
            other: of as many replicates; replicate r of both belong together.

        Raises:
            UserError: it has other decisions, sizes or replicates.
        """
        if other.counts != self.counts:
            raise UserError(
                f"the pretrained controller decides among {list(other.counts)} choices, this search among "
                f"{list(self.counts)} (valid: one of the same space of designs)"
            )
        if other.replicates != self.replicates:
            raise UserError(
                f"the pretrained controller has {other.replicates} replicates, this search "
                f"{self.replicates} (valid: the same paper.repeats)"
            )
        mine, its = self.state_dict(), other.state_dict()
        for name, value in mine.items():
            if name == TASK_WEIGHTS:
                continue
            if name not in its or its[name].shape != value.shape:
                raise UserError(
                    "the pretrained controller has other sizes (valid: the same method.controller)"
                )
            value.copy_(its[name])

    def _inputs(self, tasks: Tensor, rows: Tensor) -> Tensor:
        """x: tasks [R, B], rows of the table of embeddings [R, B, S] -> [R, B, S, E]."""
        replicate = torch.arange(len(tasks), device=tasks.device)
        action = self.action_embedding[replicate[:, None, None], rows]
        task = self.task_embedding[replicate[:, None], tasks]
        return torch.cat([action, task[:, :, None].expand(*action.shape[:3], task.shape[-1])], -1)

    def _start(self, replicates: int, batch: int, like: Tensor) -> list[tuple[Tensor, Tensor]]:
        zero = like.new_zeros(replicates, batch, self.settings.hidden)
        return [(zero, zero)] * self.settings.layers

    def _step(
        self, gate: Tensor, state: list[tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """One step of all layers; `gate` [R, B, 4H] is the first one's input times its weights, and
        its bias.
        """
        found, h = [], gate
        for layer, (before, cell) in enumerate(state):
            if layer:
                gate = torch.baddbmm(self.biases[layer][:, None], h, self.input_weights[layer])
            gate = torch.baddbmm(gate, before, self.state_weights[layer])
            # input, forget and output gate together, then the candidate
            i, f, o = gate[..., : 3 * self.settings.hidden].sigmoid().chunk(3, -1)
            cell = torch.addcmul(f * cell, i, gate[..., 3 * self.settings.hidden :].tanh())
            h = o * cell.tanh()
            found.append((h, cell))
        return h, found


def _entropy(logs: Tensor) -> Tensor:
    """-sum p log p of each step, of choices that there are: [..., C] -> [...]."""
    there = logs.clamp_min(torch.finfo(logs.dtype).min)
    return -(logs.exp() * there).sum(-1)
