"""PMF: Bayesian optimisation of pipelines on the latent points that a matrix of scores has given them."""

from typing import Any, ClassVar, Literal

from common.base.limits import require
from papers.pmf_automl.gp_lvm import pca_start
from papers.pmf_automl.latent_map import described
from papers.pmf_automl.posterior import GrowingPosterior
from papers.pmf_automl.recommender import Growing
from papers.pmf_automl.training import Training
from papers.pmf_automl.warm_start import Units


class PMF(Growing):
    """The paper's method: a latent variable model is trained, then each new data set is searched by it.

    Neither its latent points nor its kernel change in a search.

    Args:
        optimizer, lr, epochs, columns, rows, row_scaling: see `training.Training`.
        predictive_variance, xi, warm_start, neighbours, initial: see `recommender.Growing`.

    Raises:
        UserError: a value out of range.
    """

    NAME: ClassVar = "pmf"

    def __init__(
        self,
        *,
        optimizer: Literal["sgd", "adam"],
        lr: float,
        epochs: int,
        columns: int | None,
        rows: int,
        row_scaling: bool,
        predictive_variance: Literal["official", "latent"],
        xi: float,
        warm_start: Units | Literal["none"],
        neighbours: int,
        initial: int,
    ) -> None:
        super().__init__(
            predictive_variance=predictive_variance,
            xi=xi,
            warm_start=warm_start,
            neighbours=neighbours,
            initial=initial,
        )
        require("positive", "method", lr=lr)
        self.settings = {"optimizer": optimizer, "lr": lr, "epochs": epochs, "columns": columns}
        self.settings |= {"rows": rows, "row_scaling": row_scaling}

    def prepare(self) -> None:
        super().prepare()
        train, seed = self.problem.scores.train, self.problem.seed
        self.training = Training(train, self.problem.model, seed=seed, **self.settings)  # type: ignore[arg-type]
        self.training.model.to(self.problem.device)
        self.steps = self.training.steps

    def train(self, seconds: float) -> None:
        self.training.go_on(seconds)
        self.taken = self.training.taken

    def fresh(self) -> GrowingPosterior:
        model = self.training.model
        kernel = model.kernel()
        fixed = type(kernel)(**{name: value.detach() for name, value in vars(kernel).items()})
        return GrowingPosterior(model.X.detach(), fixed, self.training.mean, self.white)

    def results(self) -> dict[str, Any]:
        """The objective of the training, the kernel's numbers, and the map of the latent space."""
        model, matrix = self.training.model, self.problem.scores.matrix
        kernel, train = model.kernel(), self.problem.scores.train
        start = pca_start(train, model.X.shape[1])
        latent = described(
            model.X.detach(),
            kernel.lengthscale.detach(),
            start,
            train.nanmean(1),
            matrix.pipelines,
            matrix.descriptions,
        )
        return latent | {
            "nll_per_dataset": self.training.nll_per_dataset(),
            "kernel_variance": float(kernel.variance.detach()),
            "kernel_noise": float((kernel.noise + kernel.white).detach()),
        }

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "training": self.training.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.training.load_state_dict(state["training"])
        self.taken = self.training.taken
