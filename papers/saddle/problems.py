"""Smooth functions with saddles, to be minimised over a compact convex set: B1 to B7 with their constants.

A problem knows f, its gradient and Hessian, Lipschitz constants of both over a whole set (bounds that hold on
all of it), its saddle, and the least value where that is known. All numbers are float64.
"""

import itertools
from abc import abstractmethod
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from common.base.dataset import check
from common.base.errors import UserError
from common.base.generated import Function

Array = NDArray[np.float64]
# how far outside a set a point may lie and still count as of it, as a part of the set's size
SLACK = 1e-9


class Region(Protocol):
    """What a problem asks of the set that it is minimised over.

    Attributes:
        name: ball, ellipsoids, box, simplex or polytope.
        radius: the largest norm of a point.
        reach: the largest |x_i| of each coordinate, [d].
        matrices: E_i of x'E_i x <= 1, [m, d, d], where the set is made of such.
        vertices: [k, d], where the set has few of them.
    """

    name: str
    radius: float
    reach: Array
    matrices: Array | None
    vertices: Array | None

    def contains(self, x: Array) -> bool: ...


def symmetric(matrix: Any, what: str) -> Array:
    """A square symmetric matrix as float64.

    Raises:
        UserError: it is not square, not finite or not symmetric; `what` names it.
    """
    array = np.asarray(matrix, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise UserError(f"{what} has shape {array.shape}; valid: a square matrix")
    if not np.isfinite(array).all():
        raise UserError(f"{what} has entries that are not finite")
    gap = float(np.abs(array - array.T).max(initial=0.0))
    if gap > 1e-10 * float(np.abs(array).max(initial=0.0)):
        raise UserError(f"{what} is not symmetric (an entry and its mirror differ by {gap:.3g})")
    return (array + array.T) / 2


class SaddleProblem(Function):
    """A function to minimise over a set; there are no examples.

    Attributes:
        shape: (d,).
        radius: the size of the set that belongs to it: a ball's radius, half a box's width.
        saddle: the saddle point that it is about, [d].
        minimisers: where f has its least value over all of R^d, [k, d]; empty where there is none.
        SETS: the sets over which it makes sense, its own first.

    Args:
        kind: must be `saddle_problem`.
        radius: see above, > 0.
        dim: d.

    Raises:
        UserError: a value out of range.
    """

    KIND: ClassVar = "saddle_problem"
    SETS: ClassVar[tuple[str, ...]]

    saddle: Array
    minimisers: Array

    def __init__(self, *, kind: str, radius: float, dim: int) -> None:
        super().__init__()
        check("kind", kind, kind == self.KIND, f"{self.NAME} is of kind {self.KIND}")
        check("radius", radius, radius > 0, "give a number > 0")
        self.radius, self.dim = float(radius), dim
        self.shape, self.classes, self.batch_size, self.normalise = (dim,), None, 1, "none"
        self.saddle, self.minimisers = np.zeros(dim), np.zeros((0, dim))

    @abstractmethod
    def value(self, x: Array) -> float:
        """f at x [d]."""

    @abstractmethod
    def gradient(self, x: Array) -> Array:
        """[d]."""

    @abstractmethod
    def hessian(self, x: Array) -> Array:
        """[d, d], symmetric."""

    @abstractmethod
    def lipschitz(self, region: Region) -> tuple[float, float]:
        """L of the gradient and M of the Hessian over the whole set."""

    def start(self) -> Array:
        """Where methods begin: the saddle."""
        return self.saddle.copy()

    def starts(self, region: Region) -> dict[str, Array]:
        """Other starts that have a name."""
        return {}

    def minimum(self, region: Region) -> float | None:
        """The least value over the set, where it is known."""
        inside = [self.value(x) for x in self.minimisers if region.contains(x)]
        return min(inside) if inside else None


class QuarticWell(SaddleProblem):
    """B1: f = x1^2/2 - x2^2/2 + x2^4/4, saddle 0, minima (0, +-1) with f = -1/4.

    Hess f = diag(1, 3 x2^2 - 1): L = max(1, 3 b^2 - 1) and M = 6 b with b the largest |x2| of the set, so
    L = 11, M = 12 (and D = 4) on the ball of radius 2.
    """

    NAME: ClassVar = "b1"
    SETS: ClassVar = ("ball", "box", "ellipsoids", "polytope")

    def __init__(self, *, kind: str, radius: float) -> None:
        super().__init__(kind=kind, radius=radius, dim=2)
        self.minimisers = np.array([[0.0, 1.0], [0.0, -1.0]])

    def value(self, x: Array) -> float:
        return float(x[0] ** 2 / 2 - x[1] ** 2 / 2 + x[1] ** 4 / 4)

    def gradient(self, x: Array) -> Array:
        return np.array([x[0], x[1] ** 3 - x[1]])

    def hessian(self, x: Array) -> Array:
        return np.diag([1.0, 3 * x[1] ** 2 - 1])

    def lipschitz(self, region: Region) -> tuple[float, float]:
        b = float(region.reach[1])
        return max(1.0, 3 * b**2 - 1), 6 * b


class Quadratic(SaddleProblem):
    """f = x'Hx / 2 with a symmetric H: L = max |eigenvalue|, M = 0.

    Subclasses set H. Minima over a ball (lambda_min R^2 / 2), over one ellipsoid, and over the vertices of
    a set on which f is concave along all edges are known.
    """

    H: Array

    def value(self, x: Array) -> float:
        return float(x @ self.H @ x / 2)

    def gradient(self, x: Array) -> Array:
        return self.H @ x

    def hessian(self, x: Array) -> Array:
        return self.H

    def lipschitz(self, region: Region) -> tuple[float, float]:
        return float(np.abs(np.linalg.eigvalsh(self.H)).max()), 0.0

    def minimum(self, region: Region) -> float | None:
        if region.name == "ball":
            return min(0.0, float(np.linalg.eigvalsh(self.H)[0]) * region.radius**2 / 2)
        if region.matrices is not None and len(region.matrices) == 1:
            root = np.linalg.cholesky(np.linalg.inv(region.matrices[0]))
            return min(0.0, float(np.linalg.eigvalsh(root.T @ self.H @ root)[0]) / 2)
        if region.name == "box" and region.vertices is not None and (np.diag(self.H) <= 0).all():
            # along each axis f is concave: least at a vertex
            return float(np.einsum("vi,ij,vj->v", region.vertices, self.H, region.vertices).min() / 2)
        return None

    def starts(self, region: Region) -> dict[str, Array]:
        """ "blind_spot": the second eigenvector at the ball's boundary, where the definition sees nothing."""
        if region.name != "ball" or self.dim < 2:
            return {}
        return {"blind_spot": region.radius * np.linalg.eigh(self.H)[1][:, 1]}


class IndefiniteQuadratic(Quadratic):
    """B2: f = x'Ax / 2 with k negative eigenvalues; 0 is a saddle, the minima are on the boundary.

    A = Q diag(-1, ..., -k; 1, ..., d - k) Q' / max(k, d - k) with a random rotation Q, so that lambda_min =
    -k / max(k, d - k); over the ball min f = lambda_min R^2 / 2.

    Args:
        kind, radius: as in `SaddleProblem`.
        dim: d >= 2.
        negative: k, 1 <= k <= d.
        design_seed: of the rotation.
        A: the matrix itself, as rows, in place of the random one; null for that.

    Raises:
        UserError: a value out of range; A that is not symmetric or not of `dim` rows.
    """

    NAME: ClassVar = "b2"
    SETS: ClassVar = ("ball", "ellipsoids", "box", "polytope")

    def __init__(
        self,
        *,
        kind: str,
        radius: float,
        dim: int,
        negative: int,
        design_seed: int,
        A: list[list[float]] | None,
    ) -> None:
        check("dim", dim, dim >= 2, "give at least 2")
        check("negative", negative, 1 <= negative <= dim, f"give 1 to dim={dim}")
        super().__init__(kind=kind, radius=radius, dim=dim)
        if A is not None:
            self.H = symmetric(A, "dataset.A")
            check("A", f"{len(self.H)} rows", len(self.H) == dim, f"give dim={dim} rows")
            return
        spectrum = np.concatenate([-np.arange(negative, 0, -1.0), np.arange(1.0, dim - negative + 1)])
        rotation, _ = np.linalg.qr(np.random.default_rng(design_seed).standard_normal((dim, dim)))
        H = (rotation * (spectrum / np.abs(spectrum).max())) @ rotation.T
        self.H = (H + H.T) / 2


class CoupledBox(Quadratic):
    """B3: f = x'Hx / 2 with H = C - I/2, C symmetric with zero diagonal and norm 1; minima at vertices.

    f = -||x||^2 / 4 + x'Cx / 2 is strictly concave along every axis, so over a box every local minimum is
    a vertex, and the least value is that of the best of 2^d; 0 is a saddle.

    Args:
        kind, radius: as in `SaddleProblem`.
        dim: 2 <= d <= 20.
        design_seed: of C.
    """

    NAME: ClassVar = "b3"
    SETS: ClassVar = ("box", "ball", "ellipsoids", "polytope")

    def __init__(self, *, kind: str, radius: float, dim: int, design_seed: int) -> None:
        check("dim", dim, 2 <= dim <= 20, "give 2 to 20")
        super().__init__(kind=kind, radius=radius, dim=dim)
        C = np.random.default_rng(design_seed).standard_normal((dim, dim))
        C = C + C.T
        np.fill_diagonal(C, 0.0)
        self.H = C / np.abs(np.linalg.eigvalsh(C)).max() - np.eye(dim) / 2


class MatrixFactorisation(SaddleProblem):
    """B4: f(U) = ||UU' - Y||_F^2 / 4 with Y = U*U*', U [n, r]: 0 is a strict saddle, all local minima global.

    x = U row by row, d = n r. grad = (UU' - Y)U; the Hessian takes V to (UU' - Y)V + (UV' + VU')U. Over
    ||U||_F <= R: L = max(3 R^2, ||Y||), M = 6 R. The spectrum of Y is r, ..., 1 scaled so that ||U*||_F =
    radius / 2: the minima f = 0 are inside the ball.

    Args:
        kind, radius: as in `SaddleProblem`.
        rows, rank: n and r, 1 <= r <= n.
        design_seed: of Y.
    """

    NAME: ClassVar = "b4"
    SETS: ClassVar = ("ball", "box")

    def __init__(self, *, kind: str, radius: float, rows: int, rank: int, design_seed: int) -> None:
        check("rank", rank, 1 <= rank <= rows, f"give 1 to rows={rows}")
        super().__init__(kind=kind, radius=radius, dim=rows * rank)
        basis, _ = np.linalg.qr(np.random.default_rng(design_seed).standard_normal((rows, rank)))
        spectrum = np.arange(rank, 0, -1.0)
        spectrum *= radius**2 / 4 / spectrum.sum()
        U = basis * np.sqrt(spectrum)
        self.size_of_U = (rows, rank)
        self.Y = U @ U.T
        self.minimisers = U.reshape(1, -1)

    def _matrix(self, x: Array) -> Array:
        return x.reshape(self.size_of_U)

    def value(self, x: Array) -> float:
        U = self._matrix(x)
        return float(np.square(U @ U.T - self.Y).sum() / 4)

    def gradient(self, x: Array) -> Array:
        U = self._matrix(x)
        return ((U @ U.T - self.Y) @ U).ravel()

    def hessian(self, x: Array) -> Array:
        U = self._matrix(x)
        n, r = U.shape
        # rows (i, a), columns (j, b): S_ij [a=b] + [i=j] (U'U)_ab + U_ib U_ja
        first = np.kron(U @ U.T - self.Y, np.eye(r))
        second = np.kron(np.eye(n), U.T @ U)
        third = np.einsum("ib,ja->iajb", U, U).reshape(n * r, n * r)
        H = first + second + third
        return (H + H.T) / 2

    def lipschitz(self, region: Region) -> tuple[float, float]:
        R = region.radius
        return max(3 * R**2, float(np.linalg.norm(self.Y, 2))), 6 * R


class QuarticForms(SaddleProblem):
    """B5: tensor PCA, f = -sum_k (a_k'x)^4, or phase retrieval, f = mean_i ((a_i'x)^2 - y_i)^2 / 4.

    Tensor PCA: a_1, ..., a_d orthonormal, so over the ball min f = -R^4 at the +-R a_k; L = 12 R^2 and
    M = 24 R. The start, halfway to R (a_1 + a_2) / sqrt 2, is on the line on which first-order methods run
    into that point, a saddle of f on the sphere. The point lies on the curved boundary with a gradient
    straight outwards, so the second-order condition over the ball does not see it (the blind spot).
    Phase retrieval: a_i standard normal, y_i = (a_i'x*)^2, ||x*|| = R / 2; 0 is a maximum, f = 0 at +-x*.

    Args:
        kind, radius: as in `SaddleProblem`.
        dim: d >= 2.
        form: tensor_pca or phase_retrieval.
        samples: of phase retrieval.
        design_seed: of the a_k.
    """

    NAME: ClassVar = "b5"
    SETS: ClassVar = ("ball", "box")

    def __init__(
        self,
        *,
        kind: str,
        radius: float,
        dim: int,
        form: Literal["tensor_pca", "phase_retrieval"],
        samples: int,
        design_seed: int,
    ) -> None:
        check("dim", dim, dim >= 2, "give at least 2")
        check("samples", samples, samples >= 1, "give at least 1")
        super().__init__(kind=kind, radius=radius, dim=dim)
        random = np.random.default_rng(design_seed)
        self.form = form
        if form == "tensor_pca":
            self.rows = np.linalg.qr(random.standard_normal((dim, dim)))[0].T
            self.saddle = radius * (self.rows[0] + self.rows[1]) / 2**0.5
        else:
            self.rows = random.standard_normal((samples, dim))
            truth = random.standard_normal(dim)
            truth *= radius / 2 / np.linalg.norm(truth)
            self.y = np.square(self.rows @ truth)
            self.minimisers = np.stack([truth, -truth])

    def value(self, x: Array) -> float:
        t = self.rows @ x
        if self.form == "tensor_pca":
            return float(-(t**4).sum())
        return float(np.square(t**2 - self.y).mean() / 4)

    def gradient(self, x: Array) -> Array:
        t = self.rows @ x
        if self.form == "tensor_pca":
            return -4 * (t**3 @ self.rows)
        return ((t**2 - self.y) * t) @ self.rows / len(t)

    def hessian(self, x: Array) -> Array:
        t = self.rows @ x
        weights = -12 * t**2 if self.form == "tensor_pca" else (3 * t**2 - self.y) / len(t)
        H = (self.rows.T * weights) @ self.rows
        return (H + H.T) / 2

    def lipschitz(self, region: Region) -> tuple[float, float]:
        R = region.radius
        if self.form == "tensor_pca":
            return 12 * R**2, 24 * R
        mean = self.rows.T / len(self.rows)
        # |a'x| <= ||a|| R, so the Hessian lies between -mean y aa' and 3 R^2 mean ||a||^2 aa'
        outer = float(np.linalg.norm((mean * np.square(self.rows).sum(1)) @ self.rows, 2))
        return max(3 * R**2 * outer, float(np.linalg.norm((mean * self.y) @ self.rows, 2))), 6 * R * outer

    def start(self) -> Array:
        return self.saddle / 2

    def starts(self, region: Region) -> dict[str, Array]:
        """ "blind_spot": tensor PCA's saddle itself, at the boundary of the ball."""
        return {"blind_spot": self.saddle.copy()} if self.form == "tensor_pca" else {}

    def minimum(self, region: Region) -> float | None:
        if self.form == "tensor_pca":
            # sum t_k^4 <= (sum t_k^2)^2, with equality along one a_k
            return -(region.radius**4) if region.name == "ball" else None
        return super().minimum(region)


PETERSEN = [(i, (i + 1) % 5) for i in range(5)]
PETERSEN += [(5 + i, 5 + (i + 2) % 5) for i in range(5)] + [(i, i + 5) for i in range(5)]


def independence_number(n: int, edges: list[tuple[int, int]]) -> int:
    """The most vertices of a graph without an edge among them, by enumeration from above."""
    joined = {frozenset(edge) for edge in edges}
    for size in range(n, 1, -1):
        for chosen in itertools.combinations(range(n), size):
            if not any(frozenset(pair) in joined for pair in itertools.combinations(chosen, 2)):
                return size
    return 1


class MotzkinStraus(Quadratic):
    """B6: f = x'(I + A)x over the simplex, A the adjacency matrix of a graph: min f = 1 / alpha(G).

    alpha is the size of the largest independent set (Motzkin and Straus 1965); every maximal independent
    set S is a local minimum with f = 1 / |S|. In a regular graph the barycentre, the start, is a
    first-order point. M = 0, L = 2 ||I + A||.

    Args:
        kind, radius: as in `SaddleProblem` (the simplex has a size of its own).
        graph: petersen (n = 10, alpha = 4), cycle or random (each edge with probability 1/2).
        dim: n of the last two, 3 to 16; 10 of the Petersen graph.
        design_seed: of the random graph.
    """

    NAME: ClassVar = "b6"
    SETS: ClassVar = ("simplex",)

    def __init__(
        self,
        *,
        kind: str,
        radius: float,
        graph: Literal["petersen", "cycle", "random"],
        dim: int,
        design_seed: int,
    ) -> None:
        check("dim", dim, 3 <= dim <= 16, "give 3 to 16")
        check("dim", dim, graph != "petersen" or dim == 10, "the Petersen graph has 10 vertices")
        super().__init__(kind=kind, radius=radius, dim=dim)
        if graph == "petersen":
            self.edges = PETERSEN
        elif graph == "cycle":
            self.edges = [(i, (i + 1) % dim) for i in range(dim)]
        else:
            random = np.random.default_rng(design_seed)
            pairs = itertools.combinations(range(dim), 2)
            self.edges = [pair for pair in pairs if random.random() < 0.5]
        Q = np.eye(dim)
        for i, j in self.edges:
            Q[i, j] = Q[j, i] = 1.0
        self.H = 2 * Q
        self.saddle = np.full(dim, 1 / dim)

    def minimum(self, region: Region) -> float | None:
        return 1 / independence_number(self.dim, self.edges)


class LinearConstraint(SaddleProblem):
    """B7: f = -x y exp(-x^2 - y^2) + y^2 / 2 over x + y <= 0 (in a box): the example of Nouiehed et al.

    0 is a strict saddle on the constraint's line. From a point of the line with x > 0 projected gradient
    is pressed onto the line and slides into 0, as it does from a whole neighbourhood. f = y^2/2 - h(x) h(y)
    with h(t) = t exp(-t^2), |h| <= 1/sqrt(2e), |h'| <= 1, |h''| <= 1.952, |h'''| <= 6; hence L = 2 + |h||h''|
    and M = (|h||h'''| + 3 |h'||h''|) / sqrt 2 everywhere.
    """

    NAME: ClassVar = "b7"
    SETS: ClassVar = ("polytope", "ball", "box")
    H0: ClassVar = (2 * np.e) ** -0.5
    H2: ClassVar = 1.952
    H3: ClassVar = 6.0

    def __init__(self, *, kind: str, radius: float) -> None:
        super().__init__(kind=kind, radius=radius, dim=2)
        self.minimisers = np.stack([self._minimiser(), -self._minimiser()])

    def _minimiser(self) -> Array:
        """By Newton's method; the function is even."""
        x = np.array([-0.7, -0.3])
        for _ in range(50):
            x = x - np.linalg.solve(self.hessian(x), self.gradient(x))
        return x

    @staticmethod
    def _h(t: float) -> tuple[float, float, float]:
        """h, h' and h'' at t."""
        e = float(np.exp(-(t**2)))
        return t * e, (1 - 2 * t**2) * e, (4 * t**3 - 6 * t) * e

    def value(self, x: Array) -> float:
        return float(x[1] ** 2 / 2 - self._h(x[0])[0] * self._h(x[1])[0])

    def gradient(self, x: Array) -> Array:
        (a, da, _), (b, db, _) = self._h(x[0]), self._h(x[1])
        return np.array([-da * b, x[1] - a * db])

    def hessian(self, x: Array) -> Array:
        (a, da, dda), (b, db, ddb) = self._h(x[0]), self._h(x[1])
        return np.array([[-dda * b, -da * db], [-da * db, 1 - a * ddb]])

    def lipschitz(self, region: Region) -> tuple[float, float]:
        return 2 + self.H0 * self.H2, (self.H0 * self.H3 + 3 * self.H2) / 2**0.5

    def start(self) -> Array:
        """On the line, with x > 0: projected gradient ends in the saddle."""
        return self.radius * np.array([0.2, -0.2])
