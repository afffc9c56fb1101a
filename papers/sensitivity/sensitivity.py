"""Sensitivity: Tartaglione, Lepsoy, Fiandrotti, Francini, "Learning Sparse Neural Networks via
Sensitivity-Driven Regularization", NeurIPS 2018 (arXiv 1810.11764).

The sensitivity of the outputs y to a weight w is S(y, w) = sum_k alpha_k |dy_k / dw|. Weights to which the
outputs are insensitive decay, and those that become small are cut:

    w <- w - eta dL/dw - lambda w max(0, 1 - S(y, w)),     |w| < T: w <- 0 for good.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts, Pass
from common.base.modes import evaluation_mode
from common.base.task import penalty
from common.quantization.converter import require_float
from common.training.loss_terms import forward
from papers.sensitivity.per_sample import Call, absolute_sums, gradients_by_direction, recorded
from papers.sensitivity.pruning import Chosen, WeightPruning
from papers.sensitivity.thresholds import Cutting, FixedThreshold, Plateau

Alpha = Literal["unspecific", "specific"]
Kind = Literal["unspecific", "specific", "loss", "zero"]
# of these S is that of the outputs
MEASURED = ("unspecific", "specific")
Order = Literal["simultaneous", "after"]
Pruning = Literal["fixed_threshold", "plateau", "none"]
Output = Literal["logits", "softmax"]
BatchReduce = Literal["mean_of_abs", "abs_of_mean"]
Rescale = Literal["none", "max"]
Outputs = Literal["all", "sample", "signs"]


@dataclass(frozen=True)
class Measure:
    """How S is measured on a minibatch.

    Attributes:
        alpha: "unspecific": alpha_k = 1 / K for each of the K outputs; "specific": 1 for the target class
            and 0 for the others.
        output: y: the network's outputs as they are ("logits"), or their softmax, whose derivatives are so
            small in a trained network that S plays next to no part.
        batch_reduce: "mean_of_abs": the mean over examples of S, as S is defined for one. "abs_of_mean":
            sum_k alpha_k |mean over examples of dy_k / dw|, which is never larger, and takes any network.
        rescale: "max" divides the S of each tensor by its largest, so that S spans [0, 1] in every layer
            (of the authors' later SeReNe); "none" takes it as it is.
        outputs: of the unspecific form, how the sum over k is made. "all": one backward pass for each output.
            Ours, for networks of many outputs: "sample" takes `directions` outputs, drawn anew for each
            minibatch without replacement: an unbiased estimate of S. "signs" takes `directions` random sign
            vectors r of K numbers, and the mean of |sum_k r_k dy_k / dw| / sqrt(K): that estimates not S but
            between 0.71 and 1 times the root mean square of dy_k / dw over k (Khintchine's inequality), which
            is S itself where the dy_k / dw are normally distributed over k, and up to sqrt(K) S where one k
            has all.
        directions: see `outputs`; not used by "all".

    Raises:
        UserError: no direction.
    """

    alpha: Alpha = "unspecific"
    output: Output = "logits"
    batch_reduce: BatchReduce = "mean_of_abs"
    rescale: Rescale = "none"
    outputs: Outputs = "all"
    directions: int = 16

    def __post_init__(self) -> None:
        require("at least 1", "method", directions=self.directions)

    def passes(self, outputs: int) -> int:
        """Backward passes for S where the network has so many outputs; the loss takes one more."""
        if self.alpha == "specific":
            return 1
        return outputs if self.outputs == "all" else min(self.directions, outputs)

    def __call__(self, network: nn.Module, inputs: Tensor, targets: Tensor | None) -> dict[str, Tensor]:
        """S of each parameter that needs a gradient, of its shape, by its name.

        The network is taken in evaluation mode: dropout passes all, batch normalisation has its running
        statistics as constants. So the outputs of an example depend on that example alone.

        Args:
            network: gives a tensor [b, ...] of which all but the first dimension are outputs.
            inputs: [b, ...].
            targets: int64 [b], of the specific form.

        Raises:
            UserError: see `of_pass`.
        """
        with recorded(network) as calls, evaluation_mode(network), torch.enable_grad():
            outputs = network(inputs)
        return self.of_pass(network, calls, outputs, targets)

    def of_pass(
        self, network: nn.Module, calls: Sequence[Call], outputs: Tensor, targets: Tensor | None
    ) -> dict[str, Tensor]:
        """The same, of a forward pass in evaluation mode whose `calls` were recorded.

        Raises:
            UserError: outputs that are no tensor [b, ...], the specific form without a class for each
                example, with "mean_of_abs" a layer whose derivatives by single examples cannot be told.
        """
        if not isinstance(outputs, Tensor):
            raise UserError(
                f"method: sensitivity is that of a tensor of outputs, not of a {type(outputs).__name__}"
            )
        examples = len(outputs)
        with torch.enable_grad():
            flat = outputs.float() if outputs.dtype in (torch.bfloat16, torch.float16) else outputs
            flat = flat.softmax(1) if self.output == "softmax" else flat
            flat = flat.reshape(examples, -1)
        directions = self._directions(flat, targets)
        if self.batch_reduce == "mean_of_abs":
            with evaluation_mode(network), torch.enable_grad():
                sums = absolute_sums(network, calls, flat, directions)
            means = {name: _over_processes(each) for name, each in sums.items()}
        else:
            means = _absolute_means(network, flat, directions)
        if self.rescale == "max":
            for each in means.values():
                each /= each.max().clamp_min(torch.finfo(each.dtype).tiny)
        return means

    def _directions(self, outputs: Tensor, targets: Tensor | None) -> Tensor:
        """v_mb, [m, b, K], with S = sum_m sum_b |d(v_mb . y_b) / dw|: alpha and the mean are in them."""
        examples, count = outputs.shape
        scale = 1 / _examples_of_all(examples)
        if self.alpha == "specific":
            if targets is None or targets.dim() != 1 or targets.is_floating_point():
                raise UserError("method.alpha=specific: needs a class for each example (valid: unspecific)")
            return scale * nn.functional.one_hot(targets, count).to(outputs.dtype)[None]
        passes = self.passes(count)
        if self.outputs == "signs":
            signs = torch.randint(2, (passes, 1, count)).to(outputs) * 2 - 1
            return (scale / passes / math.sqrt(count) * signs).expand(-1, examples, -1)
        chosen = torch.arange(count) if passes == count else torch.randperm(count)[:passes]
        hot = nn.functional.one_hot(chosen.to(outputs.device), count).to(outputs.dtype)
        return (scale / passes * hot)[:, None].expand(-1, examples, -1)


def _absolute_means(network: nn.Module, outputs: Tensor, directions: Tensor) -> dict[str, Tensor]:
    """sum_m |sum over b of d(v_mb . y_b) / dw|."""
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    used = torch.autograd.grad(
        outputs, list(trained.values()), torch.zeros_like(outputs), retain_graph=True, allow_unused=True
    )
    reached = {name: p for (name, p), g in zip(trained.items(), used, strict=True) if g is not None}
    means = {name: torch.zeros_like(p) for name, p in trained.items()}
    # every direction has gradients of all parameters, and passes back through all maps
    numbers = sum(p.numel() for p in reached.values()) + 64 * outputs.shape[0] * outputs.shape[1]
    for gradients in gradients_by_direction(outputs, list(reached.values()), directions, numbers):
        for name, gradient in zip(reached, gradients, strict=True):
            means[name] += _over_processes(gradient).abs().sum(0)
    return means


def _examples_of_all(examples: int) -> float:
    """How many examples all processes of the run have in this minibatch."""
    if not distributed.is_initialized():
        return examples
    count = torch.tensor(float(examples))
    distributed.all_reduce(count)
    return float(count)


def _over_processes(sums: Tensor) -> Tensor:
    """A sum over a process's examples as that over those of all processes of the run."""
    if distributed.is_initialized():
        sums = sums.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(sums)
    return sums


def depends_on_mode(network: nn.Module) -> bool:
    """Whether a network has layers that do something else in training than in evaluation."""
    return any(isinstance(layer, _NormBase | _DropoutNd) for layer in network.modules())


def insensitivity(sensitivity: Tensor) -> Tensor:
    """max(0, 1 - S), which lies in [0, 1]; in the place of S, which is not needed any more."""
    return sensitivity.neg_().add_(1).clamp_(min=0)


class Sensitivity(WeightPruning):
    """Sensitivity-driven decay, and the cutting of what has become small.

    A step of the optimizer is followed by w <- w - lambda w' max(0, 1 - S), with w' the weight and S its
    sensitivity before the step (both terms "at the old w"). lambda is not multiplied by the learning rate:
    the decay takes a factor within [1 - lambda, 1] each step, so it should shrink with the minibatches. With
    plain SGD and S = 0 it is weight decay of strength lambda / eta; with lambda = 0 it is SGD.

    The loss and S come from one forward pass, unless the network does something else in training than in
    evaluation (dropout, batch normalisation) or the method is another one's inner method: then S has a pass
    of its own.

    Args:
        decay: lambda, from 0 to 1.
        alpha: "unspecific", "specific": see `Measure`. "loss": S = |dL/dw| (LOBSTER), L the loss of the step.
            "zero": S = 0, which is L2.
        output, batch_reduce, rescale, outputs, directions: see `Measure`.
        order: "simultaneous": the paper's, as above. "after": the decay is taken at the weight after the
            step, as LOBSTER's code does: they differ by lambda eta dL/dw max(0, 1 - S).
        pruning: "fixed_threshold": see `FixedThreshold`; "plateau": see `Plateau`; "none".
        threshold, every: of the fixed threshold.
        tolerance, patience, check: of the plateau.
        begin, parameters, parts: see `WeightPruning`.

    Raises:
        UserError: numbers out of range.
    """

    def __init__(
        self,
        *,
        decay: float,
        alpha: Kind,
        output: Output,
        batch_reduce: BatchReduce,
        rescale: Rescale,
        outputs: Outputs,
        directions: int,
        order: Order,
        pruning: Pruning,
        threshold: float,
        every: float,
        tolerance: float,
        patience: float,
        check: float,
        begin: float,
        parameters: Chosen,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(begin=begin, parameters=parameters, **parts)
        require("from 0 to 1", "method", decay=decay)
        self.decay, self.alpha, self.order = decay, alpha, order
        self.measure = Measure(
            alpha="specific" if alpha == "specific" else "unspecific",
            output=output,
            batch_reduce=batch_reduce,
            rescale=rescale,
            outputs=outputs,
            directions=directions,
        )
        cutting: dict[str, Callable[[], Cutting]] = {
            "fixed_threshold": lambda: FixedThreshold(threshold, every),
            "plateau": lambda: Plateau(tolerance, patience, check),
            "none": Cutting,
        }
        self.cutting = cutting[pruning]()
        self.kept: dict[str, Tensor] = {}

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is.

        Raises:
            UserError: it is quantised, and the sensitivity is that of outputs.
        """
        student = super().attach(student, make_model, data)
        if self.alpha in MEASURED:
            require_float(student, "the sensitivity of outputs")
        self.cutting.attach(student, data, self.task)
        return student

    def passes(self, outputs: int) -> int:
        """Backward passes of a step for S, of a network of so many outputs, beside that for the loss."""
        return self.measure.passes(outputs) if self.decay > 0 and self.alpha in MEASURED else 0

    @property
    def decays(self) -> bool:
        """Whether the step under way has a decay."""
        return self.begun and self.decay > 0

    @property
    def needs_outputs(self) -> bool:
        """Whether S is that of the outputs, which takes backward passes of its own."""
        return self.decays and self.alpha in MEASURED

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The whole objective, of which S is no part; S and the weights as they are, for `after_step`."""
        if not self.needs_outputs or depends_on_mode(student):
            return super().loss(student, inputs, targets)
        with recorded(student) as calls:
            seen = forward(self, student, inputs, targets)
        self._keep(student, self.measure.of_pass(student, calls, seen.outputs, targets))
        return self.inner_fit_of(seen) + penalty(student)

    def fit_of(self, seen: Pass) -> Tensor:
        """`inner_fit_of`; S from a forward pass of its own."""
        if self.needs_outputs:
            self._keep(seen.student, self.measure(seen.student, seen.inputs, seen.targets))
        elif self.decays:
            self._keep(seen.student, {})
        return self.inner_fit_of(seen)

    @torch.no_grad()
    def _keep(self, student: nn.Module, sensitivities: dict[str, Tensor]) -> None:
        """Note max(0, 1 - S), as far as S is known before the step; in the paper's order times w."""
        parameters = self.chosen(student)
        self.kept = {
            name: insensitivity(sensitivities[name]) if sensitivities else torch.ones_like(p)
            for name, p in parameters.items()
        }
        if self.order == "simultaneous":
            torch._foreach_mul_(list(self.kept.values()), list(parameters.values()))

    def after_step(self, student: nn.Module, parameters: dict[str, nn.Parameter], done: float) -> None:
        """Decay, and cut what is due."""
        if self.decays:
            self._decay(parameters)
        self.cutting.step(student, parameters, self.masks, self.begin, done)

    def _decay(self, parameters: dict[str, nn.Parameter]) -> None:
        """w <- w - lambda w' max(0, 1 - S)."""
        steps = [self.kept[name] for name in parameters]
        if self.alpha == "loss":
            gradients = [torch.zeros_like(p) if p.grad is None else p.grad.abs() for p in parameters.values()]
            torch._foreach_mul_(steps, [insensitivity(gradient) for gradient in gradients])
        if self.order == "after":
            torch._foreach_mul_(steps, list(parameters.values()))
        torch._foreach_sub_(list(parameters.values()), steps, alpha=self.decay)
        self.kept = {}

    def get_extra_state(self) -> dict[str, Any]:
        return super().get_extra_state() | {"cutting": self.cutting.state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        super().set_extra_state(state)
        self.cutting.load_state(state["cutting"])
