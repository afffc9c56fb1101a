"""What one of several tasks on the same inputs asks for."""

from typing import Literal, NamedTuple

Kind = Literal["class", "pixel_class", "pixel_number", "quadratic"]


class TaskSpec(NamedTuple):
    """A task of a data set that has several.

    Attributes:
        name: for metrics.
        kind: what its part of the targets is, and so its loss (`common.training.multi_task`).
        outputs: numbers that a network gives for it, for each example or each pixel.
        unit: what an error of 1 is in the unit that tables have, for numbers.
    """

    name: str
    kind: Kind
    outputs: int
    unit: float = 1.0
