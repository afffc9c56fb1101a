"""The angular softmax loss (A-softmax) of Liu et al., "SphereFace", CVPR 2017, section 3.

With directions of length 1, one for each identity, the logit of identity j is |x| cos theta_j. That of the
true one is made smaller, |x| psi(theta_y), so that the angle to it must be m times smaller than to others:

    psi(theta) = (-1)^k cos(m theta) - 2 k,   k = floor(m theta / pi),   theta in [0, pi]

which falls from 1 to 1 - 2 m without a jump. Training starts near the plain softmax: the true logit is
|x| (lambda cos theta + psi(theta)) / (1 + lambda), lambda = max(least, base / (1 + gamma t)) after t steps
(SphereFace's Caffe layer; base 1000, gamma 0.12 and least 5 are recalled from its published settings).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError


def angular_margin(cosine: Tensor, margin: int) -> Tensor:
    """psi of the angles that have these cosines, of any shape; `margin` is m >= 1."""
    before, multiple = torch.ones_like(cosine), cosine
    for _ in range(margin - 1):
        # cos (i + 1) theta = 2 cos theta cos i theta - cos (i - 1) theta
        before, multiple = multiple, 2 * cosine * multiple - before
    turns = (margin * cosine.detach().acos() / math.pi).floor().clamp(max=margin - 1)
    sign = 1 - 2 * (turns % 2)
    return sign * multiple - 2 * turns


class AngularSoftmax(nn.Module):
    """The directions of the identities and the loss of embeddings against them.

    Args:
        embedding: numbers of an embedding.
        classes: how many identities.
        margin: m.
        base, gamma, least: of lambda, see above; gamma is of one step.

    Raises:
        UserError: a margin below 1, or numbers of lambda below 0.
    """

    steps: Tensor

    def __init__(
        self, embedding: int, classes: int, *, margin: int, base: float, gamma: float, least: float
    ) -> None:
        super().__init__()
        if margin < 1:
            raise UserError(f"model.margin={margin}; valid: a whole number >= 1")
        if min(base, gamma, least) < 0:
            raise UserError(f"model: base={base}, gamma={gamma}, least={least}; valid: numbers >= 0")
        self.margin, self.base, self.gamma, self.least = margin, base, gamma, least
        self.weight = nn.Parameter(torch.empty(classes, embedding))
        nn.init.normal_(self.weight)
        # a trained network goes on with the lambda that it had
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def cosines(self, embeddings: Tensor) -> Tensor:
        """[b, embedding] to the cosines of the angles to all identities, [b, classes]."""
        rows = functional.normalize(embeddings, eps=torch.finfo(embeddings.dtype).tiny)
        return functional.linear(rows, functional.normalize(self.weight)).clamp(-1, 1)

    def softening(self) -> Tensor:
        """Lambda: how much the plain softmax still weighs."""
        return (self.base / (1 + self.gamma * self.steps)).clamp_min(self.least)

    def forward(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """The mean loss of embeddings [b, embedding] of identities int64 [b]; training counts a step.

        Angles are taken in the precision of the weights, whatever the precision of the network before them.
        """
        if self.training:
            self.steps += 1
        with torch.autocast(embeddings.device.type, enabled=False):
            return self._loss(embeddings.to(self.weight.dtype), targets)

    def _loss(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        cosines = self.cosines(embeddings)
        true = cosines.gather(1, targets[:, None])
        softening = self.softening()
        softened = (softening * true + angular_margin(true, self.margin)) / (1 + softening)
        lengths = embeddings.norm(dim=1, keepdim=True)
        return functional.cross_entropy(lengths * cosines.scatter(1, targets[:, None], softened), targets)
