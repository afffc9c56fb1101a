"""Soft weight-sharing: Ullrich, Meeds, Welling, "Soft Weight-Sharing for Neural Network Compression", ICLR
2017 (arXiv 1702.04008).
"""

import math
from collections.abc import Mapping
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from common.base.limits import require
from common.base.method import MethodParts, Pass
from papers.sensitivity.pruning import WeightPruning, require_finite

# Gamma priors of the precisions in the authors' code: of the component at zero, and of the others
ZERO_PRIOR, PRIOR = (5e3, 2.0), (2.5e2, 0.1)
# weights whose densities are worked out at once
AT_ONCE = 2**18


class Mixture(nn.Module):
    """A mixture of normal densities, one of which stays at 0 with a fixed proportion.

    Args:
        components: in all, at least 2.
        zero: pi_0, the proportion of the one at 0.
    """

    def __init__(self, components: int, zero: float) -> None:
        super().__init__()
        self.zero = zero
        self.means = nn.Parameter(torch.zeros(components - 1))
        self.log_precisions = nn.Parameter(torch.zeros(components))
        self.logits = nn.Parameter(torch.zeros(components - 1))

    @torch.no_grad()
    def spread(self, largest: float) -> None:
        """Means evenly over [-largest, largest], precisions at the means of their priors (deviation 0.02)."""
        self.means.copy_(torch.linspace(-largest, largest, len(self.means)))
        shapes, rates = self.priors()
        self.log_precisions.copy_((shapes / rates).log())
        self.logits.zero_()

    def all_means(self) -> Tensor:
        """[components], 0 first."""
        return torch.cat([self.means.new_zeros(1), self.means])

    def priors(self) -> tuple[Tensor, Tensor]:
        """Shapes and rates of the Gamma densities of the precisions, [components] each."""
        others = len(self.means)
        shapes, rates = zip(ZERO_PRIOR, *[PRIOR] * others, strict=True)
        return self.log_precisions.new_tensor(shapes), self.log_precisions.new_tensor(rates)

    def log_joint(self, weights: Tensor) -> Tensor:
        """log pi_j + log N(w; mu_j, 1 / lambda_j), [n, components]."""
        rest = self.logits.log_softmax(0) + math.log1p(-self.zero)
        proportions = torch.cat([rest.new_tensor([math.log(self.zero)]), rest])
        squares = (weights[:, None] - self.all_means()).square() * self.log_precisions.exp()
        return proportions + (self.log_precisions - math.log(2 * math.pi) - squares) / 2

    def complexity(self, weights: Tensor) -> Tensor:
        """-log p(w), summed over the weights [n], and -log of the precisions' Gamma densities up to
        constants."""
        parts = [-self.log_joint(part).logsumexp(1).sum() for part in weights.split(AT_ONCE)]
        precisions = self.log_precisions.exp()
        shape, rate = self.priors()
        return torch.stack(parts).sum() + ((1 - shape) * self.log_precisions + rate * precisions).sum()

    @torch.no_grad()
    def collapsed(self, weights: Tensor) -> Tensor:
        """Each weight [n] as the mean of the component that most probably made it."""
        means = self.all_means()
        return torch.cat([means[self.log_joint(part).argmax(1)] for part in weights.split(AT_ONCE)])


class SoftWeightSharing(WeightPruning):
    """Weights are drawn to the components of a mixture that is learnt with them; those at zero are pruned.

    From `begin` on loss = fit + tau / N complexity, N the training examples, with the mixture begun from the
    weights as they are then. After the last step each weight becomes the mean of its component, so that the
    weights share `components` values. The authors then merge components that overlap; here they stay. One
    optimizer trains the weights and the mixture.

    Args:
        components: with the one at zero, 17 in the paper; at least 2.
        zero: pi_0, .999 in the paper, above 0 and below 1.
        tau: at least 0; .005 in the paper.
        begin, parts: see `WeightPruning`.

    Raises:
        UserError: numbers out of range; at the end a layer of which all weights are in the component at zero.
    """

    def __init__(
        self, *, components: int, zero: float, tau: float, begin: float, **parts: Unpack[MethodParts]
    ) -> None:
        super().__init__(begin=begin, parameters="weights", **parts)
        require("at least 1", "method", components=components - 1)
        require("above 0 and below 1", "method", zero=zero)
        require("at least 0", "method", tau=tau)
        self.tau = tau
        self.mixture = Mixture(components, zero)
        self.spread = False

    def fit_of(self, seen: Pass) -> Tensor:
        """`inner_fit_of` and the complexity."""
        fit = self.inner_fit_of(seen)
        if not self.begun:
            # the optimizer has the mixture too: it is held still
            return fit
        weights = torch.cat([p.flatten() for p in self.chosen(seen.student).values()])
        if not self.spread:
            self.mixture.spread(float(weights.detach().abs().max()))
            self.spread = True
        return fit + self.tau / self.data.size("train") * self.mixture.complexity(weights)

    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        """Collapse after the last step."""
        if done < 1:
            return
        require_finite(parameters)
        found: Mapping[str, Tensor] = {
            name: self.mixture.collapsed(p.detach().flatten()).view_as(p) for name, p in parameters.items()
        }
        self.masks.put({name: value != 0 for name, value in found.items()}, f"method.tau={self.tau}")
        for name, p in parameters.items():
            p.copy_(found[name])

    def get_extra_state(self) -> dict[str, Any]:
        return super().get_extra_state() | {"spread": self.spread}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.spread = state["spread"]
