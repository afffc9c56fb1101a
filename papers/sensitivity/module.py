"""sensitivity as a LightningModule: supervised training by a method that prunes, and how sparse it ends."""

from typing import Any

from common.training.supervised import SupervisedModule
from papers.sensitivity.sensitivity import Sensitivity
from papers.sensitivity.sparsity import sparsity


class SensitivityModule(SupervisedModule):
    """Tartaglione et al., "Learning Sparse Neural Networks via Sensitivity-Driven Regularization", 2018.

    The method is `papers.sensitivity.sensitivity.Sensitivity`, another one of kind `pruning`, or one that
    prunes nothing and is measured alike.
    """

    def results(self) -> dict[str, Any]:
        """SupervisedModule's, `sparsity` of the network, and `backward_passes` of a step that decays."""
        found = super().results() | sparsity(self.network())
        methods = [each for each in self.training_method.chain() if isinstance(each, Sensitivity)]
        outputs = self.data.classes
        if not methods or outputs is None:
            return found
        return found | {"backward_passes": 1 + sum(each.passes(outputs) for each in methods)}
