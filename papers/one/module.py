"""one as a LightningModule: supervised training, its costs, and the loss around the minimum."""

from typing import Any, Literal, Unpack

from common.base.errors import UserError
from common.training.supervised import SupervisedModule, Training
from papers.one.costs import costs
from papers.one.perturbation import Scaling, perturbed_losses

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


class OneModule(SupervisedModule):
    """Lan, Zhu, Gong, "Knowledge Distillation by On-the-Fly Native Ensemble", NeurIPS 2018.

    The method is `papers.one.one.ONE`, another one of kind `distillation`, or an optimizer alone.

    Args:
        perturb: distances d at which the final network's losses are measured under perturbation of its
            parameters (figure 4); none of them where empty.
        perturb_directions: over how many random directions they are averaged.
        perturb_scaling: see `random_direction`.
        settings: see SupervisedModule.

    Raises:
        UserError: as SupervisedModule; no direction.
    """

    def __init__(
        self,
        *,
        perturb: list[float],
        perturb_directions: int,
        perturb_scaling: Scaling,
        **settings: Unpack[Training],
    ) -> None:
        super().__init__(**settings)
        if perturb_directions < 1:
            raise UserError(f"paper.perturb_directions={perturb_directions}; valid: 1 or more")
        self.perturb, self.perturb_directions = perturb, perturb_directions
        self.perturb_scaling = perturb_scaling

    def results(self) -> dict[str, Any]:
        """SupervisedModule's, the costs, and what perturbation does to the losses."""
        found = super().results()
        found |= costs(self.network(), self.training_method, self.data.shape)
        return found | (self._perturbed(found) if self.perturb else {})

    def _perturbed(self, found: dict[str, Any]) -> dict[str, Any]:
        """`perturbed_<split>_loss` at each distance, and by how much it is higher on average."""
        network = self.network()

        def losses() -> dict[str, float]:
            return {split: self.task.evaluate(network, self.data, split)[f"{split}_loss"] for split in SPLITS}

        curves = perturbed_losses(
            network, losses, self.perturb, self.perturb_directions, self.perturb_scaling, self.seed
        )
        measured: dict[str, Any] = {"perturb_distance": list(self.perturb)}
        for split, curve in curves.items():
            measured[f"perturbed_{split}_loss"] = curve
            measured[f"{split}_loss_rise"] = sum(curve) / len(curve) - found[f"{split}_loss"]
        return measured
