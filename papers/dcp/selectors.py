"""What chooses the channels of a network: discrimination-aware selection and its baselines, as settings.

Each is a choice of the config group `method`, of kind `selection`. `papers.dcp.selection_module` asks it for
a plan, and then layer by layer for the states of a selection, of which each can be gone on from.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypedDict, Unpack, get_args

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.limits import require
from common.base.stages import Stage, require_stage
from common.pruning.channels import ChannelGroup
from common.pruning.rates import require_rate
from papers.dcp.channel_pruning import channel_pruning
from papers.dcp.cut import cached_problem
from papers.dcp.layer_problem import LayerProblem, kept_channels
from papers.dcp.policy import prunable
from papers.dcp.rankings import by_weight_sum, by_zero_fraction
from papers.dcp.selection import ChannelSelection, Direction, Score, Selection, SelectionFailed
from papers.dcp.slimming import norm_scales, slim
from papers.dcp.sub_problem import Backtracking, GaussNewton, InverseLipschitz, LeastSquares, Minimiser, Sgd
from papers.dcp.thinet import thinet

Step = Literal["backtracking", "gauss_newton", "inverse_lipschitz", "least_squares", "sgd", "none"]
Finetune = Literal["joint", "per_stage"]


@dataclass(frozen=True, eq=False)
class Target:
    """A layer whose input channels are selected.

    Attributes:
        layer: its name.
        group: the channels.
        kept: how many stay; None: as many as the selector's own rule lets in.
        order: the channels in the order in which they are picked, where that is known beforehand.
    """

    layer: str
    group: ChannelGroup
    kept: int | None
    order: Sequence[int] | None = None


@dataclass(eq=False)
class Work:
    """A network as far as it has been pruned, and what a selector may look at.

    Attributes:
        network: in evaluation mode, with zeros where channels are gone.
        baseline: the network before the first layer was pruned.
        inputs, targets: the selection set.
        end, head: after which module the layer's discrimination loss is measured, and by which head; None:
            by the network's own outputs.
        loss: of the head's logits, or the network's outputs, and the targets.
        seed: of what is drawn for this layer.
    """

    network: nn.Module
    baseline: nn.Module
    inputs: Tensor
    targets: Tensor | None
    end: str | None
    head: nn.Module | None
    loss: Callable[[Tensor, Tensor], Tensor]
    seed: int


class SelectorSettings(TypedDict):
    """What every selector takes.

    Attributes:
        prepared: the run that prepared the pre-trained network for it (auxiliary losses, sparse scales);
            None: the pre-trained network is selected from as it is.
        rate: eta, the part of a layer's channels that goes, in [0, 1).
        layers: names of layers, or of blocks that hold some, whose input channels are selected; None: all
            that can be (`papers.dcp.policy`).
        samples: size of the selection set, drawn from the training split, each class in its share; None: all
            of it.
    """

    prepared: Stage | str | None
    rate: float
    layers: list[str] | None
    samples: int | None


class LossSettings(SelectorSettings):
    """What a selector takes that measures L = reconstruction L_M + discrimination L_S.

    Attributes:
        reconstruction, discrimination: the weights of L_M and L_S (lambda); at least 0, one of them above it.
            L_M has the paper's factor 1/2; the authors' code, which has none, has a reconstruction of 2.
        step: what solves the sub-problem after a pick: "backtracking" (steps that lower L, as long as they
            can be), "gauss_newton" (those in the metric of the layer's outputs), "inverse_lipschitz" (steps
            1/L from the Gram matrix; reconstruction above 0), "least_squares" (exact; discrimination 0),
            "sgd" (authors' code), "none" (the pre-trained weights).
        steps: how many after each pick; of "sgd" passes over the selection set.
        lr: of "sgd".
    """

    reconstruction: float
    discrimination: float
    step: Step
    steps: int
    lr: float


class Selector(ABC):
    """What chooses channels, and new weights for the layers that take them.

    Args:
        settings: see `SelectorSettings`.

    Raises:
        UserError: numbers out of range.
    """

    STAGES: ClassVar[tuple[str, ...]] = ("prepared",)
    # whether the run leaves a picture of what the first layer's channels see
    DRAWS: ClassVar[bool] = False

    def __init__(self, **settings: Unpack[SelectorSettings]) -> None:
        prepared, self.rate, self.samples = settings["prepared"], settings["rate"], settings["samples"]
        self.layers = settings["layers"]
        require("at least 1", "method", samples=self.samples)
        require_rate(self.rate)
        self.prepared = None if prepared is None else require_stage(prepared, "method.prepared")

    @classmethod
    def check_settings(cls, **settings: Any) -> None:
        """Refuse settings that do not go together, before the runs are made that the selector needs.

        Raises:
            UserError: see above.
        """
        cls(**settings | {"prepared": None})

    def plan(self, network: nn.Module, layers: dict[str, ChannelGroup]) -> list[Target]:
        """What is to be done, layer by layer, in the order of execution."""
        return [
            Target(layer, group, kept_channels(group.channels, self.rate, layer))
            for layer, group in layers.items()
        ]

    @property
    def discriminates(self) -> bool:
        """Whether a discrimination loss is measured, which needs classes."""
        return False

    def problem(self, target: Target, work: Work) -> LayerProblem:
        """L of a layer; here L_M alone."""
        return problem_of(target, work, reconstruction=1.0, discrimination=0.0)

    @abstractmethod
    def passes(self, target: Target, work: Work, state: Selection | None) -> Iterator[Selection]:
        """The states of a layer's selection after each pass; the last one has `ended`.

        Args:
            target: the layer.
            work: see there.
            state: one that this gave before a stop; None: from the beginning.

        Raises:
            SelectionFailed: a loss that is not finite.
        """


class LossSelector(Selector):
    """A selector that measures L, and refits by it what was chosen.

    Args:
        settings: see `LossSettings`.

    Raises:
        UserError: numbers out of range.
    """

    def __init__(self, **settings: Unpack[LossSettings]) -> None:
        super().__init__(**settings)  # type: ignore[misc]
        self.reconstruction, self.discrimination = settings["reconstruction"], settings["discrimination"]
        require(
            "at least 0", "method", reconstruction=self.reconstruction, discrimination=self.discrimination
        )
        if self.reconstruction == self.discrimination == 0:
            raise UserError(
                "method.reconstruction=0 method.discrimination=0 leave no loss (valid: one of them above 0)"
            )
        self.minimiser = minimiser_of(settings["step"], settings["steps"], settings["lr"])

    @property
    def discriminates(self) -> bool:
        return self.discrimination > 0

    def problem(self, target: Target, work: Work) -> LayerProblem:
        """See `Selector`, with both losses."""
        return problem_of(target, work, self.reconstruction, self.discrimination)

    def selection(self, work: Work, picks_per_pass: int, **settings: Any) -> ChannelSelection:
        """The greedy selection of one layer."""
        return ChannelSelection(
            minimiser=self.minimiser, seed=work.seed, picks_per_pass=picks_per_pass, **settings
        )


class Greedy(LossSelector):
    """Algorithm 2: the channel whose weights have the largest gradient of L, again and again.

    With discrimination 0 it is the reconstruction-only, with reconstruction 0 the CE-only method of table 6;
    with score "random" it is Random DCP.

    Args:
        score, direction, picks_per_pass: see `papers.dcp.selection.ChannelSelection`.
        epsilon: of DCP-Adapt: a layer's selection ends where a pick changes L by this share of L(W = 0) or
            less, whatever the rate; null: by the rate.
        losses: P: of the words in `preparations`, and of finetune "per_stage".
        finetune: "joint": the network was trained with all heads before (`prepared`); "per_stage": it is
            trained within this run before each head's layers, for paper.epochs in all, by `optimizer`, with
            that head's loss and its own (Algorithm 1).
        preparations: the words of `prepared` for each of these.
        optimizer: of finetune "per_stage".
        settings: see `LossSettings`.

    Raises:
        UserError: numbers out of range, or that do not go together.
    """

    def __init__(
        self,
        *,
        score: Score,
        direction: Direction,
        picks_per_pass: int,
        epsilon: float | None,
        losses: int | None,
        finetune: Finetune,
        preparations: dict[str, str | None],
        optimizer: Callable[..., torch.optim.Optimizer],
        **settings: Unpack[LossSettings],
    ) -> None:
        if finetune not in get_args(Finetune):
            raise UserError(f"method.finetune={finetune}; valid: {', '.join(get_args(Finetune))}")
        super().__init__(**settings)
        self.settings: dict[str, Any] = {"score": score, "direction": direction, "tolerance": epsilon}
        self.picks_per_pass, self.losses, self.finetune, self.optimizer = (
            picks_per_pass,
            losses,
            finetune,
            optimizer,
        )
        # values out of range are refused now, not at the first layer
        ChannelSelection(picks_per_pass=picks_per_pass, **self.settings)

    def plan(self, network: nn.Module, layers: dict[str, ChannelGroup]) -> list[Target]:
        """By the rate, or with a tolerance each layer up to where it lets in no more."""
        if self.settings["tolerance"] is None:
            return super().plan(network, layers)
        return [Target(layer, group, None) for layer, group in layers.items()]

    def passes(self, target: Target, work: Work, state: Selection | None) -> Iterator[Selection]:
        """See `Selector`."""
        selection = self.selection(work, self.picks_per_pass, **self.settings)
        yield from selection.passes(self.problem(target, work), target.kept, state=state)


class DrawnGreedy(Greedy):
    """`Greedy`, which leaves a picture of the first layer's channels (figure 2)."""

    DRAWS = True


class RankingSettings(LossSettings):
    """What a `Ranking` takes.

    Attributes:
        criterion: "weight_sum": the largest sums of |W[:, k]| stay (Li et al. 2017); "apoz": those whose
            activations are 0 least often (Hu et al. 2016).
        picks_per_pass: channels after which the sub-problem is solved; with step "none" the whole ranking is
            taken at once.
    """

    criterion: Literal["weight_sum", "apoz"]
    picks_per_pass: int


class Ranking(LossSelector):
    """The first channels of an order that needs no search, with the pre-trained weights or refitted ones.

    Args:
        settings: see `RankingSettings`.

    Raises:
        UserError: numbers out of range, another criterion.
    """

    def __init__(self, **settings: Unpack[RankingSettings]) -> None:
        orders = {"weight_sum": by_weight_sum, "apoz": by_zero_fraction}
        if settings["criterion"] not in orders:
            raise UserError(f"method.criterion={settings['criterion']}; valid: {', '.join(orders)}")
        require("at least 1", "method", picks_per_pass=settings["picks_per_pass"])
        super().__init__(**settings)  # type: ignore[misc]
        self.order, self.picks_per_pass = orders[settings["criterion"]], settings["picks_per_pass"]
        self.at_once = settings["step"] == "none"

    def passes(self, target: Target, work: Work, state: Selection | None) -> Iterator[Selection]:
        """See `Selector`."""
        problem = self.problem(target, work)
        assert target.kept is not None
        selection = self.selection(work, target.kept if self.at_once else self.picks_per_pass)
        yield from selection.passes(problem, target.kept, state=state, order=self.order(problem))


class ThiNet(Selector):
    """The channels whose removal changes the next layer's outputs least, greedily (Luo et al. 2017).

    Args:
        outputs: how many outputs of a layer are looked at, at random places of the selection set.
        settings: see `SelectorSettings`.
    """

    def __init__(self, *, outputs: int, **settings: Unpack[SelectorSettings]) -> None:
        super().__init__(**settings)
        require("at least 1", "method", outputs=outputs)
        self.outputs = outputs

    def passes(self, target: Target, work: Work, state: Selection | None) -> Iterator[Selection]:
        """See `Selector`: a single pass."""
        problem = self.problem(target, work)
        assert target.kept is not None
        kept, weight = thinet(problem, target.kept, samples=self.outputs, seed=work.seed)
        yield at_once(problem, kept, weight, problem.start_bias)


class ChannelLasso(Selector):
    """CP: the channels that a LASSO over the layer's outputs lets in, refitted (He et al. 2017).

    Args:
        settings: see `SelectorSettings`.
    """

    def passes(self, target: Target, work: Work, state: Selection | None) -> Iterator[Selection]:
        """See `Selector`: a single pass."""
        problem = self.problem(target, work)
        assert target.kept is not None
        yield at_once(problem, *channel_pruning(problem, target.kept))


class Slimming(Selector):
    """Network slimming: the smallest scales of all batch normalisations together go (Liu et al. 2017).

    `rate` is the part of the channels of all layers together.

    Args:
        strength: of the words in `prepared`: the weight of sum |gamma| in the training before.
        settings: see `SelectorSettings`.

    Raises:
        UserError: in `plan` a layer that would lose all its channels, or one without batch normalisation.
    """

    def __init__(self, *, strength: float, **settings: Unpack[SelectorSettings]) -> None:
        super().__init__(**settings)
        self.strength = strength

    def plan(self, network: nn.Module, layers: dict[str, ChannelGroup]) -> list[Target]:
        """All layers are planned at once."""
        keep = slim(norm_scales(network, list(layers.values())), self.rate)
        return [
            Target(layer, group, len(keep[group.name]), order=keep[group.name])
            for layer, group in layers.items()
        ]

    def passes(self, target: Target, work: Work, state: Selection | None) -> Iterator[Selection]:
        """See `Selector`: a single pass, and the weights stay."""
        problem = self.problem(target, work)
        assert target.order is not None
        kept = list(target.order)
        weight = torch.zeros_like(problem.start)
        problem.by_channel(weight)[:, kept] = problem.by_channel(problem.start)[:, kept]
        yield at_once(problem, kept, weight, problem.start_bias)


def layers_within(
    network: nn.Module, shape: tuple[int, ...], names: Sequence[str] | None
) -> dict[str, ChannelGroup]:
    """The layers whose input channels are selected, with these, in the order of execution.

    Args:
        network, shape: see `papers.dcp.policy.prunable`.
        names: of layers, or of blocks that hold some; None: all.

    Raises:
        UserError: as `prunable`, or a name with no such layer.
    """
    found = prunable(network, shape)
    if names is None:
        return found
    for name in names:
        if not any(_lies_in(layer, name) for layer in found):
            raise UserError(
                f"method.layers: no layer that can be pruned in {name} (valid: {', '.join(found)})"
            )
    return {layer: g for layer, g in found.items() if any(_lies_in(layer, name) for name in names)}


def _lies_in(layer: str, name: str) -> bool:
    return layer == name or layer.startswith(f"{name}.")


def minimiser_of(step: Step, steps: int, lr: float) -> Minimiser:
    """The solver of the sub-problem.

    Raises:
        UserError: another name, numbers out of range.
    """
    require("at least 0", "method", steps=steps)
    require("positive", "method", lr=lr)
    solvers: dict[str, Callable[[], Minimiser]] = {
        "backtracking": lambda: Backtracking(steps),
        "gauss_newton": lambda: GaussNewton(steps),
        "inverse_lipschitz": lambda: InverseLipschitz(steps),
        "least_squares": LeastSquares,
        "sgd": lambda: Sgd(lr=lr, passes=steps),
        "none": lambda: Backtracking(0),
    }
    if step not in solvers:
        raise UserError(f"method.step={step}; valid: {', '.join(solvers)}")
    return solvers[step]()


def _labels(work: Work) -> Tensor:
    """The labels of the selection set; of a set without any numbers that no loss looks at."""
    return torch.zeros(len(work.inputs)) if work.targets is None else work.targets


def problem_of(target: Target, work: Work, reconstruction: float, discrimination: float) -> LayerProblem:
    """The problem of a layer, everything before the layer computed once."""
    linear = isinstance(work.network.get_submodule(target.layer), nn.Linear)
    return cached_problem(
        work.network,
        work.baseline,
        target.layer,
        work.inputs,
        _labels(work),
        end=work.end,
        head=work.head,
        loss=work.loss,
        mse_weight=reconstruction,
        lam=discrimination,
        channels=target.group.channels if linear else None,
    )


def at_once(problem: LayerProblem, kept: list[int], weight: Tensor, bias: Tensor | None) -> Selection:
    """The end of a selection that had one pass.

    Raises:
        SelectionFailed: its loss is not finite.
    """
    found = problem.evaluate(weight, bias)
    if not found.finite:
        raise SelectionFailed(f"layer {problem.name}: its loss is not finite", None)
    return Selection(
        direction="forward",
        channels=problem.channels,
        picks=kept,
        weight=weight,
        bias=bias,
        start_loss=found.loss,
        losses=[found.loss],
        terms=[(found.terms.reconstruction, found.terms.discrimination)],
        ended=True,
    )
