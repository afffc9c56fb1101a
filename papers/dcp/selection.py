"""Greedy channel selection of one layer: Algorithm 2 of Zhuang et al., NeurIPS 2018.

    A <- {}, W <- 0
    repeat:  G <- dL/dW over the whole selection set                       one pass of the tail
             k <- argmax over k not in A of the score of G[:, k];  A <- A + {k};  W[:, k] <- W_0[:, k]
             W <- argmin L(W) over the weights of A                        `sub_problem`
    until |A| = c - floor(eta c), or |L(t-1) - L(t)| / L(W = 0) <= tolerance

The score of a channel is ||G[:, k]||_F (the paper's), or sum_j ||G[j, k]||_F over the outputs j (the
authors' code). Nothing else of the network changes, so the layer's inputs are computed once
(`layer_problem`).

    problem = LayerProblem(layer, inputs, baseline_outputs, tail)
    selected = ChannelSelection().select(problem, kept=kept_channels(problem.channels, eta=0.5))
    selected.kept, selected.weight
"""

import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from common.base.errors import UserError
from common.base.limits import require
from papers.dcp.layer_problem import Evaluation, LayerProblem
from papers.dcp.sub_problem import GaussNewton, Minimiser, Point, masked

Score = Literal["fro", "code", "random"]
Direction = Literal["forward", "backward"]


@dataclass(frozen=True, eq=False)
class Selection:
    """How far the selection of a layer's channels has come; all that it needs to go on.

    Attributes:
        direction: whether `picks` are the channels that stay or those that go.
        channels: c.
        picks: channels in the order in which they were picked.
        weight: the layer's, 0 in every channel that is not kept.
        bias: the layer's, None without one.
        start_loss: L before the first pick: of weights that are all 0, or of the pretrained ones (backward).
        losses: L after each pass.
        terms: (L_M, L_S) after each pass, None for one that has no weight in L.
        step: length of the last step of the sub-problem.
        ended: whether this is the end.
        notes: a line for each time something went wrong and was mended.
    """

    direction: Direction
    channels: int
    picks: list[int]
    weight: Tensor
    bias: Tensor | None
    start_loss: float
    losses: list[float] = field(default_factory=list)
    terms: list[tuple[float | None, float | None]] = field(default_factory=list)
    step: float | None = None
    ended: bool = False
    notes: list[str] = field(default_factory=list)

    @property
    def kept(self) -> list[int]:
        """The channels that stay, ascending."""
        picked = set(self.picks)
        return [k for k in range(self.channels) if (k in picked) == (self.direction == "forward")]

    @property
    def chosen(self) -> Tensor:
        """`kept` as bool [c]."""
        found = torch.zeros(self.channels, dtype=torch.bool, device=self.weight.device)
        found[self.kept] = True
        return found

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain values and tensors, which `torch.save` keeps and `load` takes up again."""
        return asdict(self)

    @classmethod
    def load(cls, state: dict[str, Any]) -> "Selection":
        """What `state_dict` gave."""
        return cls(**state)


class SelectionFailed(UserError):
    """A layer's loss has no finite value to go on from.

    Attributes:
        selection: the last good state, None if there was none.
    """

    def __init__(self, message: str, selection: Selection | None) -> None:
        super().__init__(message)
        self.selection = selection


@dataclass(frozen=True)
class ChannelSelection:
    """The settings of the greedy selection, whatever the layer.

    Args:
        score: "fro" (paper) or "code" (authors' code), see above; "random": the next channel is drawn, all
            alike (the paper's Random DCP).
        direction: "forward" adds the channel of the highest score to none; "backward" starts with all
            channels and removes that of the lowest (Tencent's PocketFlow).
        picks_per_pass: channels picked by one gradient, those of the best scores.
        tolerance: adaptive pruning (DCP-Adapt): end where a pass changed L by this share of L(W = 0) or less;
            None: by number alone.
        minimiser: solves the sub-problem after each pass.
        seed: of random picks and minibatches.

    Raises:
        UserError: values out of range, or a tolerance with direction backward, where L rises.
    """

    score: Score = "fro"
    direction: Direction = "forward"
    picks_per_pass: int = 1
    tolerance: float | None = None
    minimiser: Minimiser = field(default_factory=GaussNewton)
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, valid in (
            ("score", self.score, get_args(Score)),
            ("direction", self.direction, get_args(Direction)),
        ):
            if value not in valid:
                raise UserError(f"method.{name}={value}; valid: {', '.join(valid)}")
        require("at least 1", "method", picks_per_pass=self.picks_per_pass)
        require("at least 0", "method", tolerance=self.tolerance)
        if self.direction == "backward" and self.tolerance is not None:
            raise UserError(
                "method.tolerance: with direction=backward L rises at every pick (valid: null, or forward)"
            )

    def select(
        self,
        problem: LayerProblem,
        kept: int | None = None,
        *,
        state: Selection | None = None,
        order: Sequence[int] | None = None,
    ) -> Selection:
        """The last of `passes`."""
        last = deque(self.passes(problem, kept, state=state, order=order), maxlen=1)
        found = last[0] if last else state
        assert found is not None
        return found

    def passes(
        self,
        problem: LayerProblem,
        kept: int | None = None,
        *,
        state: Selection | None = None,
        order: Sequence[int] | None = None,
    ) -> Iterator[Selection]:
        """The state after each pass: who keeps them can go on after an interruption, with the same bits.

        Args:
            kept: how many channels stay (`kept_channels`); None: all that `tolerance` lets in.
            state: one of an earlier call with the same settings and problem; None: from the beginning.
            order: picks these channels in this order, whatever the score (a ranking by another criterion,
                with the same sub-problem).

        Yields:
            The last one has `ended`.

        Raises:
            UserError: a number of channels, an order or a state that does not fit the layer; neither a number
                nor a tolerance.
            SelectionFailed: L is not finite and was not at any earlier state; it holds the last good state.
        """
        picks = self._count_picks(problem, kept, order)
        self.minimiser.check(problem)
        self._require_own(problem, state)
        here = None
        if state is None:
            state, here = self._begin(problem)
        if picks == 0 and not state.ended:
            yield replace(state, ended=True)
            return
        while not state.ended:
            state, here = self._advance(problem, state, picks, order, here)
            yield state

    def _begin(self, problem: LayerProblem) -> tuple[Selection, Evaluation]:
        forward = self.direction == "forward"
        weight = torch.zeros_like(problem.start) if forward else problem.start
        here = problem.evaluate(weight, problem.start_bias)
        if not here.finite:
            raise SelectionFailed(
                f"layer {problem.name}: its loss or gradient is not finite before any pick", None
            )
        state = Selection(
            self.direction, problem.channels, [], weight, problem.start_bias, start_loss=here.loss
        )
        return state, here

    def _advance(
        self,
        problem: LayerProblem,
        state: Selection,
        picks: int,
        order: Sequence[int] | None,
        here: Evaluation | None,
    ) -> tuple[Selection, Evaluation]:
        """One pass: score, pick, minimise, measure."""
        count = min(self.picks_per_pass, picks - len(state.picks))
        new = self._pick(problem, state, count, order, here)
        before, state = state, replace(state, picks=[*state.picks, *new])
        weight = masked(problem, state.weight, state.chosen)
        if self.direction == "forward":
            # the pretrained weights, where the channel starts
            problem.by_channel(weight)[:, new] = problem.by_channel(problem.start)[:, new]
        warm = Point(weight, state.bias, state.step)
        point, there, note = self._minimise(problem, before, state, warm)
        last = state.losses[-1] if state.losses else state.start_loss
        still = self.tolerance is not None and abs(last - there.loss) <= self.tolerance * state.start_loss
        notes = state.notes if note is None else [*state.notes, note]
        state = replace(
            state,
            weight=point.weight,
            bias=point.bias,
            losses=[*state.losses, there.loss],
            terms=[*state.terms, (there.terms.reconstruction, there.terms.discrimination)],
            step=point.step,
            ended=still or len(state.picks) == picks,
            notes=notes,
        )
        return state, there

    def _minimise(
        self, problem: LayerProblem, before: Selection, state: Selection, warm: Point
    ) -> tuple[Point, Evaluation, str | None]:
        """The solution of the sub-problem, or its start where the solution is not finite."""
        seed = batch_seed(self.seed, len(state.picks))
        point = self.minimiser.minimise(problem, warm, state.chosen, seed)
        there = point.evaluation or problem.evaluate(point.weight, point.bias)
        if there.finite:
            return point, there, None
        note = (
            f"layer {problem.name}: the sub-problem after {len(state.picks)} picks is not finite; "
            "the weights before it are kept"
        )
        print(f"[dcp] {note}", file=sys.stderr)
        there = problem.evaluate(warm.weight, warm.bias)
        if not there.finite:
            raise SelectionFailed(
                f"layer {problem.name}: its loss is not finite after {len(state.picks)} picks; "
                f"the state after {len(before.picks)} is kept",
                before,
            )
        return warm, there, note

    def _pick(
        self,
        problem: LayerProblem,
        state: Selection,
        count: int,
        order: Sequence[int] | None,
        here: Evaluation | None,
    ) -> list[int]:
        """The next `count` channels."""
        done = len(state.picks)
        if order is not None:
            return list(order[done : done + count])
        if self.score == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return torch.randperm(problem.channels, generator=generator)[done : done + count].tolist()
        if here is None:
            here = problem.evaluate(state.weight, state.bias)
        found = scores(problem.by_channel(here.weight_gradient), self.score)
        if self.direction == "backward":
            found = -found
        taken = torch.zeros(problem.channels, dtype=torch.bool)
        taken[state.picks] = True
        return best(found.cpu().masked_fill(taken, -torch.inf), count)

    def _require_own(self, problem: LayerProblem, state: Selection | None) -> None:
        """Refuse a state of another layer or direction."""
        if state is not None and (
            state.weight.shape != problem.start.shape or state.direction != self.direction
        ):
            raise UserError(
                f"layer {problem.name}: the state to go on from is of a selection {state.direction} "
                f"in weights {tuple(state.weight.shape)}, not {self.direction} in "
                f"{tuple(problem.start.shape)}"
            )

    def _count_picks(self, problem: LayerProblem, kept: int | None, order: Sequence[int] | None) -> int:
        channels, name = problem.channels, problem.name
        if kept is None and self.tolerance is None:
            raise UserError(f"layer {name}: no end is given (valid: a number of channels, or a tolerance)")
        kept = channels if kept is None else kept
        problem.require_kept(kept)
        picks = kept if self.direction == "forward" else channels - kept
        if order is not None and (len(set(order)) < picks or not set(order) <= set(range(channels))):
            raise UserError(
                f"layer {name}: the order names not {picks} of its {channels} channels, each once"
            )
        return picks


def scores(gradient: Tensor, score: Score) -> Tensor:
    """The score of each channel from dL/dW as [n, c, p]: [c], float64.

    "fro": ||G[:, k]||_F;  "code": sum over the outputs j of ||G[j, k]||_F.
    """
    # squares of numbers in small units would be 0
    size = gradient.abs().max()
    unit = torch.where((size > 0) & size.isfinite(), size, 1.0).double()
    kernels = (gradient.double() / unit).square().sum(2)
    found = kernels.sqrt().sum(0) if score == "code" else kernels.sum(0).sqrt()
    return found * unit


# scores of single precision that differ by less, relative to the highest, are equal
EQUAL = 1e-6


def best(found: Tensor, count: int) -> list[int]:
    """The channels of the `count` highest scores, [c]; of equal ones the lowest number first."""
    left, picks = found.clone(), []
    for _ in range(count):
        highest = left.max()
        least = highest - EQUAL * highest.abs()
        picks.append(int((left >= least).nonzero()[0]))
        left[picks[-1]] = -torch.inf
    return picks


def batch_seed(seed: int, picks: int) -> int:
    """A seed of the minibatches after so many picks, another one for each."""
    return (seed * 1_000_003 + picks) % 2**63
