"""One forward pass of an encoder with many heads, and the gradients that multi-objective methods ask for.

The heads see leaves that share the memory of the representation Z, one each. So one backward pass through all
heads gives every head its own gradient of its own loss, and dL_t/dZ of every task; the encoder is not passed
until a direction is known.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Losses = Callable[[Sequence[Tensor]], Tensor]
# what <g_t, u> may miss common descent by: relative to |u|^2, and to the size of its terms (single precision)
ROUNDING, TERMS = 1e-5, 1e-6


class Descents(NamedTuple):
    """<g_t, u> of all tasks, [T]; |u|^2; and how large the terms of the products are, both []."""

    products: Tensor
    squared_length: Tensor
    size: Tensor

    @property
    def rises(self) -> Tensor:
        """Whether some task's loss rises along -u, beyond rounding: bool []."""
        return self.products.min() < -ROUNDING * self.squared_length - TERMS * self.size

    @property
    def ratio(self) -> Tensor:
        """min_t <g_t, u> / |u|^2, 1 or more for exact MGDA; 1 where the products are rounding: float64 []."""
        known = self.squared_length > 10 * TERMS * self.size
        return torch.where(known, self.products.min() / self.squared_length, 1.0)


class SharedPass:
    """A minibatch that went through encoder and heads once.

    Attributes:
        representation: Z, with its graph.
        losses: of all tasks, [T], with the graph of the heads.
        gradients: dL_t/dZ of all tasks, [T, *Z], after `backward_heads`.

    Args:
        encoder, heads: the network.
        inputs: of the minibatch.
        losses: from the heads' outputs to L_t, [T].
        keep_graph: whether the encoder may be passed again after `backward_encoder`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        heads: Sequence[nn.Module],
        inputs: Tensor,
        losses: Losses,
        keep_graph: bool = False,
    ) -> None:
        self.heads, self.keep_graph = heads, keep_graph
        self.parameters = [p for p in encoder.parameters() if p.requires_grad]
        self.representation: Tensor = encoder(inputs)
        self.leaves = [self.representation.detach().requires_grad_() for _ in heads]
        outputs = [head(leaf) for head, leaf in zip(heads, self.leaves, strict=True)]
        self.losses = losses(outputs)
        self.gradients: Tensor

    def backward_heads(self) -> Tensor:
        """Leave in every head the gradient of its own loss; dL_t/dZ, [T, *Z]."""
        self.losses.sum().backward()
        self.gradients = torch.stack(
            [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in self.leaves]
        )
        return self.gradients

    def scale_heads(self, weights: Tensor) -> None:
        """Multiply the gradients of head t by weights[t]."""
        for head, weight in zip(self.heads, weights, strict=True):
            own = [p.grad for p in head.parameters() if p.grad is not None]
            if own:
                torch._foreach_mul_(own, weight)

    def backward_encoder(self, weights: Tensor) -> None:
        """Leave sum_t weights[t] dL_t/dth in the encoder: one backward pass."""
        direction = torch.tensordot(weights.to(self.gradients), self.gradients, dims=1)
        found = torch.autograd.grad(
            self.representation, self.parameters, direction, retain_graph=self.keep_graph, allow_unused=True
        )
        for parameter, gradient in zip(self.parameters, found, strict=True):
            parameter.grad = gradient

    def encoder_gradients(self, batched: bool) -> list[Tensor]:
        """dL_t/dth of all tasks, [T, *p] for each parameter p of the encoder: T backward passes.

        Args:
            batched: all passes at once, vectorised over the tasks by vmap.
        """
        if batched:
            found = torch.autograd.grad(
                self.representation,
                self.parameters,
                self.gradients,
                retain_graph=True,
                is_grads_batched=True,
                allow_unused=True,
                materialize_grads=True,
            )
            return list(found)
        each = [
            torch.autograd.grad(
                self.representation,
                self.parameters,
                gradient,
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
            for gradient in self.gradients
        ]
        return [torch.stack(parts) for parts in zip(*each, strict=True)]

    def combine(self, gradients: Sequence[Tensor], weights: Tensor) -> None:
        """Leave sum_t weights[t] gradients[t] in the encoder, of gradients that are known: no pass."""
        for parameter, own in zip(self.parameters, gradients, strict=True):
            parameter.grad = torch.tensordot(weights.to(own), own, dims=1)

    def descents(self) -> Descents:
        """<dL_t/dth, u> of all tasks for the u that the encoder's parameters hold as gradients.

        Those are <dL_t/dZ, J u> with J = dZ/dth, and J u is the derivative of w -> <J'w, u>: two passes
        through the encoder, however many tasks there are.
        """
        probe = torch.zeros_like(self.representation, requires_grad=True)
        pulled = torch.autograd.grad(
            self.representation,
            self.parameters,
            probe,
            create_graph=True,
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
        used = [
            (own, p.grad)
            for own, p in zip(pulled, self.parameters, strict=True)
            if own.requires_grad and p.grad is not None
        ]
        (pushed,) = torch.autograd.grad([own for own, _ in used], probe, [u for _, u in used])
        rows, pushed = self.gradients.flatten(1).double(), pushed.flatten().double()
        return Descents(rows @ pushed, self.squared_length(), rows.norm(dim=1).max() * pushed.norm())

    def squared_length(self) -> Tensor:
        """|u|^2 of the gradients that the encoder's parameters hold, float64 []."""
        own = [p.grad.double().square().sum() for p in self.parameters if p.grad is not None]
        return torch.stack(own).sum()


def gram(gradients: Sequence[Tensor]) -> Tensor:
    """<g_s, g_t> of gradients given in parts [T, *p]: float64 [T, T], on their device."""
    return torch.stack([(wide := part.flatten(1).double()) @ wide.T for part in gradients]).sum(0)


def lengths(gradients: Tensor) -> Tensor:
    """|g_t| of gradients [T, n]: [T], in their type, without squares below or above its range.

    They are first divided, exactly, by the power of 2 below their largest number.
    """
    largest = gradients.abs().amax(1)
    mantissa, _ = largest.frexp()
    power = torch.where(largest > 0, largest / (2 * mantissa), 1.0)
    return power * (gradients / power.unsqueeze(1)).norm(dim=1)
