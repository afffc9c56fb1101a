"""The constraint sets: membership, linear minimisation, projection, diameter, and what the QP oracles need.

All are compact and convex. `lmo(g)` gives argmin_{v in C} g'v, `project(y)` the nearest point. Tolerances are
about a set's own units (units.py), so none depends on those in which x is measured.
"""

import copy
import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar, Literal

import numpy as np

from common.base.errors import UserError
from papers.saddle.problems import SLACK, Array, symmetric
from papers.saddle.units import (
    EPS,
    LINEAR_ERROR,
    ROUNDING,
    Units,
    bounding_box,
    linear_programme,
    nearest,
    power_of_two,
    rows_of_size_one,
    vertices,
)

# a polytope with more subsets of d rows has too many vertices to list
MOST_VERTICES = 5_000
# a polyhedron with more subsets of its inequalities than this is not enumerated
MOST_FACES = 150_000


class ConstraintSet(ABC):
    """A compact convex set in R^d.

    Attributes:
        name, dim: what it is, and d.
        diameter: D, with ||x - y|| <= D on the set (an upper bound where said so).
        radius, reach: the largest norm, and the largest |x_i| of each coordinate, [d].
        matrices: E_i of x'E_i x <= 1, [m, d, d], else None.
        vertices: [k, d], where there are few, else None.
        units: in which the set is of size one.

    Args:
        shape: (d,).
        classes: None.
    """

    task: ClassVar[Literal["constraint"]] = "constraint"
    features: ClassVar[tuple[str, ...]] = ()
    name: str

    diameter: float
    radius: float
    reach: Array
    matrices: Array | None = None
    vertices: Array | None = None
    units: Units

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        if classes is not None or len(shape) != 1:
            raise UserError(f"model={self.name}: a constraint set has no classes; valid: dataset=b1, ..., b7")
        self.dim = shape[0]

    @abstractmethod
    def excess(self, x: Array) -> float:
        """By how much x [d] breaks the worst constraint; <= 0 inside."""

    @abstractmethod
    def lmo(self, g: Array) -> Array:
        """argmin_{v in C} g'v, [d]."""

    @abstractmethod
    def project(self, y: Array) -> Array:
        """The nearest point of the set, [d]."""

    @abstractmethod
    def contains(self, x: Array) -> bool:
        """Whether x is in the set, within `SLACK` of its size."""

    @abstractmethod
    def in_units(self) -> "ConstraintSet":
        """The set of z = (x - centre) / scale, of size one."""

    def along(self, g: Array) -> Array:
        """The part of a normal g [d], in units, in the set's affine hull: all, where it has an inside."""
        return g

    @abstractmethod
    def longest(self, x: Array, p: Array) -> float:
        """The largest t with x + t p in the set, for x in it and p [d] not zero."""


class Ball(ConstraintSet):
    """||x|| <= R, of diameter 2 R.

    Args:
        radius: R > 0.

    Raises:
        UserError: R <= 0: the set is empty or a point.
    """

    name = "ball"

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, radius: float) -> None:
        super().__init__(shape=shape, classes=classes)
        _positive("radius", radius)
        self.radius, self.diameter = float(radius), 2.0 * radius
        self.reach = np.full(self.dim, self.radius)
        self.units = Units.uniform(self.dim, self.radius)

    def in_units(self) -> "Ball":
        return Ball(shape=(self.dim,), classes=None, radius=self.radius / float(self.units.scale[0]))

    def contains(self, x: Array) -> bool:
        return self.excess(x) <= SLACK * self.radius

    def excess(self, x: Array) -> float:
        return float(np.linalg.norm(x)) - self.radius

    def lmo(self, g: Array) -> Array:
        norm = float(np.linalg.norm(g))
        return g * (-self.radius / norm) if norm > 0 else np.zeros_like(g)

    def project(self, y: Array) -> Array:
        norm = float(np.linalg.norm(y))
        return y * (self.radius / norm) if norm > self.radius else y

    def longest(self, x: Array, p: Array) -> float:
        return _quadratic_longest(float(p @ p), float(x @ p), float(x @ x) - self.radius**2)


class Ellipsoids(ConstraintSet):
    """x'E_i x <= 1 for i = 1, ..., m, with a common centre 0.

    Without `matrices`, E_i = Q_i diag(s) Q_i' / radius^2 with random rotations and s log-spaced from
    1 / condition to 1: the ball of that radius is inside all of them. D and the radius are upper bounds: the
    intersection is inside each ellipsoid and inside the one of their mean matrix.

    Args:
        radius: see above, > 0.
        count: m >= 1.
        condition: of each E_i, >= 1.
        design_seed: of the rotations.
        matrices: the E_i themselves as rows, in place of random ones; null for these.

    Raises:
        UserError: a value out of range; a matrix that is not symmetric, or not of dim rows; an unbounded set.
    """

    name = "ellipsoids"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        radius: float,
        count: int,
        condition: float,
        design_seed: int,
        matrices: list[list[list[float]]] | None,
    ) -> None:
        super().__init__(shape=shape, classes=classes)
        _positive("radius", radius)
        if matrices is None:
            self.matrices = self._random(radius, count, condition, design_seed)
        else:
            given = [symmetric(matrix, f"model.matrices[{i}]") for i, matrix in enumerate(matrices)]
            if not given or any(len(matrix) != self.dim for matrix in given):
                raise UserError(f"model.matrices: give one or more matrices of {self.dim} rows")
            self.matrices = np.stack(given)
        self._check()
        self.forms: Array = self.matrices
        mixed = [*self.matrices, self.matrices.mean(0)]
        inverses = [_inverse(E) for E in mixed if _definite(E)]
        self.radius = min(float(np.linalg.eigvalsh(inverse)[-1]) ** 0.5 for inverse in inverses)
        self.diameter = 2 * self.radius
        self.reach = np.min([np.sqrt(np.diag(inverse)) for inverse in inverses], axis=0)
        self.units = Units.around(-self.reach, self.reach, self.reach)
        self.roots = np.stack([_root(E) for E in self.matrices])
        self._multipliers: dict[str, Array] = {}

    def in_units(self) -> "Ellipsoids":
        scaled = self.forms * np.outer(self.units.scale, self.units.scale)
        return Ellipsoids(
            shape=(self.dim,),
            classes=None,
            radius=1.0,
            count=len(scaled),
            condition=1.0,
            design_seed=0,
            matrices=scaled.tolist(),
        )

    def contains(self, x: Array) -> bool:
        return self.excess(x) <= SLACK

    def _random(self, radius: float, count: int, condition: float, seed: int) -> Array:
        if count < 1 or not condition >= 1:
            raise UserError(f"model.count={count}, model.condition={condition}; valid: both at least 1")
        random = np.random.default_rng(seed)
        spectrum = np.logspace(-math.log10(condition), 0, self.dim) / radius**2
        turns = [np.linalg.qr(random.standard_normal((self.dim, self.dim)))[0] for _ in range(count)]
        made = np.stack([(Q * spectrum) @ Q.T for Q in turns])
        return (made + made.transpose(0, 2, 1)) / 2

    def _check(self) -> None:
        assert self.matrices is not None
        for i, E in enumerate(self.matrices):
            values = np.linalg.eigvalsh(_unit_diagonal(E)[0])
            if values[0] < -1e-12 * max(values[-1], -values[0]):
                lowest = float(np.linalg.eigvalsh(E)[0])
                raise UserError(
                    f"model.matrices[{i}] has the eigenvalue {lowest:.3g}: x'Ex <= 1 is not convex"
                )
        if not _definite(self.matrices.mean(0)):
            raise UserError("model.matrices: the set is unbounded (their sum is singular)")

    def excess(self, x: Array) -> float:
        return float(np.sqrt(((self.forms @ x) @ x).max())) - 1.0

    def lmo(self, g: Array) -> Array:
        """By the dual, min over lambda >= 0 of g'(sum lambda_i E_i)^-1 g / 4 + sum lambda_i."""
        if not g.any():
            return np.zeros_like(g)
        # in units, and with a unit gradient: multipliers of one size
        scale = self.units.scale
        along = g * scale / float(power_of_two(np.abs(g * scale).max()))
        unit = along / np.linalg.norm(along)
        y = self._dual("lmo", unit / 2, np.zeros((self.dim, self.dim)), self.forms * np.outer(scale, scale))
        v = -y * scale
        return v / max(1.0, 1.0 + self.excess(v)) if v.any() else v

    def project(self, y: Array) -> Array:
        """By the dual, min over lambda >= 0 of y'(I + sum lambda_i E_i)^-1 y + sum lambda_i."""
        if self.excess(y) <= 0:
            return y
        # one unit for all coordinates, as distance is measured in one
        size = float(power_of_two(self.radius))
        z = size * self._dual("project", y / size, np.eye(self.dim), self.forms * size**2)
        return z / max(1.0, 1.0 + self.excess(z))

    def _dual(self, what: str, c: Array, base: Array, forms: Array) -> Array:
        """(base + sum lambda_i E_i)^-1 c at the lambda >= 0 that minimises c'(.)^-1 c + sum lambda.

        A projected Newton method (Bertsekas), from the multipliers of the last call; forms: E_i in units.
        """
        m = len(forms)
        weights = self._multipliers.get(what, np.full(m, 1.0 / m))

        def at(w: Array) -> tuple[float, Array]:
            try:
                y = np.linalg.solve(base + np.einsum("i,ijk->jk", w, forms), c)
            except np.linalg.LinAlgError:
                return math.inf, c
            value = float(c @ y + w.sum())
            return (value if value >= 0 else math.inf), y

        value, y = at(weights)
        if not math.isfinite(value):
            weights = np.full(m, 1.0 / m)
            value, y = at(weights)
        for _ in range(100):
            Ey = forms @ y
            slope = 1.0 - Ey @ y
            free = ~((weights <= 1e-14) & (slope > 0))
            if float(np.abs(slope[free]).max(initial=0.0)) <= 1e-13:
                break
            K = base + np.einsum("i,ijk->jk", weights, forms)
            curved = 2 * Ey @ np.linalg.solve(K, Ey.T)
            step = np.zeros(m)
            inner = curved[np.ix_(free, free)]
            inner = inner + 1e-14 * np.trace(inner) * np.eye(len(inner))
            step[free] = -np.linalg.solve(inner, slope[free])
            t, moved = 1.0, False
            while t > 1e-10:
                tried = np.maximum(weights + t * step, 0.0)
                new, point = at(tried)
                if new < value or (new == value and t == 1.0 and not np.array_equal(tried, weights)):
                    moved = new < value
                    weights, value, y = tried, new, point
                    break
                t /= 2
            if not moved:
                break
        self._multipliers[what] = weights
        return y

    def longest(self, x: Array, p: Array) -> float:
        Ex, Ep = self.forms @ x, self.forms @ p
        terms = zip(Ep @ p, Ep @ x, Ex @ x - 1, strict=True)
        return min(_quadratic_longest(a, b, c) for a, b, c in terms)


class Polyhedron(ConstraintSet):
    """A x <= b and, for some, one equality a'x = c; bounded and not empty.

    Attributes:
        A, b: [m, d], [m]; no row is zero.
        equality: (a, c), or None.
        low, high: of a box around the set, [d].
        normals: orthonormal rows, [k, d], of what is constant on the set, in units.
    """

    A: Array
    b: Array
    equality: tuple[Array, float] | None = None
    low: Array
    high: Array
    normals: Array

    def in_units(self) -> "Polyhedron":
        made = copy.copy(self)
        units = self.units
        made.A, made.b = units.rows(self.A, self.b)
        if self.equality is not None:
            row, right = units.rows(self.equality[0][None], np.array([self.equality[1]]))
            made.equality = (row[0], float(right[0]))
        made.low, made.high = units.inward(self.low), units.inward(self.high)
        # with the centre, beside which a move is rounded
        made.reach = self.reach / units.scale
        made.vertices = None if self.vertices is None else units.inward(self.vertices)
        made.radius = float(np.linalg.norm(np.maximum(np.abs(made.low), np.abs(made.high))))
        made.diameter = float(np.linalg.norm(made.high - made.low))
        made.units = Units.uniform(self.dim, 1.0)
        return made

    def room(self, rows: Array, tolerance: float) -> Array:
        """By how much x may break each row [m, d]: a part of its extent over the set, and rounding."""
        return np.asarray(np.abs(rows) @ (tolerance * self.units.scale + 8 * EPS * self.reach), np.float64)

    def excess(self, x: Array) -> float:
        """As a distance."""
        worst = float(((self.A @ x - self.b) / np.linalg.norm(self.A, axis=1)).max())
        if self.equality is not None:
            a, c = self.equality
            worst = max(worst, abs(float(a @ x) - c) / float(np.linalg.norm(a)))
        return worst

    def contains(self, x: Array) -> bool:
        if not bool((self.A @ x - self.b <= self.room(self.A, SLACK)).all()):
            return False
        if self.equality is None:
            return True
        a, c = self.equality
        return bool(abs(float(a @ x) - c) <= self.room(a[None], SLACK)[0])

    def along(self, g: Array) -> Array:
        return np.asarray(g - self.normals.T @ (self.normals @ g), dtype=np.float64)

    def longest(self, x: Array, p: Array) -> float:
        rise = self.A @ p
        # along a face a row rises by rounding alone
        up = rise > 8 * EPS * (np.abs(self.A) @ np.abs(p))
        gaps = np.maximum(self.b - self.A @ x, 0.0)
        return float((gaps[up] / rise[up]).min(initial=math.inf))

    @property
    @abstractmethod
    def face_count(self) -> float:
        """How many sets of active inequalities there are to try."""

    @abstractmethod
    def active_sets(self) -> Iterator[np.ndarray]:
        """All sets of inequalities that may be active together, [k, size] of row numbers, size by size."""


class Box(Polyhedron):
    """[-w, w]^d, of diameter 2 w sqrt d.

    Args:
        half_width: w > 0.

    Raises:
        UserError: w <= 0.
    """

    name = "box"

    def __init__(self, *, shape: tuple[int, ...], classes: int | None, half_width: float) -> None:
        super().__init__(shape=shape, classes=classes)
        _positive("half_width", half_width)
        self.w, d = float(half_width), self.dim
        self.A, self.b = np.vstack([np.eye(d), -np.eye(d)]), np.full(2 * d, self.w)
        self.diameter, self.radius = 2 * self.w * d**0.5, self.w * d**0.5
        self.reach = np.full(d, self.w)
        self.low, self.high, self.normals = -self.reach, self.reach, np.zeros((0, d))
        self.units = Units.uniform(d, self.w)
        if d <= 12:
            self.vertices = self.w * np.array(list(itertools.product([-1.0, 1.0], repeat=d)))

    def in_units(self) -> "Box":
        return Box(shape=(self.dim,), classes=None, half_width=self.w / float(self.units.scale[0]))

    def lmo(self, g: Array) -> Array:
        return -self.w * np.sign(g)

    def project(self, y: Array) -> Array:
        return np.clip(y, -self.w, self.w)

    @property
    def face_count(self) -> float:
        return 3.0**self.dim

    def active_sets(self) -> Iterator[np.ndarray]:
        for size in range(self.dim + 1):
            chosen = _subsets(self.dim, size)
            signs = np.array(list(itertools.product([0, self.dim], repeat=size)), dtype=int)
            yield (chosen[:, None, :] + signs[None]).reshape(len(chosen) * len(signs), size)


class Simplex(Polyhedron):
    """x >= 0, sum x = 1; of diameter sqrt 2."""

    name = "simplex"

    def __init__(self, *, shape: tuple[int, ...], classes: int | None) -> None:
        super().__init__(shape=shape, classes=classes)
        if self.dim < 2:
            raise UserError(f"model=simplex in {self.dim} dimension: a point; valid: at least 2")
        self.A, self.b = -np.eye(self.dim), np.zeros(self.dim)
        self.equality = (np.ones(self.dim), 1.0)
        self.diameter, self.radius, self.reach = 2**0.5, 1.0, np.ones(self.dim)
        self.vertices = np.eye(self.dim)
        self.low, self.high = np.zeros(self.dim), np.ones(self.dim)
        self.normals = np.full((1, self.dim), self.dim**-0.5)
        self.units = Units.uniform(self.dim, 1.0)

    def in_units(self) -> "Simplex":
        """It is of size one as it is."""
        return self

    def lmo(self, g: Array) -> Array:
        v = np.zeros_like(g)
        v[int(np.argmin(g))] = 1.0
        return v

    def project(self, y: Array) -> Array:
        """By the sorted sums (Held, Wolfe and Crowder 1974)."""
        # a shift of all coordinates changes nothing: with 0 the largest, the 1 is not rounded away
        y = y - y.max()
        u = np.sort(y)[::-1]
        sums = (np.cumsum(u) - 1) / np.arange(1, len(y) + 1)
        shift = sums[int(np.nonzero(u > sums)[0][-1])]
        return np.maximum(y - shift, 0.0)

    @property
    def face_count(self) -> float:
        return 2.0**self.dim

    def active_sets(self) -> Iterator[np.ndarray]:
        for size in range(self.dim):
            yield _subsets(self.dim, size)


class Polytope(Polyhedron):
    """normals_i'x <= offsets_i, in the box [-w, w]^d.

    D is that of the vertices, or where these are many the diagonal of the box around the set.

    Args:
        half_width: w > 0, or null for no box.
        normals: rows; null for the one row (1, ..., 1).
        offsets: one number a row.

    Raises:
        UserError: wrong sizes; numbers that are not finite; an empty or unbounded set, or a single point.
    """

    name = "polytope"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        half_width: float | None,
        normals: list[list[float]] | None,
        offsets: list[float],
    ) -> None:
        super().__init__(shape=shape, classes=classes)
        d = self.dim
        rows = (
            np.ones((1, d))
            if normals is None
            else np.array(normals, dtype=np.float64).reshape(len(normals), -1 if normals else d)
        )
        if rows.shape != (len(offsets), d):
            raise UserError(
                f"model.normals of {rows.shape[0]} x {rows.shape[1]} with {len(offsets)} offsets; "
                f"valid: a row of {d} numbers for each offset"
            )
        self.A, self.b = _not_zero(rows, np.array(offsets, dtype=np.float64))
        if half_width is not None:
            _positive("half_width", half_width)
            self.A = np.vstack([self.A, np.eye(d), -np.eye(d)])
            self.b = np.concatenate([self.b, np.full(2 * d, float(half_width))])
        if len(self.A) == 0:
            raise UserError("model=polytope: the set is unbounded (give model.half_width, or more normals)")
        self.low, self.high, flat = bounding_box(self.A, self.b)
        self.units = Units.around(self.low, self.high, flat)
        self.reach = np.maximum(np.abs(self.low), np.abs(self.high))
        self._corners()
        # a set whose extent is rounding beside its place is a point
        size = np.abs(self.high - self.low)
        if (size <= SLACK * self.units.scale + 64 * EPS * self.reach).all():
            raise UserError("model=polytope: the set is a single point, of diameter 0")
        self.reach = np.maximum(np.abs(self.low), np.abs(self.high))

    def _corners(self) -> None:
        """Vertices where they are few, and what follows from them: ends, diameter, affine hull."""
        d, self.normals = self.dim, np.zeros((0, self.dim))
        if math.comb(len(self.A), d) > MOST_VERTICES:
            # the ends are those of linear programmes, and bounds must hold
            spare = LINEAR_ERROR * self.units.scale
            self.low, self.high = self.low - spare, self.high + spare
            self.reach = np.maximum(np.abs(self.low), np.abs(self.high))
            self.vertices = None
            self.radius = float(np.linalg.norm(self.reach))
            self.diameter = float(np.linalg.norm(self.high - self.low))
            return
        A, b = self.units.rows(self.A, self.b)
        slack = np.abs(A) @ (SLACK + 8 * EPS * self.reach / self.units.scale)
        corners = vertices(A, b, slack)
        if len(corners) == 0:
            raise UserError("model=polytope: the set is empty (no x has normals x <= offsets)")
        _, sizes, V = np.linalg.svd(corners - corners.mean(0))
        self.normals = V[int((sizes > SLACK * len(corners)).sum()) :]
        self.vertices = self.units.outward(corners)
        self.low, self.high = self.vertices.min(0), self.vertices.max(0)
        differences = self.vertices[:, None] - self.vertices[None]
        self.radius = float(np.linalg.norm(self.vertices, axis=1).max())
        self.diameter = float(np.linalg.norm(differences, axis=2).max())

    def lmo(self, g: Array) -> Array:
        if self.vertices is not None:
            return self.vertices[int(np.argmin(self.vertices @ g))].copy()
        goal = g * self.units.scale
        goal = goal / float(power_of_two(np.abs(goal).max()))
        found = linear_programme(goal, *self.units.rows(self.A, self.b))
        if found.x is None:
            raise UserError(f"model=polytope: the linear programme failed ({found.message})")
        # the solver breaks constraints by its own tolerance
        return self.project(self.units.outward(np.asarray(found.x, dtype=np.float64)))

    def project(self, y: Array) -> Array:
        """By cutting planes and nonnegative least squares (`units.nearest`)."""
        if float((self.A @ y - self.b).max()) <= 0:
            return y
        # one unit for all coordinates, as distance is measured in one
        size = float(self.units.scale.max())
        A, b = rows_of_size_one(self.A * size, self.b - self.A @ self.units.centre)
        slack = np.abs(A) @ (ROUNDING * self.units.scale + 8 * EPS * self.reach) / size
        return self.units.centre + size * nearest(A, b, slack, (y - self.units.centre) / size)

    @property
    def face_count(self) -> float:
        m, d = self.A.shape
        return float(sum(math.comb(m, size) for size in range(min(m, d) + 1)))

    def active_sets(self) -> Iterator[np.ndarray]:
        m, d = self.A.shape
        for size in range(min(m, d) + 1):
            yield _subsets(m, size)


def _subsets(n: int, size: int) -> np.ndarray:
    """All subsets of 0, ..., n - 1 of one size, [k, size]."""
    chosen = list(itertools.combinations(range(n), size))
    return np.array(chosen, dtype=int).reshape(len(chosen), size)


def _positive(key: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise UserError(f"model.{key}={value}: the set is empty, a point or unbounded; valid: a number > 0")


def _not_zero(rows: Array, offsets: Array) -> tuple[Array, Array]:
    """Without the rows 0'x <= offset, which say nothing.

    Raises:
        UserError: such a row with an offset below 0; numbers that are not finite.
    """
    if not (np.isfinite(rows).all() and np.isfinite(offsets).all()):
        raise UserError("model.normals and model.offsets; valid: finite numbers")
    zero = ~rows.any(axis=1)
    if (offsets[zero] < 0).any():
        raise UserError("model=polytope: the set is empty (a row of zeros has an offset below 0)")
    return rows[~zero], offsets[~zero]


def _unit_diagonal(E: Array) -> tuple[Array, Array]:
    """E in units of its coordinates in which its diagonal is of size 1, and these units, [d]."""
    diagonal = np.diag(E)
    scale = power_of_two(np.sqrt(np.abs(diagonal)))
    return E / np.outer(scale, scale), scale


def _definite(E: Array) -> bool:
    values = np.linalg.eigvalsh(_unit_diagonal(E)[0])
    return bool(values[0] > 1e-12 * values[-1])


def _inverse(E: Array) -> Array:
    scaled, scale = _unit_diagonal(E)
    inverse = np.linalg.inv(scaled) / np.outer(scale, scale)
    return np.asarray((inverse + inverse.T) / 2, dtype=np.float64)


def _root(E: Array) -> Array:
    """The symmetric square root of a semidefinite matrix."""
    values, vectors = np.linalg.eigh(E)
    return (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T


def _quadratic_longest(a: float, b: float, c: float) -> float:
    """The largest root t of a t^2 + 2 b t + c, for c <= 0 <= a; infinite where a = 0."""
    if a <= 0:
        return math.inf
    c = min(float(c), 0.0)
    root = math.sqrt(max(float(b) ** 2 - float(a) * c, 0.0))
    return float((-b + root) / a) if b <= 0 else float(-c / (b + root))
