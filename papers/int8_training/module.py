"""int8_training as a LightningModule: supervised training of a network that may be quantised."""

from itertools import islice
from statistics import fmean
from typing import Any, Unpack

from common.base.limits import require
from common.training.supervised import SupervisedModule, Training
from papers.int8_training.cosine import Angles, measure


class Int8Module(SupervisedModule):
    """Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018.

    The method is `common.quantization.method.QuantisedTraining`, one of kind `distillation` (either
    may hold the other), or an optimizer alone.

    Args:
        cosine_batches: on how many training batches the angles of quantised tensors are measured after each
            epoch (figure 2, left), and at the end their histograms (right); 0: none.
        settings: see SupervisedModule.

    Raises:
        UserError: as SupervisedModule; a number of batches below 0.
    """

    def __init__(self, *, cosine_batches: int, **settings: Unpack[Training]) -> None:
        super().__init__(**settings)
        require("at least 0", "paper", cosine_batches=cosine_batches)
        self.cosine_batches = cosine_batches

    def record(self, step: float, **values: float) -> None:
        """Add the angles at the end of an epoch to what is recorded of it."""
        super().record(step, **values, **self._angles().summary())

    def results(self) -> dict[str, Any]:
        """SupervisedModule's, the angles as means over the epochs, and the histograms of the end."""
        found = super().results()
        for name in ("cos_fwd", "cos_bwd", "cos_bound"):
            series = [value for value in self.history.get(name, []) if value is not None]
            if series:
                found[name] = fmean(series)
                found |= self._spread(name, found[name])
        return found | self._angles().shapes()

    def _spread(self, name: str, mean: float) -> dict[str, float]:
        """The standard deviation over tensors and epochs together, where there is one of each epoch's."""
        pairs = zip(self.history[name], self.history.get(f"{name}_std", []), strict=False)
        squares = [m**2 + s**2 for m, s in pairs if m is not None and s is not None]
        return {f"{name}_std": max(fmean(squares) - mean**2, 0.0) ** 0.5} if squares else {}

    def _angles(self) -> Angles:
        """What is seen of the quantised tensors on the first training batches, without augmentation."""
        if not self.cosine_batches:
            return Angles()
        batches = islice(self.data.batches("train", self.loader_batch), self.cosine_batches)
        self.model.train()
        return measure(self.model, self.training_method.loss, list(batches))

    @property
    def loader_batch(self) -> int:
        """How many examples a training batch has."""
        sizes = self.loader.batch_sizes()
        return self.data.size("train") if sizes is None else sizes[0]
