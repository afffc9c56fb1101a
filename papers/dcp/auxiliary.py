"""Training with discrimination losses within the network: what comes before channels are selected.

Zhuang et al., NeurIPS 2018, section 3.2, in the joint form of the authors' code: one training of the whole
network by its own loss and by those of P heads after blocks within it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts, Pass, TrainingMethod, beside
from common.base.modes import evaluation_mode
from common.base.task import penalty
from common.training.loss_terms import LossTerms, forward
from papers.dcp.losses import block_names, gradient_scales, head_for, learning_rate_divisors, pivots
from papers.dcp.slimming import scale_penalty

# kinds of data whose examples have a class each
LABELLED = ("image_classification", "tabular_classification", "face_verification")
# P where nothing is said, if the network has places for so many
USUAL_LOSSES = 2


class WithHeads(nn.Module):
    """A network with the heads that it was trained with.

    Args:
        network: as it is used without them.
        ends: names of the modules after whose outputs the heads stand, in the order of execution.
        heads: one for each.
    """

    def __init__(self, network: nn.Module, ends: list[str], heads: nn.ModuleList) -> None:
        super().__init__()
        self.network, self.ends, self.heads = network, ends, heads

    def forward(self, inputs: Tensor) -> Tensor:
        """What the network gives."""
        found: Tensor = self.network(inputs)
        return found


class _ScaledGradient(torch.autograd.Function):
    """The identity; what comes back through it is multiplied by a number."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * ctx.factor, None


class AuxiliaryLosses(TrainingMethod):
    """loss = L_f + sum over i of L_S^i, where L_S^i reaches the network with a weight of its own.

    L_f is the objective of the inner method, or the task's. L_S^i is the cross-entropy of head i after the
    i-th of P blocks (`papers.dcp.losses.pivots`). A head learns from its loss as it is. What the loss gives
    the layers of the network is multiplied by g_i / sum of g_j over j >= i, with
    g_i = max(0.01, ((piv_i q + 1) / (piv_P q + 1))²): the authors' scale of the gradient and divisor of the
    learning rate. Their code steps for one loss after the other, each with a momentum of its own; here one
    step has their sum.

    Args:
        losses: P; null takes 2, or as many as the network has places for.
        parts: see `MethodParts`.

    Attributes:
        ends: names of the modules after which the heads stand.
        weights: what each loss is multiplied by on its way into the network.

    Raises:
        UserError: an inner method with forward passes of its own; in `attach` more losses than there are
            places, or a task other than classification.
    """

    # an outer method makes its forward pass without what the heads hear
    ONE_PASS = False

    def __init__(self, *, losses: int | None, **parts: Unpack[MethodParts]) -> None:
        super().__init__(**parts)
        for inner in self.chain()[1:]:
            if not inner.ONE_PASS:
                raise UserError(
                    f"method.inner: {type(inner).__name__} makes forward passes of its own, and the "
                    "auxiliary losses need the network's (valid: distillation/kd, attention_transfer, "
                    "factor_transfer, none)"
                )
        self.losses = losses
        self.ends: list[str] = []
        self.weights: list[float] = []
        self.heads = nn.ModuleList()

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is; its heads are made."""
        classes = require_classes(data)
        self.ends, self.weights = places_of(student, self.losses)
        self.heads = heads_after(student, self.ends, data.shape, classes)
        return super().attach(student, make_model, data)

    def loss(self, student: nn.Module, inputs: Tensor, targets: Tensor | None) -> Tensor:
        """All terms, and the student's own penalty."""
        with heard(student, self.ends) as outputs:
            seen = forward(self, student, inputs, targets)
        assert targets is not None
        return self.fit_of(seen) + self.auxiliary_loss(outputs, targets) + penalty(student)

    def auxiliary_loss(self, outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
        """The sum of L_S^i from the outputs of the modules `ends`; 0 without heads."""
        total = torch.zeros((), device=targets.device)
        for end, head, weight in zip(self.ends, self.heads, self.weights, strict=True):
            total = total + functional.cross_entropy(
                head(_ScaledGradient.apply(outputs[end], weight)), targets
            )
        return total

    @torch.no_grad()
    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """`test_head1_error`, ..., in percent, of each head; of the test split alone."""
        inner = super().evaluate(student, data, split)
        if split != "test" or not self.ends:
            return inner
        wrong = [0] * len(self.ends)
        with evaluation_mode(student, self):
            for inputs, targets in data.batches(split, data.evaluation_batch):
                with heard(student, self.ends) as outputs:
                    student(inputs)
                for i, (end, head) in enumerate(zip(self.ends, self.heads, strict=True)):
                    wrong[i] += int((head(outputs[end]).argmax(1) != targets).sum())
        size = data.size(split)
        return beside(inner, {f"test_head{i + 1}_error": 100 * count / size for i, count in enumerate(wrong)})

    def handed_on(self, student: nn.Module) -> nn.Module:
        """The network with its heads, which selection measures its losses by."""
        return WithHeads(self.deployed(student), self.ends, self.heads)


class SparseScales(LossTerms):
    """loss = the inner method's or the task's + strength * sum |gamma| over all batch normalisations.

    The training before pruning of Liu et al., "Learning Efficient Convolutional Networks through Network
    Slimming", ICCV 2017, equation 1.

    Args:
        strength: lambda, at least 0.
        parts: see `MethodParts`.

    Raises:
        UserError: a negative strength; in `attach` a network without batch normalisation.
    """

    def __init__(self, *, strength: float, **parts: Unpack[MethodParts]) -> None:
        super().__init__(**parts)
        require("at least 0", "method", strength=strength)
        self.strength = strength

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is."""
        scale_penalty(student)
        return super().attach(student, make_model, data)

    def fit_of(self, seen: Pass) -> Tensor:
        """All terms."""
        return self.inner_fit_of(seen) + self.strength * scale_penalty(seen.student)


def require_classes(data: DataSet) -> int:
    """The number of classes, one of which each example has.

    Raises:
        UserError: a data set of another kind.
    """
    if data.KIND not in LABELLED or data.classes is None:
        raise UserError(
            f"method: a discrimination loss is one of classes, and {data.NAME} (kind {data.KIND}) has none "
            "for each example (valid: a data set for classification, or method.discrimination=0)"
        )
    return data.classes


def places_of(network: nn.Module, losses: int | None) -> tuple[list[str], list[float]]:
    """The modules after which P heads stand, and the weights with which their losses reach the network.

    Args:
        network: is left in the mode that it was in.
        losses: P; None: `USUAL_LOSSES`, or as many as there are places for.

    Raises:
        UserError: fewer places than losses, or a network that cannot be followed.
    """
    with _same_mode(network):
        names = block_names(network)
    if losses is None:
        losses = max(
            count for count in range(USUAL_LOSSES + 1) if count == 0 or _has_places(len(names), count)
        )
    places = pivots(len(names), losses) if losses else []
    scales = gradient_scales(places, _layers_per_block(network, names))
    weights = [g / divisor for g, divisor in zip(scales, learning_rate_divisors(scales), strict=True)]
    return [names[place - 1] for place in places], weights


def _has_places(blocks: int, losses: int) -> bool:
    try:
        pivots(blocks, losses)
    except UserError:
        return False
    return True


def _layers_per_block(network: nn.Module, names: list[str]) -> int:
    """q: convolutions of a block, those of a shortcut apart; 1 where each layer is a block."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
    counts = [sum(isinstance(m, kinds) for m in network.get_submodule(name).modules()) for name in names]
    # only some blocks have a convolution in their shortcut
    return max(1, min(counts, default=1))


def heads_after(network: nn.Module, ends: list[str], shape: tuple[int, ...], classes: int) -> nn.ModuleList:
    """A head for the output of each of these modules."""
    device = next(network.parameters()).device
    example = torch.zeros(2, *shape, device=device)
    with _same_mode(network):
        return nn.ModuleList(head_for(network, end, example, classes) for end in ends)


@contextmanager
def heard(network: nn.Module, ends: list[str]) -> Iterator[dict[str, Tensor]]:
    """Within it, a forward pass leaves copies of the outputs of these modules, by name.

    Copies, as a later layer may write over them in place.
    """
    found: dict[str, Tensor] = {}

    def hear(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
            found[name] = output.clone()

        return hook

    hooks = [network.get_submodule(name).register_forward_hook(hear(name)) for name in ends]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _same_mode(network: nn.Module) -> Iterator[None]:
    """Put each module back into the mode that it was in."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
