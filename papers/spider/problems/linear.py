"""Finite sums whose components see the point through linear scores, in closed form.

- logistic regression, two classes: f_i(w) = log(1 + exp(-y_i a_i'w)) + r(w), y_i = +-1
- softmax regression, C classes:    f_i(W) = logsumexp(W a_i) - (W a_i)_{y_i} + r(W)
- robust regression:                f_i(w) = log(1 + (a_i'w - y_i)^2 / 2) + r(w)

r is a `Regulariser`. A bias is a last column of ones in the rows a_i, not penalised.
"""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from common.numerics.sampling import ReplicateSampler
from papers.spider.problems.protocol import Batch, Problem
from papers.spider.problems.regulariser import Regulariser
from papers.spider.problems.sparse import SparseRows

Evaluate = Callable[[Tensor], dict[str, Tensor]]
Rows = Tensor | SparseRows

# sup |s''| of the logistic function s, attained where s = 1/2 +- 1/sqrt(12)
_LOGISTIC_THIRD = 3**-0.5 / 6


def _scores(rows: Rows, points: Tensor) -> Tensor:
    """a_i'x for rows [n, d] or [R, b, d] and points [R, d] or [R, p, d]: [R, n] or [R, n, p]."""
    if isinstance(rows, SparseRows):
        return rows.scores(points)
    if rows.dim() == 2:
        return points @ rows.T if points.dim() == 2 else (points @ rows.T).mT
    columns = points.unsqueeze(1) if points.dim() == 2 else points
    scores = rows @ columns.mT
    return scores.squeeze(2) if points.dim() == 2 else scores


def _combine(weights: Tensor, rows: Rows) -> Tensor:
    """sum_i weights_i a_i for weights [R, b] and rows [b, d] or [R, b, d]: [R, d]."""
    if isinstance(rows, SparseRows):
        return rows.combine(weights)
    if rows.dim() == 2:
        return weights @ rows
    return (weights.unsqueeze(1) @ rows).squeeze(1)


def _norms(rows: Rows) -> Tensor:
    """||a_i||: [n]."""
    return rows.norms() if isinstance(rows, SparseRows) else rows.norm(dim=1)


class RowsProblem(Problem):
    """What finite sums over the rows of a matrix share.

    Args:
        rows: [n, d], dense or sparse, a column of ones last where there is a bias.
        targets: [n], or None where the rows say all.
        regulariser: r.
    """

    def __init__(self, rows: Rows, targets: Tensor | None, regulariser: Regulariser) -> None:
        self.rows, self.targets, self.regulariser = rows, targets, regulariser
        self.n = self.pass_size = len(rows)
        self.dim = rows.shape[1]
        self.lower_bound = 0.0
        self.device, self.dtype = rows.device, rows.dtype
        self.evaluator: Evaluate | None = None

    def evaluate(self, x: Tensor) -> dict[str, Tensor]:
        return {} if self.evaluator is None else self.evaluator(x)

    def start(self, replicates: int) -> Tensor:
        """The origin."""
        return torch.zeros(replicates, self.dim, device=self.device, dtype=self.dtype)

    def everything(self) -> Batch:
        return Batch(self.rows, self.targets, len(self.rows))

    def draw(self, sampler: ReplicateSampler, size: int, rows: list[int] | None) -> Batch:
        index = sampler.indices(size, rows)
        targets = None if self.targets is None else self.targets.take(index)
        if isinstance(self.rows, SparseRows):
            return Batch(self.rows.draw(index), targets, size)
        inputs = self.rows.index_select(0, index.reshape(-1)).view(*index.shape, -1)
        return Batch(inputs, targets, size)


class MarginProblem(RowsProblem):
    """f_i(w) = phi(a_i'w, y_i) + r(w) for a scalar function phi of a scalar score.

    L = max_i ||a_i||^2 sup|phi''| + L_r,  rho = max_i ||a_i||^3 sup|phi'''| + rho_r,
    sigma^2 = mean_i ||a_i||^2 sup|phi'|^2, as E||g_i - g||^2 <= E||g_i||^2.
    """

    SLOPE: float
    CURVATURE: float
    THIRD: float

    def __init__(self, rows: Rows, targets: Tensor | None, regulariser: Regulariser) -> None:
        super().__init__(rows, targets, regulariser)
        norms = _norms(rows)
        longest = float(norms.max())
        self.smoothness = self.CURVATURE * longest**2 + regulariser.smoothness
        self.hessian_lipschitz = self.THIRD * longest**3 + regulariser.hessian_lipschitz
        self.sigma = self.SLOPE * float(norms.square().mean().sqrt())

    @abstractmethod
    def phi(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        """phi, elementwise."""

    @abstractmethod
    def slope(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        """phi', elementwise."""

    @abstractmethod
    def curvature(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        """phi'', elementwise."""

    def value(self, x: Tensor, batch: Batch) -> Tensor:
        losses = self.phi(_scores(batch.inputs, x), batch.targets)
        return losses.mean(1) + self.regulariser.value(x)

    def gradient(self, x: Tensor, batch: Batch) -> Tensor:
        slopes = self.slope(_scores(batch.inputs, x), batch.targets)
        gradient = _combine(slopes, batch.inputs).div_(batch.size)
        return self.regulariser.add_gradient(gradient, x, 1.0)

    def gradient_difference(self, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        points = torch.stack((x, y), dim=1)
        targets = None if batch.targets is None else batch.targets.unsqueeze(-1)
        at_x, at_y = self.slope(_scores(batch.inputs, points), targets).unbind(2)
        difference = _combine(at_x - at_y, batch.inputs).div_(batch.size)
        self.regulariser.add_gradient(difference, x, 1.0)
        return self.regulariser.add_gradient(difference, y, -1.0)

    def hvp(self, x: Tensor, v: Tensor, batch: Batch) -> Tensor:
        second = self.curvature(_scores(batch.inputs, x), batch.targets)
        product = _combine(second * _scores(batch.inputs, v), batch.inputs) / batch.size
        return product + self.regulariser.hvp(x, v)

    def values(self, points: Tensor, batch: Batch) -> Tensor:
        targets = None if batch.targets is None else batch.targets.unsqueeze(-1)
        losses = self.phi(_scores(batch.inputs, points), targets)
        return losses.mean(1) + self.regulariser.value(points)

    def paired_values(self, points: Tensor, batch: Batch) -> Tensor:
        if isinstance(batch.inputs, SparseRows):
            return super().paired_values(points, batch)
        scores = (points * batch.inputs).sum(-1)
        return self.phi(scores, batch.targets) + self.regulariser.value(points)


class LogisticProblem(MarginProblem):
    """phi(z) = log(1 + exp(-z)) of the signed rows y_i a_i: |phi'| <= 1, 0 <= phi'' <= 1/4.

    Args:
        rows: a_i, [n, d].
        labels: 0 or 1, [n]; y_i = 2 label - 1.
        regulariser: r.
    """

    SLOPE, CURVATURE, THIRD = 1.0, 0.25, _LOGISTIC_THIRD

    def __init__(self, rows: Rows, labels: Tensor, regulariser: Regulariser) -> None:
        signs = (2 * labels - 1).to(rows.dtype)
        signed = rows.scaled(signs) if isinstance(rows, SparseRows) else rows * signs[:, None]
        super().__init__(signed, None, regulariser)

    def phi(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        return nn.functional.softplus(-scores)

    def slope(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        return torch.sigmoid(scores).sub_(1.0)

    def curvature(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        probability = torch.sigmoid(scores)
        return probability * (1 - probability)


class RobustRegressionProblem(MarginProblem):
    """phi(z, y) = log(1 + (z - y)^2 / 2): with r = z - y, phi' = r / (1 + r^2/2), |phi'| <= 1/sqrt 2,
    phi'' = (1 - r^2/2) / (1 + r^2/2)^2 in [-1/8, 1], |phi'''| <= 1.0304."""

    SLOPE, CURVATURE, THIRD = 0.5**0.5, 1.0, 1.0304

    def _residual(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        assert targets is not None
        return scores - targets

    def phi(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        return torch.log1p(self._residual(scores, targets).square() / 2)

    def slope(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        residual = self._residual(scores, targets)
        return residual / (1 + residual.square() / 2)

    def curvature(self, scores: Tensor, targets: Tensor | None) -> Tensor:
        half_square = self._residual(scores, targets).square() / 2
        return (1 - half_square) / (1 + half_square) ** 2


class SoftmaxProblem(RowsProblem):
    """Softmax regression; a point is W [C, d'] and then the biases [C], flattened.

    L = max_i ||a_i||^2 / 2 + L_r, as the Hessian of logsumexp is at most I/2;
    sigma^2 = 2 mean_i ||a_i||^2, as ||p - e_y||^2 <= 2. rho is not given.

    Args:
        rows: [n, d'], without a column of ones.
        labels: 0..C-1, [n].
        classes: C.
        bias: whether there are biases.
        regulariser: r, of the C d' weights.
    """

    def __init__(
        self, rows: Tensor, labels: Tensor, classes: int, bias: bool, regulariser: Regulariser
    ) -> None:
        super().__init__(rows, labels, regulariser)
        self.classes, self.bias, self.features = classes, bias, rows.shape[1]
        self.dim = classes * (self.features + bias)
        squares = rows.square().sum(1) + bias
        self.smoothness = float(squares.max()) / 2 + regulariser.smoothness
        self.sigma = float((2 * squares.mean()).sqrt())
        self.hessian_lipschitz = None

    def _logits(self, x: Tensor, batch: Batch) -> Tensor:
        """[R, b, C]."""
        weights = x[:, : self.classes * self.features].view(-1, self.classes, self.features)
        logits = batch.inputs @ weights.mT
        return logits + x[:, None, -self.classes :] if self.bias else logits

    def _back(self, signal: Tensor, batch: Batch) -> Tensor:
        """The transpose of `_logits`, divided by the batch size: [R, b, C] -> [R, dim]."""
        weights = (signal.mT @ batch.inputs).flatten(1)
        gradient = torch.cat([weights, signal.sum(1)], dim=1) if self.bias else weights
        return gradient.div_(batch.size)

    def _residual(self, x: Tensor, batch: Batch) -> Tensor:
        """Softmax minus one-hot: [R, b, C]."""
        assert batch.targets is not None
        probability = torch.softmax(self._logits(x, batch), dim=2)
        targets = batch.targets.expand(probability.shape[:2]).unsqueeze(2)
        return probability.scatter_add_(2, targets, -torch.ones_like(targets, dtype=self.dtype))

    def value(self, x: Tensor, batch: Batch) -> Tensor:
        assert batch.targets is not None
        logs = torch.log_softmax(self._logits(x, batch), dim=2)
        targets = batch.targets.expand(logs.shape[:2]).unsqueeze(2)
        return -logs.gather(2, targets).mean((1, 2)) + self.regulariser.value(x)

    def gradient(self, x: Tensor, batch: Batch) -> Tensor:
        gradient = self._back(self._residual(x, batch), batch)
        return self.regulariser.add_gradient(gradient, x, 1.0)

    def gradient_difference(self, x: Tensor, y: Tensor, batch: Batch) -> Tensor:
        signal = self._residual(x, batch).sub_(self._residual(y, batch))
        difference = self.regulariser.add_gradient(self._back(signal, batch), x, 1.0)
        return self.regulariser.add_gradient(difference, y, -1.0)

    def hvp(self, x: Tensor, v: Tensor, batch: Batch) -> Tensor:
        probability = torch.softmax(self._logits(x, batch), dim=2)
        change = self._logits(v, batch)
        signal = probability * (change - (probability * change).sum(2, keepdim=True))
        return self._back(signal, batch) + self.regulariser.hvp(x, v)

    def paired_values(self, points: Tensor, batch: Batch) -> Tensor:
        assert batch.targets is not None
        weights = points[..., : self.classes * self.features]
        weights = weights.view(*points.shape[:2], self.classes, self.features)
        logits = (weights @ batch.inputs.unsqueeze(-1)).squeeze(-1)
        if self.bias:
            logits = logits + points[..., -self.classes :]
        chosen = logits.gather(2, batch.targets.expand(logits.shape[:2]).unsqueeze(2)).squeeze(2)
        return torch.logsumexp(logits, dim=2) - chosen + self.regulariser.value(points)
