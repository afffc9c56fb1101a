"""How large a model is."""

from torch import nn
from torch.nn.modules.batchnorm import _NormBase


def count_parameters(model: nn.Module, *, batch_norm_statistics: bool = False) -> int:
    """The number of trainable numbers in a model.

    Args:
        model: on any device, `meta` included. What several modules share counts once.
        batch_norm_statistics: also count running means and variances, as the state of a PyTorch 0.4 model
            held them: the rule of Crowley, Gray, Storkey, "Moonshine", NeurIPS 2018, table 2.
    """
    total = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    if batch_norm_statistics:
        norms = [module for module in model.modules() if isinstance(module, _NormBase)]
        statistics = [s for norm in norms for s in (norm.running_mean, norm.running_var) if s is not None]
        total += sum(statistic.numel() for statistic in statistics)
    return total
