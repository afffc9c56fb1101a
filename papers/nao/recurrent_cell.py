"""Recurrent cells as data (the space of ENAS and DARTS): a tree of steps, each with an activation.

s_0 = h + c_0 (h_0 - h), [c_0; h_0] = [x; h] W_0, c_0 through a sigmoid and h_0 through tanh; step i reads one
earlier state p: [c; g] = p W_i, s_i = p + sigmoid(c) (act(g) - p). The cell's output is the mean of s_1, ....
"""

import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from common.base.errors import UserError

# in the order of their numbers where published strings are evaluated; the code that samples cells calls 2 the
# sigmoid and 3 the identity
ACTIVATIONS = ("tanh", "relu", "identity", "sigmoid")
STEPS = 11


class Step(NamedTuple):
    """One step of a cell.

    Attributes:
        source: the state that it reads, 0 for s_0, ..., at most its own number less 1.
        activation: of `ACTIVATIONS`.
    """

    source: int
    activation: str


@dataclass(frozen=True)
class RecurrentCell:
    """The steps of a cell, from the first on."""

    steps: tuple[Step, ...]

    @property
    def key(self) -> str:
        """Equal for cells that are the same function: the tree of steps, without their numbers.

        The output is a mean over all states, so a cell is known by its tree.
        """
        below: dict[int, list[str]] = {number: [] for number in range(len(self.steps) + 1)}
        for number in range(len(self.steps), 0, -1):
            step = self.steps[number - 1]
            below[step.source].append(f"{step.activation}({','.join(sorted(below[number]))})")
        return ",".join(sorted(below[0]))

    def to_json(self) -> list[list[Any]]:
        """[[source, activation], ...]."""
        return [list(step) for step in self.steps]

    @classmethod
    def from_json(cls, data: Any) -> "RecurrentCell":
        """The inverse of `to_json`.

        Raises:
            UserError: it is no cell; the step is named.
        """
        if not isinstance(data, list) or not data:
            raise UserError("a recurrent cell is a list of [source, activation]")
        steps = []
        for number, row in enumerate(data, 1):
            source, activation = row if isinstance(row, list) and len(row) == 2 else (None, None)
            if type(source) is not int or not 0 <= source < number or activation not in ACTIVATIONS:
                raise UserError(
                    f"step {number}: {row}; valid: [source from 0 to {number - 1}, one of "
                    f"{', '.join(ACTIVATIONS)}]"
                )
            steps.append(Step(source, activation))
        return cls(tuple(steps))


def parse_recurrent(text: str) -> RecurrentCell:
    """A cell as whole numbers, `source activation` for each step.

    Raises:
        UserError: no pairs of whole numbers, or one that is out of range; its position is named.
    """
    words = text.split()
    if len(words) % 2 or not words:
        raise UserError(f"{len(words)} numbers; valid: two for each step, as 22 of eleven")
    steps = []
    for position, word in enumerate(words):
        number, is_activation = position // 2 + 1, position % 2
        valid = len(ACTIVATIONS) if is_activation else number
        if not (word.isdigit() and int(word) < valid):
            what = "activation" if is_activation else "source"
            raise UserError(f"position {position}: {word} is no {what} (valid: 0 to {valid - 1})")
        if is_activation:
            steps.append(Step(int(words[position - 1]), ACTIVATIONS[int(word)]))
    return RecurrentCell(tuple(steps))


def to_recurrent_text(cell: RecurrentCell) -> str:
    """The inverse of `parse_recurrent`."""
    return " ".join(f"{step.source} {ACTIVATIONS.index(step.activation)}" for step in cell.steps)


NAMED = {
    "nao": parse_recurrent("0 1 0 1 1 1 3 0 4 1 4 1 5 1 1 1 7 1 1 1 1 2"),
    "nao_ws": parse_recurrent("0 1 1 1 2 2 1 2 4 1 4 1 4 1 7 1 8 2 1 0 4 1"),
}


def recurrent_cell_of(given: Any) -> RecurrentCell:
    """A cell by its name, its string of whole numbers, as a list of steps, or as JSON text.

    Raises:
        UserError: it is none.
    """
    if isinstance(given, RecurrentCell):
        return given
    if isinstance(given, list):
        return RecurrentCell.from_json(given)
    text = str(given).strip()
    if text in NAMED:
        return NAMED[text]
    if text.startswith("["):
        try:
            return RecurrentCell.from_json(json.loads(text))
        except ValueError as error:
            raise UserError(f"recurrent cell {text}: {error}") from error
    if not text or not text[0].isdigit():
        raise UserError(f"recurrent cell {text}: valid: {', '.join(NAMED)}, or a string of whole numbers")
    return parse_recurrent(text)
