"""Who makes evaluations that take long: workers, each of them one evaluation at a time."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Measured:
    """What came of an evaluation.

    Attributes:
        number: which one.
        value: f there; NaN where it failed.
        share: of its full length that is made: less than 1 where it paused.
        said: of one that failed, why, in one line.
    """

    number: int
    value: float
    share: float = 1.0
    said: str | None = None


class Crew(ABC):
    """A number of workers. Evaluations are kept by the workers themselves: asked again, they go on.

    Attributes:
        size: of them.
    """

    size: int

    @abstractmethod
    def start(self, number: int, replicate: int, point: Tensor, share: float) -> None:
        """Let a free worker evaluate function `replicate` at a point [d] up to a share of its full length."""

    @abstractmethod
    def wait(self, seconds: float) -> list[Measured]:
        """What has ended, once something has or that long has passed.

        Raises:
            UserError: a mistake by which no evaluation can succeed.
        """

    @abstractmethod
    def close(self) -> None:
        """Let all stop where they are, in such a way that they can go on."""
