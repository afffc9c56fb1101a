"""sensitivity as a LightningModule: supervised training by a method that prunes, and how sparse it ends."""

from typing import Any

from common.training.supervised import SupervisedModule
from papers.sensitivity.sparsity import sparsity


class SensitivityModule(SupervisedModule):
    """Tartaglione et al., "Learning Sparse Neural Networks via Sensitivity-Driven Regularization", 2018.

    The method is `papers.sensitivity.sensitivity.Sensitivity`, another one of kind `pruning`, or one that
    prunes nothing and is measured alike.
    """

    def results(self) -> dict[str, Any]:
        """SupervisedModule's, and `sparsity` of the network."""
        return super().results() | sparsity(self.network())
