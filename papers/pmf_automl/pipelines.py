"""The pipelines of Oboe's matrix as scikit-learn builds them, and their twins for regression."""

from typing import Any

import numpy as np
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.base import BaseEstimator
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

Array = np.ndarray
Description = dict[str, Any]

CLASSIFIERS: dict[str, type] = {
    "AB": ensemble.AdaBoostClassifier,
    "DT": tree.DecisionTreeClassifier,
    "ExtraTrees": ensemble.ExtraTreesClassifier,
    "GBT": ensemble.GradientBoostingClassifier,
    "GNB": naive_bayes.GaussianNB,
    "KNN": neighbors.KNeighborsClassifier,
    "Logit": linear_model.LogisticRegression,
    "MLP": neural_network.MLPClassifier,
    "Perceptron": linear_model.Perceptron,
    "RF": ensemble.RandomForestClassifier,
    "kSVM": svm.SVC,
    "lSVM": svm.LinearSVC,
}
# of regression the same families; those of classes alone have their nearest relative
REGRESSORS: dict[str, type] = {
    "AB": ensemble.AdaBoostRegressor,
    "DT": tree.DecisionTreeRegressor,
    "ExtraTrees": ensemble.ExtraTreesRegressor,
    "GBT": ensemble.GradientBoostingRegressor,
    "GNB": linear_model.BayesianRidge,
    "KNN": neighbors.KNeighborsRegressor,
    "Logit": linear_model.Ridge,
    "MLP": neural_network.MLPRegressor,
    "Perceptron": linear_model.HuberRegressor,
    "RF": ensemble.RandomForestRegressor,
    "kSVM": svm.SVR,
    "lSVM": svm.LinearSVR,
}
# what Oboe's settings leave to its code
FIXED: dict[str, Description] = {
    "kSVM": {"gamma": "auto"},
    "Logit": {"max_iter": 1000},
    "MLP": {"max_iter": 500},
    "lSVM": {"max_iter": 5000},
}
SEEDED = ("AB", "DT", "ExtraTrees", "GBT", "Logit", "MLP", "Perceptron", "RF", "kSVM", "lSVM")
MOST_WORDS = 50
MAJORITY: Description = {"algorithm": "majority", "hyperparameters": {}}
# those that take least time, quickest first
QUICK = ("GNB", "DT", "KNN", "Logit")
# in the order in which they are tried where nothing is known of which is good
DEFAULTS: tuple[Description, ...] = tuple(
    {"algorithm": name, "hyperparameters": settings}
    for name, settings in (
        ("RF", {"min_samples_split": 2}),
        ("GBT", {"learning_rate": 0.1, "max_depth": 3}),
        ("Logit", {}),
        ("ExtraTrees", {"min_samples_split": 2}),
        ("kSVM", {"C": 1.0, "kernel": "rbf"}),
        ("KNN", {"n_neighbors": 5}),
        ("GBT", {"learning_rate": 0.05, "max_depth": 6}),
        ("MLP", {"learning_rate_init": 0.001, "solver": "adam", "alpha": 1e-4}),
        ("RF", {"min_samples_split": 16}),
        ("AB", {"n_estimators": 100}),
        ("DT", {"min_samples_split": 16}),
        ("GNB", {}),
        ("lSVM", {"C": 1.0}),
        ("kSVM", {"C": 16.0, "kernel": "rbf"}),
        ("KNN", {"n_neighbors": 15}),
        ("ExtraTrees", {"min_samples_split": 16}),
        ("GBT", {"learning_rate": 0.25, "max_depth": 3}),
        ("DT", {"min_samples_split": 128}),
        ("Perceptron", {}),
    )
)


def said(description: Description) -> str:
    """A pipeline in a few words."""
    settings = " ".join(f"{key}={value}" for key, value in description["hyperparameters"].items())
    return f"{description['algorithm']} {settings}".strip()


def built(description: Description, classes: bool, words: Array, rows: int, seed: int) -> Pipeline:
    """The pipeline: gaps filled, words as columns, numbers standardised, then the algorithm.

    A target of numbers is standardised, too: some of the algorithms have widths and tolerances in its unit.

    Args:
        description: `algorithm` and `hyperparameters`, as Oboe writes them.
        classes: whether for classes, or a number.
        words: which columns hold the numbers of words, bool [p].
        rows: of training, which neighbours cannot be more than. seed: of what is random.
    """
    name = description["algorithm"]
    if name == "majority":
        return Pipeline([("model", DummyClassifier() if classes else DummyRegressor())])
    filled = Pipeline(
        [("fill", SimpleImputer(strategy="median", keep_empty_features=True)), ("scale", StandardScaler())]
    )
    one_hot = OneHotEncoder(
        handle_unknown="infrequent_if_exist", max_categories=MOST_WORDS, sparse_output=False
    )
    parts = [("numbers", filled, np.flatnonzero(~words)), ("words", one_hot, np.flatnonzero(words))]
    parts = [part for part in parts if len(part[2])]
    made = (CLASSIFIERS if classes else REGRESSORS)[name]
    model: BaseEstimator = made(**settings_of(description, made, rows, seed))
    if not classes:
        model = TransformedTargetRegressor(model, transformer=StandardScaler(), check_inverse=False)
    return Pipeline([("columns", ColumnTransformer(parts)), ("model", model)])


def settings_of(description: Description, made: type, rows: int, seed: int) -> Description:
    """The settings that scikit-learn of today takes for what Oboe wrote for another."""
    name = description["algorithm"]
    settings = FIXED.get(name, {}) | description["hyperparameters"]
    if name in SEEDED:
        settings["random_state"] = seed
    split = settings.get("min_samples_split")
    if isinstance(split, float) and split >= 1:
        settings["min_samples_split"] = int(split)
    if name == "KNN":
        settings["n_neighbors"] = max(min(settings.get("n_neighbors", 5), rows), 1)
    if name == "Logit" and "penalty" in settings:
        # scikit-learn has named the penalty by the share of l1 since 1.8
        settings["l1_ratio"] = 1.0 if settings.pop("penalty") == "l1" else 0.0
    if name == "kSVM" and settings.get("kernel") == "rbf":
        settings.pop("coef0", None)
    if made in REGRESSORS.values():
        # impurities and solvers of classes alone; and Ridge's penalty is the inverse of C
        settings.pop("criterion", None)
        if name == "Logit":
            settings.pop("solver", None)
            settings["alpha"] = 1 / settings.get("C", 1.0)
    taken = made().get_params()
    return {key: value for key, value in settings.items() if key in taken}


def effective(description: Description, classes: bool, rows: int) -> str:
    """What scikit-learn makes of a description; equal for those that differ in what nothing reads.

    So are, of Oboe's, all support vector machines with an rbf kernel that differ in coef0 alone.
    """
    name = description["algorithm"]
    made = (CLASSIFIERS if classes else REGRESSORS)[name]
    return f"{name} {sorted(settings_of(description, made, rows, 0).items())}"


def trusted() -> list[str]:
    """The types that a saved pipeline may hold, by name: of scikit-learn those that are built here.

    What a file names beyond these is refused (`papers.pmf_automl.saved`).
    """
    kinds = [
        Pipeline,
        ColumnTransformer,
        TransformedTargetRegressor,
        SimpleImputer,
        StandardScaler,
        OneHotEncoder,
        DummyClassifier,
        DummyRegressor,
    ]
    names = [
        f"{one.__module__}.{one.__qualname__}"
        for one in [*kinds, *CLASSIFIERS.values(), *REGRESSORS.values()]
    ]
    return names + INNER


# what those hold within
INNER = [
    "numpy.dtype",
    "sklearn._loss._loss.CyHalfBinomialLoss",
    "sklearn._loss._loss.CyHalfMultinomialLoss",
    "sklearn._loss._loss.CyHalfSquaredError",
    "sklearn._loss._loss.CyHuberLoss",
    "sklearn._loss.link.IdentityLink",
    "sklearn._loss.link.Interval",
    "sklearn._loss.link.LogitLink",
    "sklearn._loss.link.MultinomialLogit",
    "sklearn._loss.loss.HalfBinomialLoss",
    "sklearn._loss.loss.HalfMultinomialLoss",
    "sklearn._loss.loss.HalfSquaredError",
    "sklearn.compose._column_transformer._RemainderColsList",
    "sklearn.linear_model._stochastic_gradient.Hinge",
    "sklearn.metrics._dist_metrics.EuclideanDistance64",
    "sklearn.metrics._dist_metrics.ManhattanDistance64",
    "sklearn.metrics._dist_metrics.MinkowskiDistance64",
    "sklearn.neighbors._kd_tree.KDTree",
    "sklearn.neighbors._ball_tree.BallTree",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer",
    "sklearn.preprocessing._label.LabelBinarizer",
    "sklearn.tree._tree.Tree",
    "sklearn.utils._bunch.Bunch",
    "collections.OrderedDict",
    "collections.defaultdict",
    "builtins.range",
    "builtins.slice",
]
