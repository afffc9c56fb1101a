"""An online problem: every call sees fresh samples."""

import torch
from torch import Tensor

from common.numerics.sampling import ReplicateSampler
from papers.spider.data import LogisticStream
from papers.spider.problems.linear import LogisticProblem
from papers.spider.problems.protocol import Batch
from papers.spider.problems.regulariser import Regulariser

EVALUATION_SAMPLES = 65_536


class StreamProblem(LogisticProblem):
    """f(w) = E log(1 + exp(-y a'w)) + r(w) over the stream's (a, y), n = None.

    ||a|| = 1, so L = 1/4 + L_r and E||grad f_i - grad f||^2 <= sigma^2 = 1. The true gradient is taken on a
    fixed sample of 65,536; its own error, about sigma / 256 = 0.004, bounds what eps can be judged.

    Args:
        stream: the samples, and the start w_0.
        regulariser: r.
        device, dtype: of points.
    """

    def __init__(
        self, stream: LogisticStream, regulariser: Regulariser, device: torch.device, dtype: torch.dtype
    ) -> None:
        generator = torch.Generator().manual_seed(stream.EVALUATION_SEED)
        inputs, labels = stream.sample(torch.randn(EVALUATION_SAMPLES, stream.width, generator=generator))
        super().__init__(inputs.to(device, dtype), labels.to(device), regulariser)
        self.stream = stream
        self.n, self.pass_size = None, 1_000
        self.smoothness = self.CURVATURE + regulariser.smoothness
        self.hessian_lipschitz = self.THIRD + regulariser.hessian_lipschitz
        self.sigma = 1.0
        self._start = stream.start.to(device, dtype)

    def start(self, replicates: int) -> Tensor:
        """The stream's own start, on the wrong side of the separating plane."""
        return self._start.repeat(replicates, 1)

    def draw(self, sampler: ReplicateSampler, size: int, rows: list[int] | None) -> Batch:
        inputs, labels = self.stream.sample(sampler.normal((size, self.stream.width), rows))
        return Batch(inputs * (2 * labels - 1).unsqueeze(-1), None, size)
