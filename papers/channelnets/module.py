"""channelnets as a LightningModule: supervised training, with the sizes that the paper's tables print."""

from typing import Any

from common.metrics.macs import count_macs
from common.training.supervised import SupervisedModule

MILLION = 1e6


class ChannelNetsModule(SupervisedModule):
    """Gao, Wang, Ji, "ChannelNets: Compact and Efficient CNNs via Channel-Wise Convolutions", NeurIPS 2018.

    The networks are models (`papers.channelnets.network`); training is the shared supervised one, with any
    method.
    """

    def results(self) -> dict[str, Any]:
        """The shared metrics; `top1` in percent, and sizes in millions as the tables have them.

        `flops` are the multiply-adds of one example by the formulas of the layers, which for ChannelNets are
        about 15 % more than the paper prints.
        """
        found = super().results()
        macs = count_macs(self.network(), self.data.shape)
        sizes = {
            "macs": macs,
            "flops_millions": macs / MILLION,
            "params_millions": found["parameters"] / MILLION,
        }
        top1 = {"top1": 100 * found["test_accuracy"]} if "test_accuracy" in found else {}
        return found | sizes | top1
