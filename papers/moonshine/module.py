"""Moonshine as a LightningModule: supervised training, with the costs that the paper's tables print."""

from typing import Any

from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.training.supervised import SupervisedModule


class MoonshineModule(SupervisedModule):
    """Crowley, Gray, Storkey, "Moonshine: Distilling with Cheap Convolutions", NeurIPS 2018.

    The students are networks of blocks of `papers.moonshine.blocks`, the ways to teach them methods of kind
    `distillation`; training is the shared supervised one.
    """

    def results(self) -> dict[str, Any]:
        """The shared metrics, and the costs of the network that is left after training.

        `parameters_with_statistics` are the trainable parameters and the running means and variances of
        batch normalisation, which is how tables 2 to 4 count; `macs` the multiply-adds of one image.
        """
        network = self.network()
        return super().results() | {
            "parameters_with_statistics": count_parameters(network, batch_norm_statistics=True),
            "macs": count_macs(network, self.data.shape),
        }
