"""A set is measured in its own size, so that no result depends on the units of x, of f or of a row.

A point is x = centre + scale * z, coordinate by coordinate, and tolerances are about z. All factors are
powers of two, which cost no rounding. This file has what is needed for sets A x <= b: the units themselves,
the box around the set, its vertices, and the nearest point.
"""

import itertools
from dataclasses import dataclass

import numpy as np
from scipy.linalg import qr
from scipy.optimize import OptimizeResult, linprog, nnls

from common.base.errors import UserError
from papers.saddle.problems import Array

EPS = float(np.finfo(np.float64).eps)
# a solved linear system may miss a constraint by this much (in units), and its point is still of the set
ROUNDING = 1e-13
# coordinates whose extents differ by more than this have units of their own
MIXED = 1e3
# an extent below this part of its coordinate's unit is none
FLAT = 1e-13
# HiGHS's tolerances are absolute; this is the smallest that it takes
PRECISE = 1e-10
# part of a unit by which the ends found by linear programmes may be off
LINEAR_ERROR = 1e-7


def power_of_two(size: Array | float) -> Array:
    """The largest power of two that is not above each size; 1 where the size is 0."""
    size = np.abs(np.asarray(size, dtype=np.float64))
    return np.asarray(np.exp2(np.floor(np.log2(np.where(size > 0, size, 1.0)))), dtype=np.float64)


def rows_of_size_one(A: Array, b: Array) -> tuple[Array, Array]:
    """The same inequalities (or equalities), each divided by a power of two: rows of length 1 to 2."""
    size = power_of_two(_lengths(A))
    return A / size[:, None], b / size


def _lengths(A: Array) -> Array:
    """Of rows, without under- or overflow."""
    largest = power_of_two(np.abs(A).max(axis=1, initial=0.0))
    return np.asarray(np.linalg.norm(A / largest[:, None], axis=1) * largest, dtype=np.float64)


@dataclass(frozen=True)
class Units:
    """x = centre + scale * z, [d] each."""

    centre: Array
    scale: Array

    @classmethod
    def uniform(cls, dim: int, size: float) -> "Units":
        """About the origin, the power of two below `size` in each coordinate."""
        return cls(np.zeros(dim), np.full(dim, float(power_of_two(size))))

    @classmethod
    def around(cls, low: Array, high: Array, flat: Array) -> "Units":
        """Of the box from `low` to `high`.

        One unit for all coordinates unless their extents are of different orders; `flat` is the unit of a
        coordinate that has no extent. The centre is the origin unless that is far outside.
        """
        half, middle = (high - low) / 2, low + (high - low) / 2
        thin = half <= FLAT * flat
        if not thin.all() and half[~thin].max() <= MIXED * half[~thin].min():
            scale = np.full(len(low), float(power_of_two(float(half.max()))))
        else:
            scale = power_of_two(np.where(thin, flat, half))
        far = bool((np.abs(middle) > 4 * scale).any())
        return cls(middle if far else np.zeros_like(middle), scale)

    def rows(self, A: Array, b: Array) -> tuple[Array, Array]:
        """A x <= b as rows of size one about z."""
        return rows_of_size_one(A * self.scale, b - A @ self.centre)

    def inward(self, x: Array) -> Array:
        """z of x, [d] or [k, d]."""
        return (x - self.centre) / self.scale

    def outward(self, z: Array) -> Array:
        """x of z, [d] or [k, d]."""
        return self.centre + self.scale * z


def linear_programme(c: Array, A: Array, b: Array, E: Array | None = None) -> OptimizeResult:
    """min c'z over A z <= b, E z = 0 by HiGHS, as precise as it can be; all of size one."""
    right = None if E is None else np.zeros(len(E))
    return linprog(
        c,
        A,
        b,
        E,
        right,
        bounds=(None, None),
        method="highs",
        options={"primal_feasibility_tolerance": PRECISE, "dual_feasibility_tolerance": PRECISE},
    )


def bounding_box(A: Array, b: Array) -> tuple[Array, Array, Array]:
    """The box around {A x <= b}: low, high, and a unit for each coordinate, [d].

    By linear programmes in units that follow the box found: a set that is thin or small in the first units
    is seen in the next.

    Raises:
        UserError: the set is empty or unbounded.
    """
    first = _equilibrated(A, b)
    units = Units(np.zeros(A.shape[1]), first)
    for _ in range(8):
        z_low, z_high = _extremes(*units.rows(A, b))
        half, middle = np.maximum((z_high - z_low) / 2, 0.0), (z_high + z_low) / 2
        seen = (half > 1e-3) | (units.scale <= FLAT * first)
        if seen.all() and (half < 1e3).all() and (np.abs(middle) <= 4).all():
            break
        far = np.abs(middle) > np.maximum(half, LINEAR_ERROR)
        centre = np.where(far, units.outward(middle), units.centre)
        units = Units(centre, units.scale * power_of_two(np.maximum(half, 1e-5)))
    return units.outward(z_low), units.outward(z_high), np.maximum(first, units.scale)


def _equilibrated(A: Array, b: Array) -> Array:
    """A first unit of each coordinate, from [A b] alone: all terms of all rows as near to 1 as can be.

    The least squares of log|A_ij| + row_i + column_j (Curtis and Reid 1972); the last column is that of b.
    """
    m, d = A.shape
    sizes = np.abs(np.column_stack([A, b]))
    # what is rounding beside the rest of its row and of its column says nothing
    noise = (sizes <= FLAT * sizes.max(1, keepdims=True)) & (sizes <= FLAT * sizes.max(0, keepdims=True))
    i, j = np.nonzero((sizes > 0) & ~noise)
    system = np.zeros((len(i), m + d + 1))
    system[np.arange(len(i)), i] = system[np.arange(len(i)), m + j] = 1.0
    logs = np.linalg.lstsq(system, -np.log2(sizes[i, j]), rcond=None)[0][m:]
    return np.asarray(np.exp2(np.round(logs[:-1] - (logs[-1] if b.any() else 0.0))), dtype=np.float64)


def _extremes(A: Array, b: Array) -> tuple[Array, Array]:
    """The least and the largest of each coordinate."""
    d = A.shape[1]
    if linear_programme(np.zeros(d), A, b).status == 2:
        raise UserError("model=polytope: the set is empty (no x has normals x <= offsets)")
    ends = np.zeros((2, d))
    for i, (row, sign) in itertools.product(range(d), enumerate((1.0, -1.0))):
        found = linear_programme(sign * np.eye(d)[i], A, b)
        if found.status == 2:
            raise UserError("model=polytope: the set is empty (no x has normals x <= offsets)")
        if found.x is None:
            raise UserError("model=polytope: the set is unbounded (give model.half_width, or more normals)")
        ends[row, i] = found.x[i]
    return ends[0], ends[1]


def vertices(A: Array, b: Array, slack: Array) -> Array:
    """All vertices of {A z <= b}, [k, d], in units: solutions of d rows that break no other."""
    m, d = A.shape
    chosen = np.array(list(itertools.combinations(range(m), d)), dtype=int).reshape(-1, d)
    systems = A[chosen]
    sizes = np.linalg.svd(systems, compute_uv=False)
    sound = sizes[:, -1] > 1e-12 * sizes[:, 0]
    points = np.linalg.solve(systems[sound], b[chosen[sound]][:, :, None])[:, :, 0]
    inside = points[(points @ A.T - b <= slack).all(1)]
    _, first = np.unique(np.round(inside, 9), axis=0, return_index=True)
    return np.asarray(inside[np.sort(first)], dtype=np.float64)


def independent(rows: Array) -> np.ndarray:
    """The numbers of rows that span the same space as all of them and are independent."""
    if len(rows) == 0:
        return np.zeros(0, dtype=int)
    _, R, order = qr(rows.T, mode="economic", pivoting=True)
    sizes = np.abs(np.diag(R))
    return np.sort(order[: int((sizes > 1e-10 * sizes[0]).sum())])


def onto(A: Array, b: Array, y: Array) -> Array:
    """The point of {A z = b} nearest to y; rounding is that of A and b, however far y is."""
    U, sizes, V = np.linalg.svd(A)
    rank = int((sizes > 1e-11 * sizes[0]).sum())
    base = V[:rank].T @ ((U.T[:rank] @ b) / sizes[:rank])
    free = V[rank:]
    return np.asarray(base + free.T @ (free @ (y - base)), dtype=np.float64)


def nearest(A: Array, b: Array, slack: Array, y: Array) -> Array:
    """The point of {A z <= b} nearest to y, for rows of size one and a set of size one.

    By cutting planes: the nearest point of the rows met so far, by least distance programming with
    nonnegative least squares (Lawson and Hanson 1974, chapter 23), then the worst broken row is added,
    until none is broken by more than its slack.
    """
    z, met = y, np.zeros(0, dtype=int)
    for _ in range(10 * sum(A.shape)):
        broken = (A @ z - b) - slack
        worst = int(np.argmax(broken))
        if broken[worst] <= 0:
            return z
        if worst in met:
            break
        met = np.append(met, worst)
        met = met[_pressed(A[met], b[met], y)]
        z = onto(A[met], b[met], y)
    return z


def _pressed(A: Array, b: Array, y: Array) -> np.ndarray:
    """Which rows press on the nearest point of {A z <= b} to y; y breaks one at least."""
    broken = A @ y - b
    # in units of the distance, for which the last number of `rest` is of size 1
    system = np.vstack([-A.T, broken / float(broken.max())])
    goal = np.zeros(len(system))
    goal[-1] = 1.0
    weights, _ = nnls(system, goal)
    return np.asarray(weights > 0)
