"""factor_transfer as a LightningModule: supervised training with help from a teacher's factors."""

from common.training.supervised import SupervisedModule


class FactorTransferModule(SupervisedModule):
    """Kim, Park, Kwak, "Paraphrasing Complex Network: Network Compression via Factor Transfer", NeurIPS 2018.

    Both stages are supervised training: the paraphraser is the model of a run of its own
    (`papers.factor_transfer.factor_transfer.ParaphraserModel`), the student's method is
    `papers.factor_transfer.factor_transfer.FactorTransfer` or a baseline of kind `distillation`.
    """
