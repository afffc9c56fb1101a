"""A language model of one recurrent cell, with its five dropouts and tied weights."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.models.shapes import require_positive
from common.training.language import LanguageTask, Passed
from papers.nao.recurrent_cell import RecurrentCell, recurrent_cell_of

ACTIVATION = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda x: x, "sigmoid": torch.sigmoid}
# of all first weights, uniform in [-RANGE, RANGE]
RANGE = 0.04


class RecurrentNet(nn.Module):
    """Embedding, one recurrent cell (`papers.nao.recurrent_cell`), the next token's logits.

    With V words, an embedding of m and a cell of n numbers and k steps it has (m + n) 2 n + k n 2 n weights
    in the cell, V m in the embedding, which the output layer shares where `tied`, and V biases.

    All dropouts but `dropout_embedding` draw one mask for each example of a window and keep it in all its
    steps; each divides by what it keeps.

    Args:
        shape, classes: of the data: (bptt,) and V.
        cell: as `recurrent_cell_of` takes it.
        size: n; and m.
        tied: the output layer's weights are the embedding's.
        first_state: the output is the mean of s_0, s_1, ...; else of s_1, ....
        dropout: of the cell's outputs.
        dropout_hidden: of what each step reads, and of the state that comes from the step of time before.
        dropout_x: of the cell's input within it.
        dropout_input: of the embedded words.
        dropout_embedding: of whole words of the vocabulary, drawn anew in each window.
        test_streams: the test split is read in so many parts side by side; 1: as one text.

    Raises:
        UserError: no cell, data without a vocabulary, a value out of range.
    """

    task = "own"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        cell: Any,
        size: int,
        tied: bool,
        first_state: bool,
        dropout: float,
        dropout_hidden: float,
        dropout_x: float,
        dropout_input: float,
        dropout_embedding: float,
        test_streams: int,
    ) -> None:
        super().__init__()
        if classes is None or len(shape) != 1:
            raise UserError(
                "model: a language model needs a text (valid: dataset=ptb, python_docs, text_file)"
            )
        require_positive("size", size)
        require("at least 1", "model", test_streams=test_streams)
        drops = {
            "dropout": dropout, "dropout_hidden": dropout_hidden, "dropout_x": dropout_x,
            "dropout_input": dropout_input, "dropout_embedding": dropout_embedding,
        }  # fmt: skip
        for name, value in drops.items():
            if not 0 <= value < 1:
                raise UserError(f"model.{name}={value}; valid: 0 to below 1")
        self.settings: dict[str, Any] = {
            "shape": shape, "classes": classes, "size": size, "tied": tied, "first_state": first_state,
            "test_streams": test_streams, **drops,
        }  # fmt: skip
        self.cell = recurrent_cell_of(cell)
        self.drops, self.size, self.first_state, self.test_streams = drops, size, first_state, test_streams
        self.embedding = nn.Embedding(classes, size)
        self.first = nn.Parameter(torch.empty(2 * size, 2 * size))
        self.steps = nn.Parameter(torch.empty(len(self.cell.steps), size, 2 * size))
        self.output = nn.Linear(size, classes)
        for parameter in (self.embedding.weight, self.first, self.steps):
            nn.init.uniform_(parameter, -RANGE, RANGE)
        nn.init.zeros_(self.output.bias)
        if tied:
            self.output.weight = self.embedding.weight
        else:
            nn.init.uniform_(self.output.weight, -RANGE, RANGE)

    def with_cell(self, cell: RecurrentCell) -> "RecurrentNet":
        """Another network of the same settings, with first weights of its own."""
        return RecurrentNet(cell=cell, **self.settings)

    def own_task(self, data: DataSet) -> LanguageTask:
        """What it is trained and judged for."""
        return LanguageTask({"train": data.batch_size, "validation": 10, "test": self.test_streams})

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens int64 [b, T] of texts from their start on, to the logits of those that follow [b, T, V]."""
        return self.run(tokens, None).logits

    def run(self, tokens: Tensor, state: Tensor | None) -> Passed:
        """Tokens int64 [b, T] and the state [b, n] before them, zeros at the start of a text."""
        batch = len(tokens)
        inputs = self._masked(self._embedded(tokens), "dropout_input")
        if state is None:
            state = inputs.new_zeros(batch, self.size)
        outputs = torch.stack(self._states(inputs, state), 1)
        dropped = self._masked(outputs, "dropout")
        return Passed(cast(Tensor, self.output(dropped)), outputs[:, -1], outputs, dropped)

    def _embedded(self, tokens: Tensor) -> Tensor:
        weight, drop = self.embedding.weight, self.drops["dropout_embedding"]
        if self.training and drop > 0:
            keep = torch.empty(len(weight), 1, device=weight.device).bernoulli_(1 - drop)
            weight = weight * (keep / (1 - drop))
        return functional.embedding(tokens, weight)

    def _mask(self, like: Tensor, name: str) -> Tensor | None:
        """One mask [b, n] of 0 and 1 / keep; None where nothing is dropped."""
        drop = self.drops[name]
        if not self.training or drop == 0:
            return None
        return torch.empty_like(like).bernoulli_(1 - drop) / (1 - drop)

    def _masked(self, values: Tensor, name: str) -> Tensor:
        """Values [b, T, n] with one mask for all T."""
        mask = self._mask(values[:, 0], name)
        return values if mask is None else values * mask[:, None]

    def _states(self, inputs: Tensor, state: Tensor) -> list[Tensor]:
        """The outputs [b, n] of the cell for inputs [b, T, n]."""
        on_x, on_h = self._mask(inputs[:, 0], "dropout_x"), self._mask(state, "dropout_hidden")
        if on_x is not None:
            inputs = inputs * on_x[:, None]
        # the part of the input in the first product is one product for the whole window
        from_x = (inputs @ self.first[: self.size]).unbind(1)
        # taken apart once a window: each part that is taken costs a gradient of the whole
        from_h, weights = self.first[self.size :], self.steps.unbind(0)
        found = []
        for now in from_x:
            masked = state if on_h is None else state * on_h
            gate, value = torch.addmm(now, masked, from_h).chunk(2, 1)
            states = [state + gate.sigmoid() * (value.tanh() - state)]
            for step, weight in zip(self.cell.steps, weights, strict=True):
                before = states[step.source]
                read = before if on_h is None else before * on_h
                gate, value = (read @ weight).chunk(2, 1)
                value = ACTIVATION[step.activation](value)
                states.append(before + gate.sigmoid() * (value - before))
            state = torch.stack(states[0 if self.first_state else 1 :]).mean(0)
            found.append(state)
        return found
