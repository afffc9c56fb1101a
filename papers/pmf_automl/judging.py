"""Scores of predictions with intervals, and of the difference of two: by the bootstrap."""

import numpy as np

Array = np.ndarray

RESAMPLES, SEED = 1000, 0
# rows times resamples that are drawn at once
SHARD = 2_000_000


def balanced_accuracy(y: Array, predicted: Array) -> float:
    """The mean over the classes of y of the share of their rows that are right."""
    return float(np.mean([(predicted[y == c] == c).mean() for c in np.unique(y)]))


def r_squared(y: Array, predicted: Array) -> float:
    """1 - |y - prediction|^2 / |y - mean|^2; of a constant y 0 where all is right, else -1."""
    rest, spread = float(((y - predicted) ** 2).sum()), float(((y - y.mean()) ** 2).sum())
    if spread == 0:
        return 0.0 if rest == 0 else -1.0
    return 1 - rest / spread


def score(y: Array, predicted: Array, classes: bool) -> float:
    """Balanced accuracy, or R^2."""
    return balanced_accuracy(y, predicted) if classes else r_squared(y, predicted)


def resampled(y: Array, predictions: list[Array], classes: bool) -> Array:
    """Scores of several predictions of the same rows on the same resamples, [RESAMPLES, len(predictions)].

    Rows are drawn with replacement, of classes within each class.
    """
    random = np.random.default_rng(SEED)
    if classes:
        found = np.zeros((RESAMPLES, len(predictions)))
        different = np.unique(y)
        for c in different:
            right = np.array([p[y == c] == c for p in predictions])
            # rows that are right by the same methods are alike: how many of each kind are drawn
            kinds, count = np.unique(right, axis=1, return_counts=True)
            drawn = random.multinomial(count.sum(), count / count.sum(), size=RESAMPLES)
            found += drawn @ kinds.T / count.sum()
        return found / len(different)
    rows = []
    step = max(SHARD // len(y), 1)
    for start in range(0, RESAMPLES, step):
        drawn = random.integers(0, len(y), (min(step, RESAMPLES - start), len(y)))
        own = y[drawn]
        spread = ((own - own.mean(1, keepdims=True)) ** 2).sum(1)
        spread = np.where(spread > 0, spread, np.inf)
        rows.append(np.stack([1 - ((own - p[drawn]) ** 2).sum(1) / spread for p in predictions], 1))
    return np.concatenate(rows)


def plausible(y: Array, predicted: Array) -> Array:
    """Balanced accuracies that the counts of right rows leave plausible, [RESAMPLES].

    The share that is right of each class has its posterior by Jeffreys' prior, Beta(k + 1/2, n - k + 1/2), so
    that what was right in all of a few rows may still be wrong.
    """
    random = np.random.default_rng(SEED)
    different = np.unique(y)
    found = np.zeros(RESAMPLES)
    for c in different:
        right = predicted[y == c] == c
        found += random.beta(right.sum() + 0.5, (~right).sum() + 0.5, RESAMPLES)
    return found / len(different)


def interval(values: Array) -> tuple[float, float]:
    """The middle 95% of resampled scores."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
