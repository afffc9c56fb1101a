"""The 46 meta-features of a table of classes that the paper's data sets are described by.

Names and meanings are auto-sklearn's: counts, symbols of categorical columns, skewness and kurtosis of the
encoded columns, entropy of the classes, principal components, and the accuracy of simple learners
(landmarks) by cross-validation. What cannot be computed is NaN, as in the paper's own table.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
from scipy.stats import kurtosis, skew
from sklearn.base import ClassifierMixin
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.tree import DecisionTreeClassifier

Array = np.ndarray

# of landmarks and components: rows and columns at most
ROWS, COLUMNS = 1000, 500
FOLDS = 5


def meta_features(X: Array, words: Array, y: Array, seed: int) -> dict[str, float]:
    """By name.

    Args:
        X: [n, p], NaN where a number is missing. words: which columns hold the numbers of words.
        y: classes 0, 1, ..., [n].
    """
    n, p = X.shape
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        # about constant columns and classes with few members
        warnings.simplefilter("ignore")
        counts = _counts(X, words, n, p)
        found = counts | _classes(y) | _moments(X, words) | _symbols(X, words)
        random = np.random.default_rng(seed)
        rows = random.permutation(n)[:ROWS]
        small = np.array([column[rows] for column in islice(_encoded(X, words), COLUMNS)]).T
        return found | _components(small) | _landmarks(small, y[rows], seed)


def in_order(found: dict[str, float], names: Sequence[str]) -> Array:
    """As the paper's table has them, [46]; NaN for a name that is not among them."""
    return np.array([found.get(name, np.nan) for name in names])


def _counts(X: Array, words: Array, n: int, p: int) -> dict[str, float]:
    gaps = np.isnan(X) | ((X < 0) & words)
    nominal, numeric = int(words.sum()), int((~words).sum())
    found = {
        "NumberOfInstances": n,
        "NumberOfFeatures": p,
        "NumberOfNumericFeatures": numeric,
        "NumberOfCategoricalFeatures": nominal,
        "NumberOfMissingValues": gaps.sum(),
        "NumberOfFeaturesWithMissingValues": gaps.any(0).sum(),
        "NumberOfInstancesWithMissingValues": gaps.any(1).sum(),
        "RatioNominalToNumerical": nominal / numeric if numeric else 0.0,
        "RatioNumericalToNominal": numeric / nominal if nominal else 0.0,
        "DatasetRatio": p / n,
        "InverseDatasetRatio": n / p,
        "LogDatasetRatio": np.log(p / n),
        "LogInverseDatasetRatio": np.log(n / p),
        "LogNumberOfInstances": np.log(n),
        "LogNumberOfFeatures": np.log(p),
    }
    for what, size in (
        ("FeaturesWithMissingValues", p),
        ("InstancesWithMissingValues", n),
        ("MissingValues", n * p),
    ):
        found[f"PercentageOf{what}"] = found[f"NumberOf{what}"] / size
    return {name: float(value) for name, value in found.items()}


def _encoded(X: Array, words: Array) -> Iterator[Array]:
    """Column by column: gaps at the median, words one column each."""
    for column, is_words in zip(X.T, words, strict=True):
        if is_words:
            for value in np.unique(column):
                yield (column == value).astype(float)
        else:
            yield _filled(column)


def _filled(column: Array) -> Array:
    middle = np.nanmedian(column) if not np.isnan(column).all() else 0.0
    return np.where(np.isnan(column), middle, column)


def _summary(name: str, values: Array, parts: Sequence[str]) -> dict[str, float]:
    values = values[np.isfinite(values)]
    of: dict[str, Callable[[Array], float]] = {
        "Max": np.max,
        "Mean": np.mean,
        "Min": np.min,
        "STD": np.std,
        "Sum": np.sum,
    }
    return {f"{name}{part}": float(of[part](values)) if len(values) else 0.0 for part in parts}


def _classes(y: Array) -> dict[str, float]:
    share = np.bincount(y) / len(y)
    share = share[share > 0]
    entropy = float(-(share * np.log2(share)).sum())
    found = {"NumberOfClasses": float(len(share)), "ClassEntropy": entropy}
    return found | _summary("ClassProbability", share, ("Max", "Mean", "Min", "STD"))


def _moments(X: Array, words: Array) -> dict[str, float]:
    """Of the encoded columns; those of a word that p of the rows have are known: of 0 and 1, of mean p."""
    numbers = np.array([_filled(column) for column in X[:, ~words].T]).reshape(-1, len(X)).T
    counts = [np.unique(column, return_counts=True)[1] for column in X[:, words].T]
    p = np.concatenate([*counts, np.zeros(0)]) / len(X)
    p = p[p < 1]
    both = p * (1 - p)
    curves = np.concatenate([kurtosis(numbers), (1 - 6 * both) / both])
    skews = np.concatenate([skew(numbers), (1 - 2 * p) / np.sqrt(both)])
    parts = ("Max", "Mean", "Min", "STD")
    return _summary("Kurtosis", curves, parts) | _summary("Skewness", skews, parts)


def _symbols(X: Array, words: Array) -> dict[str, float]:
    counts = np.array([len(np.unique(X[:, j])) for j in np.flatnonzero(words)], dtype=float)
    return _summary("Symbols", counts, ("Max", "Mean", "Min", "STD", "Sum"))


def _components(encoded: Array) -> dict[str, float]:
    nothing = dict.fromkeys(
        ("PCAFractionOfComponentsFor95PercentVariance", "PCAKurtosisFirstPC", "PCASkewnessFirstPC"),
        float("nan"),
    )
    scale = encoded.std(0)
    centred = (encoded - encoded.mean(0)) / np.where(scale > 0, scale, 1.0)
    if len(centred) < 2 or not np.isfinite(centred).all() or not centred.any():
        return nothing
    U, S, _ = np.linalg.svd(centred, full_matrices=False)
    energy = np.cumsum(S**2) / (S**2).sum()
    first = U[:, 0] * S[0]
    values = (
        float(np.searchsorted(energy, 0.95) + 1) / encoded.shape[1],
        float(kurtosis(first)),
        float(skew(first)),
    )
    return dict(zip(nothing, values, strict=True))


def _landmarks(encoded: Array, y: Array, seed: int) -> dict[str, float]:
    learners: dict[str, ClassifierMixin] = {
        "Landmark1NN": KNeighborsClassifier(1),
        "LandmarkDecisionNodeLearner": DecisionTreeClassifier(
            criterion="entropy", max_depth=1, random_state=seed
        ),
        "LandmarkDecisionTree": DecisionTreeClassifier(random_state=seed),
        "LandmarkLDA": LinearDiscriminantAnalysis(),
        "LandmarkNaiveBayes": GaussianNB(),
        "LandmarkRandomNodeLearner": DecisionTreeClassifier(
            criterion="entropy", max_depth=1, max_features=1, random_state=seed
        ),
    }
    most = int(np.bincount(y).max())
    if most < 2 or len(np.unique(y)) < 2:
        return dict.fromkeys(learners, float("nan"))
    folds = StratifiedKFold(min(FOLDS, most), shuffle=True, random_state=seed)
    found = {}
    for name, learner in learners.items():
        try:
            scores = cross_val_score(learner, encoded, y, cv=folds, error_score=np.nan)
        except ValueError:
            # no fold could be learnt
            scores = np.array([np.nan])
        found[name] = float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")
    return found
