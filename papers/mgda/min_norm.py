"""The point of smallest norm in the convex hull of T vectors, from their Gram matrix alone.

    a* = argmin ||sum_t a_t g_t||^2 = argmin a'M a   over a >= 0, sum_t a_t = 1,   M_st = <g_s, g_t>

(Sener and Koltun 2018, equation 3; Désidéri 2012). With u = sum_t a*_t g_t, <g_t, u> >= |u|^2 for every t,
with equality where a*_t > 0: -u lowers all losses at once, or u = 0 and the point is Pareto stationary.

Usable alone, for one matrix or a batch of them, on any device:

    from papers.mgda.min_norm import min_norm_weights
    weights = min_norm_weights(gradients @ gradients.T)

`min_norm_weights` is exact; `frank_wolfe_weights` is the paper's Algorithm 2, `projected_gradient_weights`
what the authors' trainer does. All work in float64, and on an accelerator never wait for the device: there
they make their full number of iterations, on a CPU they stop when all problems of the batch are solved.

All first scale the matrix by a power of 4, exactly, so that no square of a square is lost below or above the
range of numbers: gradients times any number have the same weights. (Not quite so for the authors'
method, which takes steps below 1e-7 for none whatever the gradients' size. It is the authors' own where
squares are between 1e-4 and 1e4, and scaled beyond; of random problems of 4 or more tasks one in 20 then ends
elsewhere, of 2 or 3 tasks none.) A matrix with an entry that is NaN or infinite has weights NaN, all of
them, whichever entry it is and whichever method; the other matrices of its batch are not hurt by it.
"""

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, NamedTuple, ParamSpec

import torch
from torch import Tensor

from common.base.errors import UserError
from common.numerics.scaling import power_of_four

# block pivoting: rounds at most, and the gap in lengths of gradients, relative to their sum, that certifies
PIVOTS, CERTIFIED = 8, 1e-14
# interior point: iterations at most, what part of the way to the boundary a step goes (near the solution the
# larger), the mean of y z, relative to the value, at which it has converged to rounding; and what part of
# |y|^2 stands for the value where that is less
ITERATIONS, TO_BOUNDARY, CONVERGED, LEAST = 60, (0.99, 0.99999), 1e-15, 1e-2
TINY, EPS = torch.finfo(torch.float64).tiny, torch.finfo(torch.float64).eps


Options = ParamSpec("Options")
Weigh = Callable[Concatenate[Tensor, Options], Tensor]


def _without_graph(solve: "Weigh[Options]") -> "Weigh[Options]":
    """Check the matrix and solve in float64 in inference mode, which takes half of the time; the result is
    plain, of the matrix's own type, and NaN where the matrix is not finite."""

    @wraps(solve)
    def checked(gram: Tensor, *args: Options.args, **keys: Options.kwargs) -> Tensor:
        _require_square(gram)
        with torch.inference_mode():
            wide = gram.double()
            finite = wide.isfinite().flatten(-2).all(-1)
            wide = torch.where(finite[..., None, None], wide, 1.0)
            weights = solve(wide, *args, **keys)
            weights = torch.where(finite[..., None], weights, torch.nan)
        return weights.to(gram.dtype, copy=True)

    return checked


def _scaled(squares: Tensor, largest: Tensor, kept: int = 0) -> Tensor:
    """`squares` over the power of 4 with which `largest` is between 1 and 4; as they are where that is 0.

    Args:
        kept: what is between 2^-kept and 2^kept stays, and beyond is brought to there.
    """
    power = power_of_four(largest)
    return squares / (power / power.clamp(2.0**-kept, 2.0**kept))


def _unit(gram: Tensor, kept: int = 0) -> Tensor:
    """The matrices [..., T, T] scaled by their largest squares, see `_scaled`."""
    return _scaled(gram, gram.diagonal(dim1=-2, dim2=-1).amax(-1)[..., None, None], kept)


@_without_graph
def min_norm_weights(gram: Tensor) -> Tensor:
    """The exact minimiser: [..., T, T] positive semidefinite -> weights [..., T], >= 0, of sum 1.

    Two tasks by the closed form. More by an active-set method that exchanges whole blocks of tasks: the
    equations M a = v 1, 1'a = 1 are solved on the tasks with weight, a few times, until the duality gap
    certifies the answer; the others' weights are 0, and it is as exact as rounding. Where that does not end
    (duplicates, or 0 in the hull in more than one way), a primal-dual interior point method (Mehrotra's
    predictor and corrector; one Cholesky factorisation of T x T an iteration) finds the tasks with weight,
    and the better of its own answer and of the equations' is taken.
    Tasks are first scaled to unit norm, so gradients of very different sizes do no harm. Where a gradient
    is 0 the weights are those of the zero gradients, and u = 0. NaN in gives NaN.

    Raises:
        UserError: no square matrices of floats.
    """
    tasks = gram.shape[-1]
    if tasks == 1:
        return torch.ones_like(gram[..., 0])
    gram = _unit(gram)
    if tasks == 2:
        first = _two_task_weight(gram[..., 0, 0], gram[..., 0, 1], gram[..., 1, 1])
        # by its own formula where both have weight: 1 - first would lose a small one's digits
        other = _two_task_weight(gram[..., 1, 1], gram[..., 0, 1], gram[..., 0, 0])
        second = torch.where((first < 1) & (other < 1), other, 1 - first)
        return torch.stack([first, second], dim=-1)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    zero = squares <= 0
    lengths = torch.where(zero, 1.0, squares.sqrt())
    flat = (gram / (lengths.unsqueeze(-1) * lengths.unsqueeze(-2))).reshape(-1, tasks, tasks)
    found = _exact(flat, lengths.reshape(-1, tasks)).reshape(gram.shape[:-1])
    any_zero = zero.any(-1, keepdim=True)
    return torch.where(any_zero, zero / zero.sum(-1, keepdim=True).clamp_min(1), found)


def two_task_weight(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """The c in [0, 1] that minimises |c x + (1 - c) y|^2, from x'x, x'y and y'y of any one shape.

    c = (y - x)'y / |x - y|^2 between the ends; 1 if x'y >= x'x, 0 if x'y >= y'y (so for x = y it is 1). NaN
    where one of the three is NaN or infinite; the same whatever x and y are multiplied by.
    """
    products = torch.stack(torch.broadcast_tensors(xx, xy, yy))
    finite = products.isfinite().all(0)
    products = torch.where(finite, products, 1.0)
    scaled = _scaled(products.double(), products.double().amax(0)).unbind()
    return torch.where(finite, _two_task_weight(*scaled), torch.nan).to(products.dtype)


def _two_task_weight(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """`two_task_weight` of finite numbers, the larger of the squares about 1."""
    between = (yy - xy) / (xx - 2 * xy + yy).clamp_min(TINY)
    inner = torch.where(xy >= yy, 0.0, between.clamp(0.0, 1.0))
    return torch.where(xy >= xx, 1.0, inner)


def duality_gap(gram: Tensor, weights: Tensor) -> Tensor:
    """a'Ma - min_t (Ma)_t >= 0: [..., T, T], [..., T] -> [...]; 0 exactly at the solution.

    It bounds how far |u|^2 / 2 is above its least value (Jaggi 2013), and says by how much the common descent
    <g_t, u> >= |u|^2 is missed.
    """
    _require_square(gram)
    wide = weights.double()
    products = _times(gram.double(), wide)
    return ((wide * products).sum(-1) - products.amin(-1)).to(gram.dtype)


@_without_graph
def frank_wolfe_weights(gram: Tensor, iterations: int = 250, tolerance: float = 1e-12) -> Tensor:
    """The paper's Algorithm 2: [..., T, T] -> [..., T].

    From a = 1/T: t = argmin_r (Ma)_r, and the best point between a and e_t by the formula for two; the
    gap falls like 1/k, and where the solution lies inside of a face the iterates zigzag towards it.

    Args:
        gram: positive semidefinite.
        iterations: at most.
        tolerance: of the gap, relative to the mean of the diagonal, at which a problem is solved.
    """
    gram = _unit(gram)
    weights = torch.full_like(gram[..., 0], 1 / gram.shape[-1])
    scale = tolerance * gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    for _ in range(iterations):
        products = _times(gram, weights)
        value = (weights * products).sum(-1)
        least, task = products.min(-1)
        done = value - least <= scale
        if _all_done(done):
            break
        own = gram.diagonal(dim1=-2, dim2=-1).gather(-1, task.unsqueeze(-1)).squeeze(-1)
        kept = torch.where(done, 1.0, _two_task_weight(value, least, own)).unsqueeze(-1)
        corner = torch.zeros_like(weights).scatter_(-1, task.unsqueeze(-1), 1.0)
        weights = kept * weights + (1 - kept) * corner
    return weights


# of the authors' code: weights of two tasks stay this far from 0 and 1; the change at which it stops; steps
# that are no steps; and its MAX_ITER, which it never counted up to
CLAMP, STOP, NO_STEP, MAX_ITERATIONS = 0.001, 1e-5, 1e-7, 250
# squares from 2^-14 to 2^14 are of a size for which those are meant
KEPT = 14


@_without_graph
def projected_gradient_weights(gram: Tensor) -> Tensor:
    """What the authors' trainer does: [..., T, T] -> [..., T].

    From the best pair of tasks: a step along -Ma, made to sum to 0, up to the first face of the simplex (or
    of length 1), projected onto the simplex; then the best point between, with weights of at least 0.001 for
    both; until the weights change by less than 1e-5 in all, or 250 times.
    """
    tasks = gram.shape[-1]
    if tasks == 1:
        return torch.ones_like(gram[..., 0])
    gram = _unit(gram, KEPT)
    weights = _best_pair(gram)
    active = torch.full(gram.shape[:-2], tasks > 2, device=gram.device)
    for _ in range(MAX_ITERATIONS):
        if _all_done(~active):
            break
        further = _next_point(weights, -_times(gram, weights))
        kept = _clamped_weight(
            _form(gram, weights, weights), _form(gram, weights, further), _form(gram, further, further)
        ).unsqueeze(-1)
        moved = kept * weights + (1 - kept) * further
        active = active & ((moved - weights).abs().sum(-1) >= STOP)
        weights = torch.where(active.unsqueeze(-1), moved, weights)
    return weights


def simplex_projection(points: Tensor) -> Tensor:
    """The nearest point of the simplex {a >= 0, sum a = 1}: [..., T] -> [..., T] (Held et al. 1974).

    NaN, all of it, for a point with a coordinate that is NaN or infinite.
    """
    finite = points.isfinite().all(-1, keepdim=True)
    # the same for all coordinates changes nothing, and leaves large ones their digits
    points = torch.where(finite, points - points.amax(-1, keepdim=True), torch.nan)
    descending = points.sort(dim=-1, descending=True).values
    counts = torch.arange(1, points.shape[-1] + 1, device=points.device, dtype=points.dtype)
    thresholds = (descending.cumsum(-1) - 1) / counts
    size = (descending > thresholds).sum(-1, keepdim=True)
    return (points - thresholds.gather(-1, size.clamp_min(1) - 1)).clamp_min(0.0)


# by the name that configs use
SOLVERS: dict[str, Callable[[Tensor], Tensor]] = {
    "exact": min_norm_weights,
    "frank_wolfe": frank_wolfe_weights,
    "projected_gradient": projected_gradient_weights,
}


def _require_square(gram: Tensor) -> None:
    square = gram.ndim >= 2 and gram.shape[-1] == gram.shape[-2] and gram.shape[-1] >= 1
    if not square or not gram.is_floating_point():
        raise UserError(
            f"a Gram matrix of {str(gram.dtype).removeprefix('torch.')} {list(gram.shape)}: "
            "give floats [..., T, T] with T >= 1"
        )


def _all_done(done: Tensor) -> bool:
    """Whether all are, where asking costs nothing: on an accelerator it would wait for the device."""
    return done.device.type == "cpu" and bool(done.all())


def _times(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _form(matrix: Tensor, left: Tensor, right: Tensor) -> Tensor:
    return (left * _times(matrix, right)).sum(-1)


# ---- the exact method, in the variables y_t = a_t |g_t|: Q = correlations, d_t = 1 / |g_t|, d'y = 1


class Iterate(NamedTuple):
    """Primal y > 0, dual z > 0 and the multiplier v of the sum: z = Q y - v d, sum_t y_t z_t = 0 at the
    end."""

    y: Tensor
    z: Tensor
    v: Tensor


def _exact(correlations: Tensor, lengths: Tensor) -> Tensor:
    """Weights [n, T] from correlations [n, T, T] and norms [n, T]."""
    d = lengths.amin(-1, keepdim=True) / lengths
    pivoted, certified = _pivoted(correlations, lengths, d)
    if _all_done(certified):
        return pivoted
    point = _interior(correlations, d)
    inside = _weights_of(point.y, d)
    solved = _weights_of(_on_support(correlations, d, point.y > point.z)[0], d)
    better = _relative_gap(correlations, lengths, solved) <= _relative_gap(correlations, lengths, inside)
    sure = torch.where(better.unsqueeze(-1), solved, inside)
    return torch.where(certified.unsqueeze(-1), pivoted, sure)


def _pivoted(correlations: Tensor, lengths: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [n, T] by block pivoting, and whether their gap certifies them, [n].

    From all tasks on: solve on the support, take the tasks out whose weight is negative, and those in whose
    <g_t, u> is below |u|^2 (Kim and Park 2011). It may end without a solution, or go round in circles.
    """
    support = torch.ones_like(d, dtype=torch.bool)
    weights = torch.full_like(d, torch.nan)
    certified = torch.zeros_like(support[:, 0])
    for _ in range(PIVOTS):
        y, v = _on_support(correlations, d, support)
        weights = torch.where(certified.unsqueeze(-1), weights, _weights_of(y, d))
        gap = _relative_gap(correlations, lengths, weights)
        certified = gap <= CERTIFIED * (weights * lengths).sum(-1)
        if _all_done(certified):
            break
        support = torch.where(support, y > 0, _times(correlations, y) < v * d)
    return weights, certified


def _weights_of(y: Tensor, d: Tensor) -> Tensor:
    weights = (y * d).clamp_min(0.0)
    return weights / weights.sum(-1, keepdim=True)


def _relative_gap(correlations: Tensor, lengths: Tensor, weights: Tensor) -> Tensor:
    """max_t (|u|^2 - <g_t, u>) / |g_t|, so that small gradients count as large ones do; NaN for no
    weights."""
    y = weights * lengths
    products = _times(correlations, y)
    value = (y * products).sum(-1, keepdim=True)
    return (value / lengths - products).amax(-1)


def _interior(correlations: Tensor, d: Tensor) -> Iterate:
    """The solution to rounding, strictly inside: every y_t and z_t above 0.

    It starts at the weights that orthogonal gradients would have, where all y_t z_t are the same and
    `missed` is what z lacks of Q y - v d; every step makes up for a part of that.
    """
    tasks = d.shape[-1]
    # far below the rounding of the factorisation, which it keeps from failing where Q is singular
    matrix = correlations + 4 * tasks * EPS * torch.eye(tasks, dtype=d.dtype, device=d.device)
    y = d / (d * d).sum(-1, keepdim=True)
    products = _times(correlations, y)
    v = (y * products).sum(-1, keepdim=True)
    mu = torch.maximum(v, LEAST * y.square().sum(-1, keepdim=True)) / tasks
    point = Iterate(y, mu / y, v)
    missed = products - v * d - point.z
    for _ in range(ITERATIONS):
        mu = (point.y * point.z).mean(-1, keepdim=True)
        # |u|^2 below 1e-2 |y|^2 times rounding is rounding of the Gram matrix
        least = point.v.clamp_min(0.0) + LEAST * point.y.square().sum(-1, keepdim=True)
        active = mu > CONVERGED * least
        if _all_done(~active):
            break
        point, missed = _step(matrix, d, point, missed, mu, active)
    return point


def _step(
    matrix: Tensor, d: Tensor, point: Iterate, missed: Tensor, mu: Tensor, active: Tensor
) -> tuple[Iterate, Tensor]:
    """One iteration of Mehrotra's for all problems that are `active`; the others stay as they are.

    Newton's equations, with the product that y z is to have: dz = Q dy - dv d + missed, d'dy = 0 and
    z dy + y dz = product - y z, so (Q + diag(z / y)) dy = product / y - z - missed + dv d.
    """
    y, z, v = point
    ratio = z / y
    newton = matrix.clone()
    newton.diagonal(dim1=-2, dim2=-1).add_(ratio)
    factor, _ = torch.linalg.cholesky_ex(newton)
    both = _factor_solve(factor, torch.stack([d, -z - missed], dim=-1))
    own, free = both[..., 0], both[..., 1]
    curvature = (d * own).sum(-1, keepdim=True)

    # where to, if y z were to be 0 at once; how much of that is possible says how much to keep away from 0
    dy = torch.addcmul(free, own, -(d * free).sum(-1, keepdim=True) / curvature)
    dz = -torch.addcmul(z, ratio, dy)
    length = _length(point, dy, dz, 1.0)
    crossed = dy * dz
    reached = (1 - length) * mu + length.square() * crossed.mean(-1, keepdim=True)
    centring = (reached / mu).clamp(0.0, 1.0) ** 3
    # what is beyond the affine step is no guide to the curvature
    pull = (centring * mu - length * crossed) / y - z
    free = _factor_solve(factor, (pull - missed).unsqueeze(-1)).squeeze(-1)
    dv = -(d * free).sum(-1, keepdim=True) / curvature
    dy = torch.addcmul(free, own, dv)
    dz = torch.addcmul(pull, ratio, dy, value=-1)
    length = active * _length(point, dy, dz, (1 - centring).clamp(*TO_BOUNDARY))
    moved = Iterate(torch.addcmul(y, length, dy), torch.addcmul(z, length, dz), torch.addcmul(v, length, dv))
    return moved, (1 - length) * missed


def _factor_solve(factor: Tensor, right: Tensor) -> Tensor:
    """The x of L L'x = right; two triangular solves take a third of the time of torch.cholesky_solve."""
    half = torch.linalg.solve_triangular(factor, right, upper=False)
    return torch.linalg.solve_triangular(factor.mT, half, upper=True)


def _length(point: Iterate, dy: Tensor, dz: Tensor, fraction: Tensor | float) -> Tensor:
    """The largest step in (0, 1] that leaves y and z positive, shortened by `fraction`: [n, 1]."""
    least = torch.cat([dy / point.y, dz / point.z], dim=-1).amin(-1, keepdim=True)
    return (-fraction / least.clamp_max(-1e-300)).clamp_max(1.0)


def _on_support(correlations: Tensor, d: Tensor, support: Tensor) -> tuple[Tensor, Tensor]:
    """y [n, T] and v [n, 1] of Q y = v d and d'y = 1 on the tasks of `support`, y = 0 elsewhere."""
    tasks = d.shape[-1]
    inside = support.to(d.dtype)
    edge = d * inside
    system = correlations.new_zeros(len(d), tasks + 1, tasks + 1)
    torch.mul(correlations, inside.unsqueeze(-1) * inside.unsqueeze(-2), out=system[:, :tasks, :tasks])
    system.diagonal(dim1=-2, dim2=-1)[:, :tasks].add_(1 - inside)
    system[:, :tasks, tasks] = edge
    system[:, tasks, :tasks] = edge
    target = system.new_zeros(len(d), tasks + 1)
    target[:, tasks] = 1.0
    solution, _ = torch.linalg.solve_ex(system, target)
    return solution[:, :tasks] * inside, -solution[:, tasks:]


# ---- the authors' method


def _best_pair(matrix: Tensor) -> Tensor:
    """The weights of the pair of tasks whose clamped combination is the shortest."""
    tasks = matrix.shape[-1]
    first, second = torch.triu_indices(tasks, tasks, 1, device=matrix.device)
    xx, xy, yy = matrix[..., first, first], matrix[..., first, second], matrix[..., second, second]
    weight = _clamped_weight(xx, xy, yy)
    value = weight**2 * xx + 2 * weight * (1 - weight) * xy + (1 - weight) ** 2 * yy
    best = value.argmin(-1, keepdim=True)
    chosen = weight.gather(-1, best)
    weights = torch.zeros_like(matrix[..., 0])
    weights.scatter_(-1, first[best], chosen)
    return weights.scatter_(-1, second[best], 1 - chosen)


def _clamped_weight(xx: Tensor, xy: Tensor, yy: Tensor) -> Tensor:
    """`two_task_weight` with ends 0.001 and 0.999; between them nothing is clamped."""
    weight = _two_task_weight(xx, xy, yy)
    weight = torch.where(xy >= yy, CLAMP, weight)
    return torch.where(xy >= xx, 1 - CLAMP, weight)


def _next_point(weights: Tensor, direction: Tensor) -> Tensor:
    """Along the direction, made to sum to 0, to the first face of the simplex beyond `NO_STEP`."""
    along = direction - direction.mean(-1, keepdim=True)
    room = torch.where(along < 0, weights, 1 - weights)
    steps = room / along.abs().clamp_min(TINY)
    far = torch.where((along != 0) & (steps > NO_STEP), steps, torch.inf).amin(-1, keepdim=True)
    length = torch.where(far.isinf(), 1.0, far)
    return simplex_projection(weights + length * along)
