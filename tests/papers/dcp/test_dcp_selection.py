"""Algorithm 2: scores, picks, stopping, resuming, and what it says when numbers are not finite."""

import io
import math
import re
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from dcp_toys import toy_inputs, toy_layer, toy_problem, toy_tail
from sklearn.linear_model import orthogonal_mp
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from papers.dcp.layer_problem import LayerProblem, Rows, kept_channels
from papers.dcp.selection import ChannelSelection, Selection, SelectionFailed, best, scores
from papers.dcp.sub_problem import Backtracking, GaussNewton, InverseLipschitz, LeastSquares, Sgd


def reference_gradient(problem: LayerProblem, weight: Tensor, bias: Tensor) -> Tensor:
    """dL/dW by autograd of the formula as it is written, no chunks."""
    weight = weight.clone().requires_grad_(True)
    outputs = functional.conv2d(problem.inputs, weight, bias, padding=1)
    difference = problem.baseline - outputs
    loss = problem.mse_weight * difference.square().sum() / (2 * difference.numel())
    if problem.lam > 0:
        assert problem.tail is not None
        loss = loss + problem.lam * problem.tail(outputs, slice(None))
    (found,) = torch.autograd.grad(loss, weight)
    return found


def reference_selection(problem: LayerProblem, kept: int, code: bool, lr: float) -> list[int]:
    """Algorithm 2 in a few lines, with one plain gradient step a pick."""
    start, bias = problem.start, problem.start_bias
    assert bias is not None
    weight, picks = torch.zeros_like(start), list[int]()
    while len(picks) < kept:
        gradient = reference_gradient(problem, weight, bias)
        norms = (
            gradient.flatten(2).norm(dim=2).sum(0)
            if code
            else gradient.transpose(0, 1).flatten(1).norm(dim=1)
        )
        norms[picks] = -math.inf
        picks.append(int(norms.argmax()))
        weight[:, picks[-1]] = start[:, picks[-1]]
        step = reference_gradient(problem, weight, bias)
        mask = torch.zeros_like(weight)
        mask[:, picks] = 1
        weight = weight - lr * step * mask
    return picks


@pytest.mark.parametrize("lam", [0.0, 1.0])
@pytest.mark.parametrize("code", [False, True])
def test_the_picks_are_those_of_the_algorithm_as_it_is_written(code: bool, lam: float) -> None:
    problem = toy_problem(lam=lam, train_bias=False, chunk=5)
    minimiser = Sgd(lr=0.1, momentum=0.0, weight_decay=0.0, batch_size=12)
    selection = ChannelSelection(score="code" if code else "fro", minimiser=minimiser)
    assert selection.select(problem, 4).picks == reference_selection(problem, 4, code, 0.1)


def test_the_two_scores_are_the_two_formulas() -> None:
    gradient = toy_problem().by_channel(toy_layer(seed=7).weight.detach())
    fro = [float(torch.linalg.matrix_norm(gradient[:, k])) for k in range(6)]
    code = [sum(float(gradient[j, k].norm()) for j in range(5)) for k in range(6)]
    assert scores(gradient, "fro").tolist() == pytest.approx(fro)
    assert scores(gradient, "code").tolist() == pytest.approx(code)


@pytest.mark.parametrize("kernel", [1, 3])
def test_without_a_discrimination_loss_the_first_pick_has_the_largest_product_with_the_outputs(
    kernel: int,
) -> None:
    problem = toy_problem(toy_layer(kernel=kernel, bias=False), lam=0.0)
    columns = functional.unfold(problem.inputs, kernel, padding=kernel // 2)
    products = torch.einsum("bns,bds->nd", problem.baseline.flatten(2), columns) / problem.baseline.numel()
    norms = products.view(5, 6, -1).transpose(0, 1).flatten(1).norm(dim=1)
    found = ChannelSelection(minimiser=Backtracking(steps=0)).select(problem, 1)
    assert found.picks == [int(norms.argmax())]


def test_channels_in_another_order_are_picked_in_that_order() -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    layer, inputs = toy_layer(), toy_inputs()
    shuffled = toy_layer()
    with torch.no_grad():
        shuffled.weight.copy_(layer.weight[:, order])
    found = ChannelSelection().select(toy_problem(layer, inputs), 4)
    other = ChannelSelection().select(toy_problem(shuffled, inputs[:, order]), 4)
    assert [int(order[pick]) for pick in other.picks] == found.picks
    torch.testing.assert_close(other.weight, found.weight[:, order])


def test_of_equal_channels_the_lowest_number_is_picked_and_the_score_of_the_other_falls() -> None:
    layer, inputs = toy_layer(bias=False), toy_inputs()
    inputs[:, 4] = inputs[:, 1]
    with torch.no_grad():
        layer.weight[:, [1, 4]] = 3 * layer.weight[:, [1]]
    problem = toy_problem(layer, inputs, lam=0.0)
    selection = ChannelSelection(minimiser=LeastSquares())
    first = next(selection.passes(problem, 3))
    assert first.picks == [1]
    before = scores(
        problem.by_channel(problem.evaluate(torch.zeros_like(layer.weight), None).weight_gradient), "fro"
    )
    after = scores(problem.by_channel(problem.evaluate(first.weight, None).weight_gradient), "fro")
    assert float(before[4]) == pytest.approx(float(before[1]))
    assert after[4] < 1e-9 * before[4]


def test_with_exact_refits_of_reconstruction_it_is_orthogonal_matching_pursuit() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    inputs /= inputs.norm(dim=0)
    layer = nn.Linear(8, 1, bias=False).double()
    baseline = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    problem = LayerProblem(layer, inputs, baseline, lam=0.0)
    for kept in (1, 3, 5):
        found = ChannelSelection(minimiser=LeastSquares()).select(problem, kept)
        expected = orthogonal_mp(inputs.numpy(), baseline.numpy(), n_nonzero_coefs=kept)
        assert found.kept == np.flatnonzero(expected).tolist()
        np.testing.assert_allclose(found.weight.flatten().numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("eta", "kept"), [(0.0, 10), (0.3, 7), (0.5, 5), (0.55, 5), (0.99, 1)])
def test_the_number_of_channels_that_stay_is_c_less_the_floor_of_eta_c(eta: float, kept: int) -> None:
    assert kept_channels(10, eta) == kept


@pytest.mark.parametrize("eta", [-0.1, 1.0, 1.5, math.nan])
def test_a_rate_that_leaves_no_channel_is_refused_with_the_name_of_the_layer(eta: float) -> None:
    with pytest.raises(UserError, match=r"layer conv2 .*valid: 0 <= rate < 1"):
        kept_channels(10, eta, "conv2")


def test_a_layer_that_keeps_all_its_channels_keeps_its_outputs() -> None:
    problem = toy_problem()
    backward = ChannelSelection(direction="backward").select(problem, 6)
    assert torch.equal(backward.weight, problem.start) and backward.picks == []
    forward = ChannelSelection(minimiser=Backtracking(steps=0)).select(problem, 6)
    assert torch.equal(forward.weight, problem.start)


def test_backward_removes_the_lowest_score_first() -> None:
    problem = toy_problem(mse_weight=0.0)
    gradient = problem.evaluate(problem.start, problem.start_bias).weight_gradient
    found = ChannelSelection(direction="backward", picks_per_pass=2).select(problem, 2)
    lowest = scores(problem.by_channel(gradient), "fro").argsort()[:2].tolist()
    assert found.picks[:2] == lowest
    assert sorted(found.picks + found.kept) == list(range(6))
    assert not found.weight[:, found.picks].any() and found.weight[:, found.kept].flatten(2).any(2).all()


def test_several_picks_of_one_pass_are_those_of_the_best_scores() -> None:
    problem = toy_problem()
    gradient = problem.evaluate(torch.zeros_like(problem.start), problem.start_bias).weight_gradient
    ranked = scores(problem.by_channel(gradient), "fro").argsort(descending=True).tolist()
    found = list(ChannelSelection(picks_per_pass=3).passes(problem, 5))
    assert [len(state.picks) for state in found] == [3, 5]
    assert found[0].picks == ranked[:3]


def test_equal_scores_go_to_the_lowest_number() -> None:
    assert best(torch.tensor([1.0, 3.0, 2.0, 3.0 + 1e-7]).double(), 3) == [1, 3, 2]
    assert best(torch.zeros(3), 2) == [0, 1]


def test_random_picks_are_those_of_the_seed() -> None:
    problem = toy_problem()
    draws = [ChannelSelection(score="random", seed=seed).select(problem, 3).picks for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) > 1
    assert all(len(set(draw)) == 3 for draw in draws)


def test_a_given_order_is_followed() -> None:
    found = ChannelSelection().select(toy_problem(), 3, order=[5, 0, 3, 1, 2, 4])
    assert found.picks == [5, 0, 3]


def test_it_ends_where_a_pick_changes_the_loss_by_no_more_than_the_tolerance() -> None:
    problem = toy_problem()
    every = list(ChannelSelection(tolerance=0.0).passes(problem))
    losses = [every[0].start_loss, *every[-1].losses]
    changes = [abs(a - b) / losses[0] for a, b in pairwise(losses)]
    for tolerance in (1e-3, 0.02, 0.1, 10.0):
        expected = next((t for t, change in enumerate(changes, 1) if change <= tolerance), len(changes))
        assert len(ChannelSelection(tolerance=tolerance).select(problem).picks) == expected
    counts = [len(ChannelSelection(tolerance=eps).select(problem).picks) for eps in (1e-4, 1e-2, 0.1)]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize(
    "minimiser",
    [Backtracking(), GaussNewton(), InverseLipschitz(), Sgd(batch_size=5, passes=2)],
    ids=lambda m: type(m).__name__,
)
def test_a_selection_taken_up_again_ends_with_the_same_bits(minimiser: Backtracking) -> None:
    selection = ChannelSelection(minimiser=minimiser, seed=3)
    problem = toy_problem(toy_layer().float(), toy_inputs().float())
    whole = list(selection.passes(problem, 5))
    kept = io.BytesIO()
    torch.save(whole[1].state_dict(), kept)
    kept.seek(0)
    taken_up = Selection.load(torch.load(kept, weights_only=True))
    again = selection.select(toy_problem(toy_layer().float(), toy_inputs().float()), 5, state=taken_up)
    assert again.picks == whole[-1].picks and again.losses == whole[-1].losses
    assert torch.equal(again.weight, whole[-1].weight)
    assert again.bias is not None and whole[-1].bias is not None and torch.equal(again.bias, whole[-1].bias)
    assert list(selection.passes(problem, 5, state=again)) == []


def test_a_sub_problem_that_is_not_finite_leaves_the_weights_before_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    problem = toy_problem(toy_layer().float(), toy_inputs().float(), name="stages.0.1.conv2")
    minimiser = Sgd(lr=1e30, batch_size=4)
    found = ChannelSelection(minimiser=minimiser).select(problem, 3)
    assert len(found.kept) == 3 and all(math.isfinite(loss) for loss in found.losses)
    assert torch.equal(found.weight[:, found.kept], problem.start[:, found.kept])
    lines = capsys.readouterr().err.splitlines()
    assert lines == [f"[dcp] {note}" for note in found.notes]
    assert len(lines) == 3 and lines[0].startswith(
        "[dcp] layer stages.0.1.conv2: the sub-problem after 1 picks is not finite"
    )


def test_a_loss_without_a_finite_value_ends_with_the_last_good_state() -> None:
    problem = toy_problem(name="conv2")
    tail = toy_tail()

    def breaking(outputs: Tensor, rows: Rows) -> Tensor:
        # the third channel that comes in breaks it
        return tail(outputs, rows) * (math.nan if breaking_now["now"] else 1.0)

    breaking_now = {"now": False}
    problem.tail = breaking
    seen = []
    with pytest.raises(
        SelectionFailed, match=r"^layer conv2: its loss is not finite after 3 picks"
    ) as failed:
        for state in ChannelSelection().passes(problem, 5):
            seen.append(state)
            breaking_now["now"] = len(state.picks) == 2
    assert failed.value.selection is not None
    assert failed.value.selection.picks == seen[-1].picks and len(seen) == 2
    assert torch.equal(failed.value.selection.weight, seen[-1].weight)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"score": "l1"}, "method.score=l1; valid: fro, code, random"),
        ({"direction": "up"}, "method.direction=up; valid: forward, backward"),
        ({"picks_per_pass": 0}, "method.picks_per_pass=0"),
        ({"tolerance": -1.0}, "method.tolerance=-1.0"),
        ({"direction": "backward", "tolerance": 0.1}, "method.tolerance: with direction=backward"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        ChannelSelection(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [0, 7, None])
def test_a_number_of_channels_that_the_layer_has_not_is_refused_by_name(kept: int | None) -> None:
    with pytest.raises(UserError, match=r"^layer conv7: .*valid: "):
        ChannelSelection().select(toy_problem(name="conv7"), kept)


def test_an_order_that_lacks_channels_is_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"^layer layer: the order"):
        ChannelSelection().select(toy_problem(), 3, order=[1, 1, 2])


def test_a_picked_channel_is_never_picked_again() -> None:
    state = ChannelSelection().select(toy_problem(), 6)
    assert sorted(state.picks) == list(range(6))
    assert replace(state, direction="backward").kept == []


def test_a_state_of_another_layer_or_direction_is_refused_by_name() -> None:
    state = ChannelSelection().select(toy_problem(), 2)
    with pytest.raises(UserError, match=r"^layer conv2: the state .* weights \(5, 6, 3, 3\), not forward in"):
        ChannelSelection().select(toy_problem(toy_layer(channels=4), name="conv2"), 3, state=state)
    with pytest.raises(UserError, match=r"^layer conv2: the state .* forward .* not backward"):
        ChannelSelection(direction="backward").select(toy_problem(name="conv2"), 3, state=state)
