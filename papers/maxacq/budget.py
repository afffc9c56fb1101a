"""What a round may spend on maximising its acquisition function."""

import time


class Budget:
    """A number of evaluations, or a time.

    One evaluation is the value of one set of q points by `SAMPLES` samples (of a greedy step: of one point
    given the pending ones). A value by m samples counts m / SAMPLES, one with its gradient three times that,
    the closed form of a single point 1 / q.

    Args:
        evaluations, seconds: one of them.
    """

    SAMPLES = 1024
    GRADIENT = 3

    def __init__(self, *, evaluations: float | None = None, seconds: float | None = None) -> None:
        if (evaluations is None) == (seconds is None):
            raise ValueError("give evaluations or seconds")
        self.evaluations, self.seconds = evaluations, seconds
        self.spent = 0.0
        self.began = time.perf_counter()

    def left(self, cost: float) -> bool:
        """Whether `cost` evaluations more are within it."""
        if self.evaluations is not None:
            return self.spent + cost <= self.evaluations * (1 + 1e-9)
        assert self.seconds is not None
        return time.perf_counter() - self.began < self.seconds

    def spend(self, cost: float) -> None:
        """Count `cost` evaluations."""
        self.spent += cost

    def remaining(self) -> float:
        """Evaluations, or seconds, that are left."""
        if self.evaluations is not None:
            return max(self.evaluations - self.spent, 0.0)
        assert self.seconds is not None
        return max(self.seconds - (time.perf_counter() - self.began), 0.0)

    def share(self, fraction: float) -> "Budget":
        """A fraction of the whole as a budget of its own, which begins now."""
        if self.evaluations is not None:
            return Budget(evaluations=self.evaluations * fraction)
        assert self.seconds is not None
        return Budget(seconds=self.seconds * fraction)
