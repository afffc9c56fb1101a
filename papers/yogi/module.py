"""yogi as a LightningModule: the paper's experiments are supervised training with other optimizers."""

from common.training.supervised import SupervisedModule


class YogiModule(SupervisedModule):
    """Zaheer et al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018.

    The method is `papers.yogi.yogi.Yogi` or a baseline of kind `optimizer`; everything else is the shared
    supervised training.
    """
