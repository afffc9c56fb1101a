"""The methods against independent formulas, and how often each passes the encoder."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.task_spec import TaskSpec
from papers.mgda.methods import (
    MGDA,
    MGDAUB,
    FixedWeights,
    GradNorm,
    Kendall,
    MGDAUBSafe,
    MultiTaskMethod,
    Uniform,
)
from papers.mgda.min_norm import min_norm_weights
from papers.mgda.networks import LinearEncoder
from papers.mgda.normalise import divisors
from papers.mgda.shared import SharedPass, gram, lengths

OPTIMIZER = partial(torch.optim.SGD, lr=0.1)
OPTIONS: dict[str, Any] = {
    "optimizer": OPTIMIZER,
    "solver": "exact",
    "normaliser": "none",
    "normaliser_applies_to": "solver",
    "step_scale": 1.0,
    "head_scaling": "none",
    "batched": False,
}
UB = OPTIONS | {"rep_reduction": "flatten"}


class Counted(torch.autograd.Function):
    """The identity; counts how often it is passed backwards."""

    passes = 0

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        Counted.passes += 1
        return gradient


class Counting(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return Counted.apply(inputs)


class Net:
    """A small encoder, heads, a minibatch, and a cross-entropy a task."""

    def __init__(self, tasks: int = 3, scales: Sequence[float] = (), seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), Counting(), nn.Linear(8, 5), nn.Tanh())
        self.heads = nn.ModuleList(nn.Sequential(nn.Linear(5, 4)) for _ in range(tasks))
        self.inputs, self.targets = torch.randn(16, 6), torch.randint(4, (tasks, 16))
        self.scales = torch.tensor(scales or [1.0] * tasks)
        self.specs = [TaskSpec(f"t{i}", "class", 4) for i in range(tasks)]

    def losses(self, outputs: Sequence[Tensor]) -> Tensor:
        each = [functional.cross_entropy(o, t) for o, t in zip(outputs, self.targets, strict=True)]
        return torch.stack(each) * self.scales

    def passed(self, keep_graph: bool = False) -> SharedPass:
        self.encoder.zero_grad(set_to_none=True)
        self.heads.zero_grad(set_to_none=True)
        return SharedPass(self.encoder, list(self.heads), self.inputs, self.losses, keep_graph)

    def step(self, method: MultiTaskMethod) -> Tensor:
        """Leave gradients; the method's weights."""
        method.start(self.specs, list(self.encoder[3].parameters()))
        Counted.passes = 0
        return method.backward(self.passed())

    def own(self, task: int) -> tuple[list[Tensor], list[Tensor]]:
        """dL_t of encoder and head by plain autograd."""
        loss = self.losses([head(self.encoder(self.inputs)) for head in self.heads])[task]
        parts = [list(self.encoder.parameters()), list(self.heads[task].parameters())]
        return tuple(list(torch.autograd.grad(loss, part, retain_graph=True)) for part in parts)  # type: ignore[return-value]

    def matrix(self) -> Tensor:
        rows = [torch.cat([g.flatten() for g in self.own(t)[0]]) for t in range(len(self.heads))]
        return torch.stack(rows).double() @ torch.stack(rows).double().T

    def shared_gradient(self) -> Tensor:
        return torch.cat([p.grad.flatten() for p in self.encoder.parameters() if p.grad is not None])

    def expected(self, weights: Tensor) -> Tensor:
        rows = [torch.cat([g.flatten() for g in self.own(t)[0]]) for t in range(len(self.heads))]
        return weights.float() @ torch.stack(rows)


@pytest.mark.parametrize("batched", [False, True])
def test_mgda_takes_the_min_norm_combination_of_the_encoders_gradients(batched: bool) -> None:
    net = Net()
    weights = net.step(MGDA(**OPTIONS | {"batched": batched}))
    torch.testing.assert_close(weights, min_norm_weights(net.matrix()), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net.shared_gradient(), net.expected(weights), rtol=1e-4, atol=1e-6)
    for task, head in enumerate(net.heads):
        torch.testing.assert_close([p.grad for p in head.parameters()], net.own(task)[1])


def test_mgda_ub_weighs_the_representations_gradients_of_the_whole_minibatch() -> None:
    net = Net()
    z = net.encoder(net.inputs).detach().requires_grad_()
    losses = net.losses([head(z) for head in net.heads])
    rows = torch.stack([torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses])
    weights = net.step(MGDAUB(**UB))
    torch.testing.assert_close(weights, min_norm_weights(rows.double() @ rows.double().T), atol=1e-5, rtol=0)
    torch.testing.assert_close(net.shared_gradient(), net.expected(weights), rtol=1e-4, atol=1e-6)
    summed = rows.view(3, 16, 5).sum(1).double()
    other = net.step(MGDAUB(**UB | {"rep_reduction": "sum"}))
    torch.testing.assert_close(other, min_norm_weights(summed @ summed.T), atol=1e-5, rtol=0)
    assert not torch.allclose(other, weights, atol=1e-3)


@pytest.mark.parametrize(
    ("method", "passes"), [(MGDA(**OPTIONS), 5), (MGDAUB(**UB), 1), (Uniform(optimizer=OPTIMIZER), 1)]
)
def test_exact_mgda_passes_the_encoder_once_a_task_and_the_bound_once(
    method: MultiTaskMethod, passes: int
) -> None:
    Net(tasks=5).step(method)
    assert Counted.passes == passes


def test_head_scaling_alpha_is_the_authors_single_backward_pass() -> None:
    net = Net()
    weights = net.step(MGDAUB(**UB | {"head_scaling": "alpha"}))
    for task, head in enumerate(net.heads):
        expected = [weights[task].float() * own for own in net.own(task)[1]]
        torch.testing.assert_close([p.grad for p in head.parameters()], expected)


@pytest.mark.parametrize("method", [MGDA(**OPTIONS), MGDAUB(**UB), MGDAUBSafe(**UB)])
def test_one_task_alone_or_many_times_is_ordinary_descent(method: MultiTaskMethod) -> None:
    net = Net(tasks=1)
    assert net.step(method).tolist() == [1.0]
    torch.testing.assert_close(net.shared_gradient(), torch.cat([g.flatten() for g in net.own(0)[0]]))
    twins = Net(tasks=3)
    twins.targets[:] = twins.targets[0]
    for head in twins.heads:
        head.load_state_dict(twins.heads[0].state_dict())
    twins.step(method)
    expected = torch.cat([g.flatten() for g in twins.own(0)[0]])
    torch.testing.assert_close(twins.shared_gradient(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("normaliser", ["none", "l2", "loss", "loss+"])
def test_which_weights_depend_on_a_losss_scale(normaliser: str) -> None:
    method = MGDA(**OPTIONS | {"normaliser": normaliser})
    plain, scaled = Net().step(method), Net(scales=[1.0, 0.05, 1.0]).step(method)
    same = torch.allclose(plain, scaled, atol=1e-4)
    assert same == (normaliser in ("l2", "loss"))
    if normaliser == "none":
        assert scaled[1] > plain[1]


@pytest.mark.parametrize("cls", [MGDA, MGDAUB])
@pytest.mark.parametrize("normaliser", ["l2", "loss"])
def test_normalising_the_update_too_makes_the_whole_step_blind_to_scales(cls: type, normaliser: str) -> None:
    wanted = {"normaliser": normaliser, "normaliser_applies_to": "solver_and_update", "head_scaling": "alpha"}
    method = cls(**(UB if cls is MGDAUB else OPTIONS) | wanted)
    plain, scaled = Net(), Net(scales=[1.0, 0.05, 40.0])
    plain.step(method)
    scaled.step(method)
    torch.testing.assert_close(plain.shared_gradient(), scaled.shared_gradient(), rtol=1e-3, atol=1e-6)
    for one, other in zip(plain.heads.parameters(), scaled.heads.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)
    # the authors' form of the same is not
    official = cls(**(UB if cls is MGDAUB else OPTIONS) | wanted | {"normaliser_applies_to": "solver"})
    plain.step(official)
    scaled.step(official)
    assert not torch.allclose(plain.shared_gradient(), scaled.shared_gradient(), rtol=0.1)


def test_normalised_gradients_have_equal_weights_where_they_are_orthogonal() -> None:
    method = MGDA(**OPTIONS | {"normaliser": "l2"})
    found = method.weigh(torch.diag(torch.tensor([1.0, 4.0, 25.0]).double()), torch.ones(3))
    assert found.shared.tolist() == pytest.approx([1 / 3] * 3)


def test_divisors_are_their_formulas() -> None:
    lengths, losses = torch.tensor([2.0, 0.0]), torch.tensor([3.0, 5.0])
    found = {kind: divisors(kind, lengths, losses).tolist() for kind in ("none", "l2", "loss", "loss+")}  # type: ignore[arg-type]
    # the length of 0 normalises nothing
    assert found == {"none": [1, 1], "l2": [2, 1], "loss": [3, 5], "loss+": [6, 1]}
    assert divisors("loss", lengths, torch.tensor([0.0, -2.0])).tolist() == [1, 1]
    for wrong in (torch.nan, torch.inf):
        assert divisors("loss", lengths, torch.tensor([1.0, wrong])).isnan().tolist() == [False, True]
    with pytest.raises(UserError, match=r"method.normaliser=l1; valid: none, l2, loss, loss\+"):
        divisors("l1", lengths, losses)  # type: ignore[arg-type]


@pytest.mark.parametrize("cls", [MGDA, MGDAUB, MGDAUBSafe])
@pytest.mark.parametrize("normaliser", ["l2", "loss", "loss+"])
def test_a_task_without_a_gradient_blows_no_head_up(cls: type, normaliser: str) -> None:
    wanted = {"normaliser": normaliser, "normaliser_applies_to": "solver_and_update", "head_scaling": "alpha"}
    method = cls(**(OPTIONS if cls is MGDA else UB) | wanted)
    net = Net()
    # a dead encoder: its output is saturated, and no gradient comes through
    with torch.no_grad():
        net.encoder[3].bias.fill_(100.0)
    weights = net.step(method)
    assert net.shared_gradient().abs().max() == 0 and weights.isfinite().all()
    heads = [p.grad.abs().max().item() for p in net.heads.parameters() if p.grad is not None]
    assert max(heads) < 10
    # a dead head: its loss is 0 however Z is
    alive = Net(scales=[1.0, 0.0, 1.0])
    alive.step(method)
    heads = [p.grad.abs().max().item() for p in alive.heads.parameters() if p.grad is not None]
    assert max(heads) < 10


@pytest.mark.parametrize("solver", ["exact", "frank_wolfe", "projected_gradient"])
@pytest.mark.parametrize("number", [torch.nan, torch.inf])
@pytest.mark.parametrize("normaliser", ["none", "l2", "loss", "loss+"])
def test_a_gradient_or_loss_that_is_not_finite_gives_nan_weights(
    solver: str, number: float, normaliser: str
) -> None:
    method = MGDA(**OPTIONS | {"solver": solver, "normaliser": normaliser})
    vectors = torch.eye(3, 4)
    vectors[1, 2] = number
    assert method.weigh(gram([vectors]), torch.ones(3)).shared.isnan().all()
    if normaliser.startswith("loss"):
        losses = torch.tensor([1.0, 1.0, number])
        assert method.weigh(gram([torch.eye(3, 4)]), losses).shared.isnan().all()


@pytest.mark.parametrize("factor", [1e-30, 1e-8, 1e8, 1e30])
@pytest.mark.parametrize("normaliser", ["none", "l2", "loss"])
def test_losses_times_a_number_leave_the_weights_as_they_are(factor: float, normaliser: str) -> None:
    for solver in ("exact", "frank_wolfe", "projected_gradient"):
        method = MGDA(**OPTIONS | {"solver": solver, "normaliser": normaliser})
        plain, scaled = Net().step(method), Net(scales=[factor] * 3).step(method)
        torch.testing.assert_close(scaled, plain, rtol=0, atol=1e-4)


def test_lengths_have_no_squares_to_lose() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(3, 50, generator=generator)
    assert torch.equal(lengths(vectors), vectors.norm(dim=1))
    for factor in (1e-30, 1e30):
        torch.testing.assert_close(lengths(factor * vectors), factor * vectors.norm(dim=1))
    vectors[0], vectors[1, 3], vectors[2, 5] = 0.0, torch.nan, torch.inf
    assert lengths(vectors)[0] == 0 and lengths(vectors)[1:].isnan().all()


def linear(encoder: Tensor, targets: Tensor) -> SharedPass:
    """A problem of pareto_quadratics at x = 0, with unit curvatures."""
    net = LinearEncoder(shape=tuple(encoder.shape), classes=None, tasks=len(targets))
    return SharedPass(
        net.encoder,
        list(net.heads),
        encoder.unsqueeze(0),
        lambda outputs: torch.stack(
            [(o[0] - c).square().sum() / 2 for o, c in zip(outputs, targets, strict=True)]
        ),
        keep_graph=True,
    )


def test_the_bound_is_exact_for_orthonormal_encoders_and_not_for_others() -> None:
    torch.manual_seed(0)
    differ = 0
    for _ in range(20):
        gaussian, targets = torch.randn(4, 6), torch.randn(3, 4)
        orthonormal = 3 * torch.linalg.qr(gaussian.T).Q.T
        for encoder in (orthonormal, gaussian):
            bound = MGDAUB(**UB).backward(linear(encoder, targets))
            exact = MGDA(**OPTIONS).backward(linear(encoder, targets))
            if encoder is orthonormal:
                torch.testing.assert_close(bound, exact, rtol=0, atol=1e-5)
            else:
                differ += not torch.allclose(bound, exact, atol=1e-3)
    assert differ > 10


def test_the_bound_bounds_the_length() -> None:
    torch.manual_seed(1)
    for _ in range(20):
        encoder, targets = torch.randn(4, 6), torch.randn(3, 4)
        passed = linear(encoder, targets)
        weights = MGDAUB(**UB).backward(passed)
        in_z = (weights.float() @ passed.gradients.flatten(1)).square().sum()
        spread = torch.linalg.matrix_norm(encoder, 2) ** 2
        assert passed.squared_length() <= spread * in_z * (1 + 1e-5)
        MGDA(**OPTIONS).backward(exact := linear(encoder, targets))
        assert exact.squared_length() <= passed.squared_length() * (1 + 1e-5)


def test_theorem_1b_fails_and_the_safe_method_does_not() -> None:
    torch.manual_seed(2)
    ascents = 0
    for _ in range(60):
        encoder, targets = torch.randn(4, 4), torch.randn(3, 4)
        passed = linear(encoder, targets)
        MGDAUB(**UB).backward(passed)
        ascents += bool(passed.descents().rises)
        method = MGDAUBSafe(**UB)
        method.start([], [])
        safe = linear(encoder, targets)
        method.backward(safe)
        assert safe.descents().products.min() >= -1e-4 * safe.squared_length()
        exact = linear(encoder, targets)
        MGDA(**OPTIONS).backward(exact)
        assert exact.descents().products.min() >= 0.99 * exact.squared_length() - 1e-5
    assert ascents > 5


def test_descents_are_the_products_with_every_tasks_gradient() -> None:
    net = Net()
    method = Uniform(optimizer=OPTIMIZER)
    passed = net.passed(keep_graph=True)
    method.backward(passed)
    u = net.shared_gradient()
    each = torch.stack([torch.cat([g.flatten() for g in net.own(t)[0]]) @ u for t in range(3)])
    torch.testing.assert_close(passed.descents().products.float(), each, rtol=1e-4, atol=1e-7)
    assert passed.squared_length().item() == pytest.approx(u.square().sum().item(), rel=1e-5)


def test_the_gram_matrix_is_that_of_the_flattened_gradients() -> None:
    parts = [torch.randn(3, 4, 5), torch.randn(3, 2)]
    flat = torch.cat([part.flatten(1) for part in parts], dim=1).double()
    torch.testing.assert_close(gram(parts), flat @ flat.T)


# ---- what the paper compares with


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.0]])
def test_fixed_weights_are_a_weighted_mean(weights: list[float] | None) -> None:
    net = Net()
    found = net.step(FixedWeights(optimizer=OPTIMIZER, weights=weights))
    expected = torch.tensor(weights or [1.0, 1.0, 1.0])
    expected = expected / expected.sum() / 3
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(net.shared_gradient(), net.expected(expected), rtol=1e-4, atol=1e-7)


def test_kendalls_gradients_are_those_of_its_objective() -> None:
    net = Net()
    net.specs[2] = TaskSpec("numbers", "pixel_number", 1)
    method = Kendall(optimizer=OPTIMIZER, start=0.3)
    net.step(method)
    s = torch.full((3,), 0.3, requires_grad=True)
    losses = net.losses([head(net.encoder(net.inputs)) for head in net.heads])
    objective = (torch.exp(-s) * torch.tensor([1.0, 1.0, 0.5]) * losses + s / 2).sum()
    parameters = [*net.encoder.parameters(), *net.heads.parameters()]
    expected = torch.autograd.grad(objective, [s, *parameters])
    assert method.log_variances.grad is not None
    torch.testing.assert_close(method.log_variances.grad, expected[0])
    torch.testing.assert_close([p.grad for p in parameters], list(expected[1:]))


@pytest.mark.parametrize("layer", ["last_shared", "representation"])
def test_gradnorms_weights_go_down_the_gradient_of_its_objective(layer: str) -> None:
    net = Net(scales=[1.0, 4.0, 0.2])
    method = GradNorm(optimizer=OPTIMIZER, alpha=1.5, weight_lr=0.01, layer=layer)  # type: ignore[arg-type]
    assert net.step(method).tolist() == [1.0, 1.0, 1.0]
    first = method.first_losses.clone()

    for head in net.heads:
        nn.init.zeros_(head[0].weight)
        nn.init.normal_(head[0].weight, std=0.5)
    w = method.task_weights.clone().requires_grad_()
    z = net.encoder(net.inputs)
    losses = net.losses([head(z) for head in net.heads])
    where = z if layer == "representation" else net.encoder[3].weight
    if layer == "representation":
        norms = torch.stack([torch.autograd.grad(l, z, retain_graph=True)[0].norm() for l in losses])  # noqa: E741
    else:
        both = [where, net.encoder[3].bias]
        norms = torch.stack(
            [
                torch.cat([g.flatten() for g in torch.autograd.grad(one, both, retain_graph=True)]).norm()
                for one in losses
            ]
        )
    ratios = (losses / first).detach()
    sizes = w * norms.detach()
    wanted = (sizes.mean() * (ratios / ratios.mean()) ** 1.5).detach()
    (sizes - wanted).abs().sum().backward()
    assert w.grad is not None
    moved = (w - 0.01 * w.grad).detach()

    method.backward(net.passed())
    torch.testing.assert_close(method.task_weights, moved * 3 / moved.sum(), rtol=1e-4, atol=1e-6)
    assert method.task_weights.sum().item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: MGDA(**OPTIONS | {"normaliser": "l1"}),
            r"method.normaliser=l1; valid: none, l2, loss, loss\+",
        ),
        (
            lambda: MGDA(**OPTIONS | {"solver": "newton"}),
            r"method.solver=newton; valid: exact, frank_wolfe, ",
        ),
        (lambda: MGDA(**OPTIONS | {"step_scale": 0.0}), r"method.step_scale=0.0; valid: a number > 0"),
        (lambda: MGDAUB(**UB | {"rep_reduction": "mean"}), r"method.rep_reduction=mean; valid: flatten, sum"),
        (
            lambda: FixedWeights(optimizer=OPTIMIZER, weights=[1.0, -1.0]),
            r"method.weights=\[1.0, -1.0\]: give",
        ),
        (
            lambda: FixedWeights(optimizer=OPTIMIZER, weights=[0.0, 0.0]),
            r"give numbers >= 0, not all of them 0",
        ),
        (
            lambda: Net().step(FixedWeights(optimizer=OPTIMIZER, weights=[1.0, 2.0])),
            r"2 weights for 3 tasks; give one for each of t0, t1, t2",
        ),
        (
            lambda: GradNorm(optimizer=OPTIMIZER, alpha=-1.0, weight_lr=0.1, layer="last_shared"),
            r"method.alpha=-1.0; valid: a number >= 0",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(make: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()
