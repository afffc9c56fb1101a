"""Language modelling: the next token of a text, by a recurrent network that carries its state along.

The recipe of AWD-LSTM (Merity, Keskar, Socher, "Regularizing and Optimizing LSTM Language Models", ICLR
2018): windows of varying length, rates in proportion to it, penalties on activations and on their changes,
SGD that averages its iterates (`common.training.averaging`).
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol, Unpack, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.loader import BlockLoader
from common.base.modes import evaluation_mode
from common.base.task import Metrics, Task
from common.data.text.text_data import TextData
from common.training.supervised import SupervisedModule, Training

# of the windows: the shares of full and half lengths, the standard deviation, and by how much a length may
# exceed the usual one
FULL, SPREAD, SHORTEST, EXCESS = 0.95, 5.0, 5, 20
# tokens of a window where no gradient is needed
WINDOW = 64


class Passed(NamedTuple):
    """What a pass over windows [b, T] gives.

    Attributes:
        logits: [b, T, V].
        state: to go on with, [b, n].
        outputs: of the recurrent cell, [b, T, n].
        dropped: the same after dropout.
    """

    logits: Tensor
    state: Tensor
    outputs: Tensor
    dropped: Tensor


class LanguageModel(Protocol):
    """A network that reads tokens one after the other."""

    def run(self, tokens: Tensor, state: Tensor | None) -> Passed:
        """Tokens int64 [b, T] and the state before them, None at the start of a text."""


def varied_lengths(length: int, bptt: int, seed: int, epoch: int) -> list[tuple[int, int]]:
    """The windows (start, tokens) of an epoch over streams of `length` tokens, from (seed, epoch) alone.

    The usual length is bptt with probability 0.95 and bptt / 2 else; a window has a normal number of
    tokens around it with standard deviation 5, at least 5 and at most bptt + 20; the last holds the rest.
    """
    random = np.random.default_rng((seed % 2**64, epoch, length))
    windows, start = [], 0
    while start < length - 1:
        usual = bptt if random.random() < FULL else bptt / 2
        drawn = min(max(SHORTEST, int(random.normal(usual, SPREAD))), bptt + EXCESS)
        windows.append((start, min(drawn, length - 1 - start)))
        start += drawn
    return windows


class VariedLoader(BlockLoader):
    """Blocks of windows of varying length, in the text's order; how many an epoch has depends on it.

    Args:
        length: tokens of each stream, at least 2.
        bptt: the usual length.
        seed: of the lengths.
    """

    def __init__(self, length: int, bptt: int, seed: int) -> None:
        self.length, self.bptt = length, bptt
        super().__init__(len(varied_lengths(length, bptt, seed, 0)), seed)

    def windows(self, epoch: int) -> list[tuple[int, int]]:
        """Those of an epoch."""
        return varied_lengths(self.length, self.bptt, self.seed, epoch)

    def items(self) -> Iterator[tuple[int, int]]:
        windows = self.windows(self.epoch)
        self.steps_per_epoch = len(windows)
        return iter(windows[self.position :])

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.steps_per_epoch = len(self.windows(self.epoch))


class LanguageTask(Task):
    """Cross-entropy of the next token; perplexity, its exponential.

    Args:
        streams: of each split, how many parts of it are read side by side where it is judged. Each part but
            the first begins without a context; every token but the first of the split is predicted once.
    """

    def __init__(self, streams: dict[SplitName, int]) -> None:
        self.streams = streams

    def fit_of(self, model: nn.Module, outputs: Any, inputs: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())

    def metrics(self, device: torch.device) -> Metrics:
        return {}

    def update(self, metrics: Metrics, model: nn.Module, inputs: Tensor, targets: Tensor | None) -> None:
        raise NotImplementedError("a text is judged as a whole")

    def evaluate(self, model: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """loss in nats a token, and perplexity."""
        assert isinstance(data, TextData)
        loss = mean_loss(cast(LanguageModel, model), data.tokens(split), self.streams[split], data.NAME)
        return {f"{split}_loss": loss, f"{split}_perplexity": math.exp(min(loss, 700.0))}


@torch.no_grad()
def mean_loss(model: LanguageModel, tokens: Tensor, streams: int, name: str = "the text") -> float:
    """The mean of -log p(token | those before) over all tokens of a text but its first, in nats.

    Args:
        model: in evaluation mode from here on, and then as before.
        tokens: int64 [n] on the model's device.
        streams: the text is cut into so many parts of equal length that are read side by side; the last one
            goes on with what is left.
        name: of the text, for messages.

    Raises:
        UserError: fewer than two tokens.
    """
    if len(tokens) < 2:
        raise UserError(f"{name}: a text of {len(tokens)} tokens has none to predict (valid: at least 2)")
    count = min(streams, len(tokens) - 1)
    each, rest = divmod(len(tokens) - 1, count)
    inputs, targets = (part[: count * each].view(count, each) for part in (tokens[:-1], tokens[1:]))
    with evaluation_mode(cast(nn.Module, model)):
        total, state = _sum_of(model, inputs, targets, None)
        if rest:
            total += _sum_of(model, tokens[-rest - 1 : -1][None], tokens[-rest:][None], state[-1:])[0]
    return total / (len(tokens) - 1)


def _sum_of(
    model: LanguageModel, inputs: Tensor, targets: Tensor, state: Tensor | None
) -> tuple[float, Tensor]:
    total = torch.zeros((), dtype=torch.float64, device=inputs.device)
    for start in range(0, inputs.shape[1], WINDOW):
        window = slice(start, start + WINDOW)
        passed = model.run(inputs[:, window], state)
        state = passed.state
        logits = passed.logits.flatten(0, 1)
        total += functional.cross_entropy(logits, targets[:, window].flatten(), reduction="sum").double()
    assert state is not None
    return float(total), state


class Penalties(NamedTuple):
    """What is added to the loss of training.

    Attributes:
        activation: alpha of alpha mean(dropped^2).
        temporal: beta of beta mean((output_t - output_{t-1})^2).
    """

    activation: float
    temporal: float

    def of(self, passed: Passed) -> Tensor | float:
        """The penalties of a pass."""
        total: Tensor | float = 0.0
        if self.activation:
            total = total + self.activation * passed.dropped.square().mean()
        if self.temporal and passed.outputs.shape[1] > 1:
            total = total + self.temporal * passed.outputs.diff(dim=1).square().mean()
        return total


class Language(Training):
    """What a `LanguageModule` takes beside what all supervised training does.

    Attributes:
        varied_bptt: windows of varying length, and rates in proportion to it.
        activation_penalty, temporal_penalty: see `Penalties`.
    """

    varied_bptt: bool
    activation_penalty: float
    temporal_penalty: float


class LanguageModule(SupervisedModule):
    """Training of a recurrent language model by truncated backpropagation through time.

    The state goes on from window to window and begins anew with each epoch; it is in the checkpoint. An
    optimizer with a method `judge` is told the validation loss of each epoch. The recorded loss is that of
    the text, without penalties.

    Args:
        settings: see `Language`.

    Raises:
        UserError: a value out of range, data that are no text.
    """

    def __init__(self, **settings: Unpack[Language]) -> None:
        if not isinstance(settings["data"], TextData):
            raise UserError(
                f"dataset: {settings['data'].NAME} is no text (valid: dataset=ptb, python_docs, ...)"
            )
        self.varied = settings["varied_bptt"]
        require("at least 0", "paper", activation_penalty=settings["activation_penalty"],
                temporal_penalty=settings["temporal_penalty"])  # fmt: skip
        super().__init__(**{key: settings[key] for key in Training.__annotations__})  # type: ignore[literal-required]
        self.penalties = Penalties(settings["activation_penalty"], settings["temporal_penalty"])
        self.state: Tensor | None = None
        self._rates: list[float] = []
        self._ends: list[int] = []

    def setup(self, stage: str) -> None:
        super().setup(stage)
        assert isinstance(self.data, TextData)
        if self.varied:
            length = len(self.data.tokens("train")) // self.data.batch_size
            self.loader = VariedLoader(length, self.data.bptt, self.seed)

    def _end(self, epoch: int) -> int:
        """Steps made at the end of an epoch, from 0."""
        if not isinstance(self.loader, VariedLoader):
            return (epoch + 1) * self.loader.steps_per_epoch
        while len(self._ends) <= epoch:
            before = self._ends[-1] if self._ends else 0
            self._ends.append(before + len(self.loader.windows(len(self._ends))))
        return self._ends[epoch]

    @property
    def total_steps(self) -> int:
        if self.debug_steps is not None:
            return self.debug_steps
        whole, share = int(self.epochs), self.epochs % 1
        before = self._end(whole - 1) if whole else 0
        return max(1, before + (round(share * (self._end(whole) - before)) if share else 0))

    @property
    def epochs_made(self) -> float:
        epoch = self.loader.epoch
        before = self._end(epoch - 1) if epoch else 0
        return epoch + (self.steps - before) / (self._end(epoch) - before)

    def _backward(self, inputs: Tensor, targets: Tensor | None) -> Tensor:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer) and isinstance(self.data, TextData)
        passed = cast(LanguageModel, self.model).run(inputs, self.state)
        self.state = passed.state.detach()
        loss = self.task.fit_of(self.model, passed.logits, inputs, targets)
        (loss + self.penalties.of(passed)).backward()
        self._rates = [group["lr"] for group in optimizer.param_groups]
        if self.varied:
            for group in optimizer.param_groups:
                group["lr"] *= inputs.shape[1] / self.data.bptt
        return loss

    def _stepped(self, inputs: Tensor, targets: Tensor | None) -> None:
        optimizer = self.optimizers(use_pl_optimizer=False)
        assert isinstance(optimizer, torch.optim.Optimizer)
        for group, rate in zip(optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate

    def _end_epoch(self) -> None:
        super()._end_epoch()
        self.state = None
        judge = getattr(self._optimizer, "judge", None)
        loss = self.history["validation_loss"][-1]
        if judge is not None and loss is not None:
            judge(loss)

    def search_state(self) -> dict[str, Any]:
        return super().search_state() | {"recurrent_state": self.state}

    def load_search_state(self, state: dict[str, Any]) -> None:
        super().load_search_state(state)
        kept = state["recurrent_state"]
        self.state = None if kept is None else kept.to(self.data.device)
