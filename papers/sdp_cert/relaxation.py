"""The SDP relaxation of a ReLU network over a box, in scaled variables, and the value that any multipliers
certify.

Each variable is x_k = c_k + r_k z_k with z_k in [-1, 1]: box inputs, and hidden units after the ReLU (paper,
section 4; the scaling is Dathathri et al. 2020). With v = (1, z) in R^{1+N} every constraint is <a, Z b> for
Z = v v' relaxed to Z psd, Z_00 = 1, diag Z <= 1. For hidden unit j let p_j be the row with p_j'v = x_j, q_j
the one of its pre-activation W x + b, and e_0'v = 1; then

    x_j >= 0            <e_0, Z p_j> >= 0                            multiplier positive_j >= 0
    x_j >= a_j          <e_0, Z (p_j - q_j)> >= 0                    multiplier above_j >= 0
    x_j (x_j - a_j) = 0 <p_j, Z (p_j - q_j)> = 0                     multiplier product_j
    x_j <= u (a_j - l)/(u - l)  <e_0, Z (s_j (q_j - l_j e_0) - p_j)> >= 0    multiplier cut_j >= 0 (linear
    cut)
    z_k^2 <= 1          Z_kk <= 1                                    multiplier box_k >= 0

Variables of radius 0 (fixed inputs, units that are always off) are constants and take part in no matrix.
Examples of a batch are padded to one size: a padded variable has only its box, a padded unit no multiplier.
"""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from papers.sdp_cert.bounds import Interval, Objective
from papers.sdp_cert.network import ReluNetwork


@dataclass(frozen=True)
class Multipliers:
    """One number a constraint, [b, ...]; `cut` and `copy` have no columns where the relaxation lacks them."""

    box: Tensor
    positive: Tensor
    above: Tensor
    product: Tensor
    cut: Tensor
    copy: Tensor

    def take(self, index: Tensor) -> "Multipliers":
        """Those of some problems."""
        return Multipliers(*(getattr(self, field.name)[index] for field in fields(self)))


@dataclass(frozen=True)
class Relaxation:
    """A batch of b relaxations with N variables and m hidden units each.

    Attributes:
        objective: w [b, 1+N], of <e_0, Z w>, to be maximised.
        output: p_j, [b, m, 1+N]; excess: p_j - q_j; cut: the rows of the linear cut, [b, m or 0, 1+N].
        copy: [b, c, 1+N]: rows with <e_0, Z row> = 0, which join the copies of LayerSDP.
        place: [m], where variable z_j of unit j stands in v.
        has_variable: bool [b, N]; has_unit: bool [b, m]: what is no padding.
        free_above: bool [b, m]: units with x_j = a_j (always on) whose `above` may have either sign.
    """

    objective: Tensor
    output: Tensor
    excess: Tensor
    cut: Tensor
    copy: Tensor
    place: Tensor
    has_variable: Tensor
    has_unit: Tensor
    free_above: Tensor

    @property
    def variables(self) -> int:
        """N."""
        return self.objective.shape[1] - 1

    def __len__(self) -> int:
        return len(self.objective)

    def take(self, index: Tensor) -> "Relaxation":
        """Some of the problems."""
        shared = {"place": self.place}
        taken = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name not in shared}
        return Relaxation(**taken, **shared)

    def slack(self, multipliers: Multipliers, corner: Tensor) -> Tensor:
        """S [b, 1+N, 1+N], the dual slack: corner + sum box is a bound iff S is psd.

        The Lagrangian at v is v'F v + sum box_k (1 - z_k^2) with v'F v = <e_0, v v' (w + linear terms)> -
        sum_j product_j <p_j, v v' (p_j - q_j)>; S = corner e_0 e_0' + diag(0, box) - F.
        """
        S = self.linear(multipliers, corner)
        half = self.objective / 2
        S[:, 0] -= half
        S[:, :, 0] -= half
        return S

    def linear(self, multipliers: Multipliers, corner: Tensor) -> Tensor:
        """sum_k y_k A_k [b, 1+N, 1+N], what S has besides its constant part."""
        m = multipliers
        row = _weighted(m.positive, self.output) + _weighted(m.above, self.excess)
        row = row + _weighted(m.cut, self.cut) + _weighted(m.copy, self.copy)
        S = torch.zeros(len(self), self.variables + 1, self.variables + 1, dtype=row.dtype, device=row.device)
        # p_j = c_j e_0 + r_j e_place(j)
        S[:, self.place] = (self.radius * m.product)[..., None] * self.excess
        S[:, 0] = _weighted(m.product * self.output[..., 0], self.excess) - row
        S = (S + S.mT) / 2
        S[:, 0, 0] += corner
        S.diagonal(dim1=1, dim2=2)[:, 1:] += m.box
        return S

    def inner(self, Y: Tensor) -> tuple[Tensor, Multipliers]:
        """<A_k, Y> [b] and [b, ...] of every constraint's matrix, for symmetric Y [b, 1+N, 1+N]."""
        first = Y[:, :, :1]
        positive, above, cut, copy = (
            -(rows @ first).squeeze(2) for rows in (self.output, self.excess, self.cut, self.copy)
        )
        output = self.output[..., :1] * Y[:, :1] + self.radius[..., None] * Y[:, self.place]
        product = (output * self.excess).sum(2)
        return Y[:, 0, 0], Multipliers(
            box=Y.diagonal(dim1=1, dim2=2)[:, 1:],
            positive=positive,
            above=above,
            product=product,
            cut=cut,
            copy=copy,
        )

    @property
    def radius(self) -> Tensor:
        """r_j of each hidden unit, [b, m]."""
        return self.output.gather(2, self.place.expand(len(self), -1)[..., None]).squeeze(2)


def _weighted(weights: Tensor, rows: Tensor) -> Tensor:
    """sum_j weights [b, m] rows [b, m, n]: [b, n]."""
    return (weights[:, None] @ rows).squeeze(1)


@dataclass(frozen=True)
class UnitFree:
    """A relaxation whose numbers have no units: the same feasible set, the same optimum but for the scale.

    Attributes:
        relaxation: rows with absolute entries of sum 1; the objective less its value at the centre, likewise.
        center, spread: of the objective [b]: its value at the centre of the last hidden layer's box, and how
            far interval arithmetic lets it move from there. A bound is center + spread * (bound here).
        given: the relaxation that it was.
    """

    relaxation: Relaxation
    center: Tensor
    spread: Tensor
    given: Relaxation

    def bound(self, found: Tensor) -> Tensor:
        """A bound [b] here, in the units of the given relaxation."""
        return torch.where(found.isfinite(), self.center + self.spread * found, torch.inf)

    def multipliers(self, m: Multipliers, corner: Tensor) -> tuple[Multipliers, Tensor]:
        """Multipliers and corner here as those of the given relaxation."""
        output, excess, cut, copy = (
            _size(rows)[..., 0]
            for rows in (self.given.output, self.given.excess, self.given.cut, self.given.copy)
        )
        spread = self.spread[:, None]
        scaled = Multipliers(
            box=spread * m.box,
            positive=spread * m.positive / output,
            above=spread * m.above / excess,
            product=spread * m.product / (output * excess),
            cut=spread * m.cut / cut,
            copy=spread * m.copy / copy,
        )
        return scaled, self.center + self.spread * corner


def unit_free(given: Relaxation) -> UnitFree:
    """The same relaxation without units, so that a solver's tolerances are relative."""
    w = given.objective
    center, moving = w[:, 0], w[:, 1:]
    spread = moving.abs().sum(1)
    size = torch.where(spread > 0, spread, 1.0)[:, None]
    rows = {
        name: getattr(given, name) / _size(getattr(given, name))
        for name in ("output", "excess", "cut", "copy")
    }
    objective = torch.cat([torch.zeros_like(w[:, :1]), moving / size], 1)
    return UnitFree(replace(given, objective=objective, **rows), center, spread, given)


def _size(rows: Tensor) -> Tensor:
    """The sum of the absolute entries of each row [b, n, 1], 1 of empty ones."""
    size = rows.abs().sum(2, keepdim=True)
    return torch.where(size > 0, size, 1.0)


def rounding(relaxation: Relaxation, S: Tensor) -> Tensor:
    """What the eigenvalues of S in float64 may be off, [b]."""
    size = relaxation.has_variable.sum(1) + 1
    return 4 * size * torch.finfo(torch.float64).eps * torch.linalg.matrix_norm(S)


def certify(relaxation: Relaxation, multipliers: Multipliers, corner: Tensor) -> Tensor:
    """A bound [b] on the objective that holds whatever the multipliers are (weak duality).

    Multipliers of the wrong sign count as 0. With S = slack + corner e_0 e_0', raising the diagonal by
    d >= -lambda_min(S) makes it psd, and costs d for each entry: corner + sum box + (1 + N) d. Eigenvalues
    are those of float64, and d covers their error (a multiple of N eps ||S||). Numbers that are not finite
    certify inf.

    Args:
        corner: [b], S_00's part of the bound; a good one makes S nearly psd.
    """
    m = project(relaxation, multipliers)
    S = relaxation.slack(m, corner)
    finite = S.isfinite().all(2).all(1)
    S = torch.where(finite[:, None, None], S, 0.0)
    size = relaxation.has_variable.sum(1) + 1
    shift = (rounding(relaxation, S) - _least_eigenvalues(S)).clamp_min(0)
    bound = corner + (m.box * relaxation.has_variable).sum(1) + size * shift
    return torch.where(finite & bound.isfinite(), bound, torch.inf)


def _least_eigenvalues(S: Tensor) -> Tensor:
    """Of each matrix, from below [b]; by Gershgorin's discs where LAPACK does not converge."""
    try:
        return torch.linalg.eigvalsh(S)[:, 0]
    except torch.linalg.LinAlgError:
        diagonal = S.diagonal(dim1=1, dim2=2)
        return (diagonal + diagonal.abs() - S.abs().sum(2)).amin(1)


def project(relaxation: Relaxation, multipliers: Multipliers) -> Multipliers:
    """The multipliers with their signs and without those of padding (whose box entry is 1)."""
    unit = relaxation.has_unit
    above = torch.where(relaxation.free_above, multipliers.above, multipliers.above.clamp_min(0))
    cut = multipliers.cut
    if cut.shape[1]:
        cut = cut.clamp_min(0) * (unit & ~relaxation.free_above)
    return Multipliers(
        box=torch.where(relaxation.has_variable, multipliers.box.clamp_min(0), 1.0),
        positive=multipliers.positive.clamp_min(0) * unit,
        above=above * unit,
        product=multipliers.product * unit,
        cut=cut,
        copy=multipliers.copy,
    )


def interval_multipliers(relaxation: Relaxation) -> tuple[Multipliers, Tensor]:
    """All multipliers 0 but the box's: box_k = |w_k|/2, corner = w_0 + sum |w_k|/2.

    What they certify is the value of interval arithmetic on the last hidden layer (IBP).
    """
    w = relaxation.objective
    b, m = relaxation.has_unit.shape
    none = w.new_zeros(b, m)
    half = w[:, 1:].abs() / 2
    multipliers = Multipliers(
        box=torch.where(relaxation.has_variable, half, 1.0),
        positive=none,
        above=none,
        product=none,
        cut=w.new_zeros(b, relaxation.cut.shape[1]),
        copy=w.new_zeros(b, relaxation.copy.shape[1]),
    )
    return multipliers, w[:, 0] + half.sum(1)


def relax(
    network: ReluNetwork,
    layers: list[Interval],
    box: Interval,
    goal: Objective,
    *,
    linear_cut: bool,
    layerwise: bool,
) -> Relaxation:
    """The relaxations of e examples and k objectives, in the order example-major: b = e k.

    Args:
        layers: pre-activation bounds [e, n_i] of each hidden layer; any valid ones.
        goal: rows on the last hidden layer.
        linear_cut: add the line above each unstable ReLU (Batten et al. 2021), and a = x for units always on.
        layerwise: LayerSDP with linear consistency: each inner layer has two copies that share only their
            means, so that no matrix couples layers i and i + 2. (With full consistency LayerSDP is the SDP
            itself.)
    """
    examples, k = goal.constants.shape
    parts = _Parts(network, layers, box, layerwise)
    w = box.lower.new_zeros(examples, k, 1 + parts.variables)
    last = parts.outputs[-1]
    w[..., 0] = goal.constants + (goal.rows @ last.constant[..., None]).squeeze(-1)
    w[..., last.columns] = goal.rows.gather(2, last.index[:, None].expand(-1, k, -1)) * last.radius[:, None]
    units = parts.units(linear_cut)
    each = {name: value.repeat_interleave(k, 0) for name, value in units.items()}
    return Relaxation(objective=w.flatten(0, 1), place=parts.place, **each)


@dataclass(frozen=True)
class _Layer:
    """A layer's variables: indices of its units [e, n'] (padded), centres and radii, where they stand in v.

    `constant` [e, n] has the centres of all units, those without a variable among them.
    """

    index: Tensor
    used: Tensor
    radius: Tensor
    constant: Tensor
    columns: slice


class _Parts:
    """The variables of a batch of relaxations, and the rows p, p - q and those of the cut."""

    def __init__(self, network: ReluNetwork, layers: list[Interval], box: Interval, layerwise: bool) -> None:
        self.network, self.layers = network, layers
        self.variables = 0
        # x_0, x_1, ... as outputs of their layer, and as inputs of the next
        self.outputs = [self._place(box)]
        self.inputs = [self.outputs[0]]
        for i, layer in enumerate(layers):
            self.outputs.append(self._place(layer.relu()))
            inner = layerwise and i + 1 < len(layers)
            self.inputs.append(self._place(layer.relu()) if inner else self.outputs[-1])
        hidden = [torch.arange(part.columns.start, part.columns.stop) for part in self.outputs[1:]]
        self.place = torch.cat([*hidden, torch.arange(0)]).to(box.lower.device)

    def _place(self, x: Interval) -> _Layer:
        moving = x.radius > 0
        count = int(moving.sum(1).max()) if moving.numel() else 0
        # moving units first, in their order
        index = (~moving).to(torch.int8).argsort(dim=1, stable=True)[:, :count]
        start = 1 + self.variables
        self.variables += count
        return _Layer(
            index=index,
            used=moving.gather(1, index),
            radius=x.radius.gather(1, index),
            constant=x.center,
            columns=slice(start, start + count),
        )

    def units(self, linear_cut: bool) -> dict[str, Tensor]:
        """The rows of all hidden units, and the masks."""
        parts = [self._layer_rows(i) for i in range(len(self.layers))]
        examples = len(self.outputs[0].constant)
        empty = self.outputs[0].constant.new_zeros(examples, 0, 1 + self.variables)
        output, preactivation, line = (torch.cat([empty, *(part[j] for part in parts)], 1) for j in range(3))
        on = torch.cat([empty[..., 0].bool(), *(part[3] for part in parts)], 1)
        unit = torch.cat([empty[..., 0].bool(), *(layer.used for layer in self.outputs[1:])], 1)
        variables = [
            *self.outputs,
            *(a for a, b in zip(self.inputs, self.outputs, strict=True) if a is not b),
        ]
        variables.sort(key=lambda layer: layer.columns.start)
        return {
            "output": output,
            "excess": output - preactivation,
            "cut": line - output if linear_cut else empty,
            "copy": self._copies(empty),
            "has_variable": torch.cat([layer.used for layer in variables], 1),
            "has_unit": unit,
            "free_above": on & unit & linear_cut,
        }

    def _layer_rows(self, i: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """p, q and s (q - l e_0) [e, n', 1+N] of the units of hidden layer i + 1; which are always on."""
        source, unit = self.inputs[i], self.outputs[i + 1]
        W, b = self.network.weights[i], self.network.biases[i]
        examples, count = unit.index.shape
        p = W.new_zeros(examples, count, 1 + self.variables)
        p[..., 0] = unit.constant.gather(1, unit.index)
        p[..., unit.columns].diagonal(dim1=1, dim2=2).copy_(unit.radius)
        q = torch.zeros_like(p)
        rows = W[unit.index]
        q[..., 0] = (rows @ source.constant[..., None]).squeeze(-1) + b[unit.index]
        columns = rows.gather(2, source.index[:, None].expand(-1, count, -1))
        q[..., source.columns] = columns * (source.radius * source.used)[:, None]
        p, q = p * unit.used[..., None], q * unit.used[..., None]
        low, high = (bound.gather(1, unit.index) for bound in (self.layers[i].lower, self.layers[i].upper))
        slope = high / (high - low.clamp_max(0)).clamp_min(torch.finfo(high.dtype).tiny)
        line = slope[..., None] * q
        line[..., 0] -= slope * low.clamp_max(0) * unit.used
        return p, q, line, low >= 0

    def _copies(self, empty: Tensor) -> Tensor:
        rows = [empty]
        for output, copy in zip(self.outputs, self.inputs, strict=True):
            if output is copy:
                continue
            row = empty.new_zeros(len(empty), output.index.shape[1], 1 + self.variables)
            row[..., output.columns].diagonal(dim1=1, dim2=2).copy_(output.radius)
            row[..., copy.columns].diagonal(dim1=1, dim2=2).copy_(-copy.radius)
            rows.append(row)
        return torch.cat(rows, 1)
