"""Sparse variational dropout: Molchanov, Ashukha, Vetrov, "Variational Dropout Sparsifies Deep Neural
Networks", ICML 2017 (arXiv 1701.05369).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts
from papers.sensitivity.pruning import Tensors, WeightPruning, require_finite

# of the approximation of the KL divergence, equation 14
K1, K2, K3 = 0.63576, 1.87320, 1.48695
# log alpha is kept within, as in the authors' code
LARGEST = 8.0

Noisy = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def log_alpha(weights: Tensor, log_variance: Tensor) -> Tensor:
    """log alpha = log sigma^2 - log w^2, within [-8, 8]; 8 where w is 0."""
    tiny = torch.finfo(weights.dtype).tiny ** 0.5
    return (log_variance - 2 * weights.abs().clamp_min(tiny).log()).clamp(-LARGEST, LARGEST)


def kl_divergence(log_alpha: Tensor) -> Tensor:
    """KL(q(w | theta, alpha) || log-uniform prior) up to a constant, for each weight.

    k1 - k1 sigmoid(k2 + k3 log alpha) + log(1 + 1 / alpha) / 2 (equation 14), which falls to 0 as alpha
    grows.
    """
    return K1 * torch.sigmoid(-(K2 + K3 * log_alpha)) + 0.5 * functional.softplus(-log_alpha)


class SparseVD(WeightPruning):
    """Each weight is N(theta, sigma^2), sigma learnt beside theta; what is nearly all noise is zero.

    loss = fit + kl_weight / N sum KL, N the training examples, the fit by the local reparametrisation: a
    layer's outputs are normal with mean x theta and variance x^2 sigma^2, drawn example by example. Between
    steps the network holds theta where log alpha = log sigma^2 - log theta^2 is at most `threshold`, and 0
    elsewhere; theta itself is kept beside it, so that a weight may come back.

    Args:
        threshold: of log alpha, 3 in the paper (a dropout rate of 0.95).
        initial: of log sigma^2.
        kl_weight: at least 0; 1 in the paper.
        warmup: the share of the run after `begin` in which the weight of the KL rises from 0, from 0 to 1.
        begin, parts: see `WeightPruning`.

    Raises:
        UserError: numbers out of range; in `attach` weights of another layer than Linear and convolutions.
    """

    # another method cannot add to the loss of its noisy pass
    ONE_PASS = False

    def __init__(
        self,
        *,
        threshold: float,
        initial: float,
        kl_weight: float,
        warmup: float,
        begin: float,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(begin=begin, parameters="weights", **parts)
        require("at least 0", "method", kl_weight=kl_weight)
        require("from 0 to 1", "method", warmup=warmup)
        self.threshold, self.initial, self.kl_weight, self.warmup = threshold, initial, kl_weight, warmup
        self.log_variances = nn.ParameterList()
        self.layers: dict[str, str] = {}

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is; log sigma^2 of its weights, which the optimizer trains too."""
        student = super().attach(student, make_model, data)
        parameters = self.chosen(student)
        for name in parameters:
            layer = student.get_submodule(name.rpartition(".")[0])
            if not isinstance(layer, Noisy) or not name.endswith("weight"):
                raise UserError(
                    f"method: {name} ({type(layer).__name__}) cannot be made noisy "
                    "(valid: networks of Linear and convolutions; another method of kind pruning)"
                )
        self.dense = Tensors(parameters)
        self.log_variances.extend(nn.Parameter(torch.full_like(p, self.initial)) for p in parameters.values())
        return student

    def variances(self) -> dict[str, nn.Parameter]:
        """log sigma^2 by the names of the weights."""
        return dict(zip(self.masks.names, self.log_variances, strict=True))

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The whole objective, at the weights without their masks."""
        if not self.begun:
            return super().loss(student, inputs, targets)
        parameters = self.chosen(student)
        with torch.no_grad():
            for name, p in parameters.items():
                p.copy_(self.dense[name])
        with noise(student, self.variances()):
            fit = super().loss(student, inputs, targets)
        alphas = {name: log_alpha(parameters[name], v) for name, v in self.variances().items()}
        divergence = torch.stack([kl_divergence(alpha).sum() for alpha in alphas.values()]).sum()
        return fit + self.kl_scale() / self.data.size("train") * divergence

    def kl_scale(self) -> float:
        """kl_weight, within the warm-up the part of it that is reached."""
        if self.warmup == 0:
            return self.kl_weight
        return self.kl_weight * min(1.0, (self.done - self.begin) / self.warmup)

    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        """theta is what the optimizer has made; the masks follow log alpha."""
        require_finite(parameters)
        self.dense.copy_(parameters)
        found = {
            name: log_alpha(parameters[name], variance) <= self.threshold
            for name, variance in self.variances().items()
        }
        self.masks.put(found, f"method.threshold={self.threshold}")

    def end_step(self, student: nn.Module, done: float) -> None:
        super().end_step(student, done)
        if done < self.begin:
            self.dense.copy_(self.chosen(student))


@contextmanager
def noise(network: nn.Module, log_variances: dict[str, nn.Parameter]) -> Iterator[None]:
    """Within it the layers of these weights give outputs drawn from N(x theta + bias, x^2 sigma^2)."""
    hooks = [
        network.get_submodule(name.rpartition(".")[0]).register_forward_hook(_noisy(log_variance))
        for name, log_variance in log_variances.items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _noisy(log_variance: nn.Parameter) -> Any:
    def hook(layer: Any, inputs: tuple[Tensor], outputs: Tensor) -> Tensor:
        squares = inputs[0].square()
        if isinstance(layer, nn.Linear):
            variance = functional.linear(squares, log_variance.exp())
        else:
            variance = layer._conv_forward(squares, log_variance.exp(), None)
        deviation = variance.clamp_min(torch.finfo(variance.dtype).tiny).sqrt()
        return outputs + deviation * torch.randn_like(outputs)

    return hook
