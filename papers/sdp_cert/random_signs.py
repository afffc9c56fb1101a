"""Networks with random +-1 weights, on which the LP's bound is loose by sqrt(min(m, d)) (Proposition 1 of the
paper).

m hidden units, d inputs, b = 0, output sum_j z_j, box ||x||_inf <= eps: max f = O(eps (m sqrt d + d sqrt m))
and so is the SDP's bound, while the LP's is (eps/2) (m d + ||W'1||_1).
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from papers.sdp_cert.bounds import Interval, Objective
from papers.sdp_cert.network import ReluNetwork

# inputs beyond which 2^d sign vectors are too many
LARGEST = 20


class RandomSigns(nn.Module):
    """A family of such networks, one a seed; as a model it stands for the sizes.

    Args:
        shape, classes: of the data, not used.
        hidden, inputs: m and d >= 1; d <= 20 for the exact value.

    Raises:
        UserError: a size out of range.
    """

    task: ClassVar[Literal["certificate"]] = "certificate"
    features: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, hidden: int, inputs: int) -> None:
        super().__init__()
        if hidden < 1 or not 1 <= inputs <= LARGEST:
            raise UserError(
                f"model.hidden={hidden}, model.inputs={inputs}; valid: hidden >= 1, inputs 1 to {LARGEST}"
            )
        self.hidden, self.inputs = hidden, inputs

    def draw(self, seed: int) -> ReluNetwork:
        """W_0 of random signs [m, d], then the sum of the units against a class that stays 0."""
        generator = torch.Generator().manual_seed(seed)
        signs = torch.randint(0, 2, (self.hidden, self.inputs), generator=generator).double() * 2 - 1
        out = torch.stack([torch.ones(self.hidden), torch.zeros(self.hidden)]).double()
        return ReluNetwork((signs, out), (torch.zeros(self.hidden).double(), torch.zeros(2).double()))


def sign_box(network: ReluNetwork, eps: float) -> tuple[Interval, Objective]:
    """||x||_inf <= eps as one example, and the objective sum_j z_j."""
    radius = torch.full((1, network.inputs), eps, dtype=torch.float64)
    rows = torch.ones(1, 1, network.weights[0].shape[0], dtype=torch.float64)
    zero = torch.zeros(1, 1, dtype=torch.float64)
    return Interval(-radius, radius), Objective(rows, zero, zero.long())


def exact_value(network: ReluNetwork, eps: float) -> float:
    """max over the box of the convex sum_j relu(w_j'x), which a vertex attains: over all 2^d sign vectors."""
    d = network.inputs
    bits = (torch.arange(2**d)[:, None] >> torch.arange(d)) & 1
    vertices = eps * (bits.double() * 2 - 1)
    return max(
        float((part @ network.weights[0].T).clamp_min(0).sum(1).max()) for part in vertices.split(2**14)
    )


def linear_value(network: ReluNetwork, eps: float) -> float:
    """The LP's bound in closed form: (eps/2) (m d + ||W'1||_1)."""
    W: Tensor = network.weights[0]
    return eps / 2 * (W.numel() + float(W.sum(0).abs().sum()))
