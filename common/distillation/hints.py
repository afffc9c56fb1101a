"""Distillation from a teacher's outputs and from its attention maps."""

import math
from collections.abc import Callable
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts, Pass, TrainingMethod
from common.base.stages import Stage, require_stage
from common.distillation.losses import ATReduction, KDReduction, at_loss, attention_map, kd_loss
from common.distillation.teacher import Teacher
from common.models.features import feature_shapes
from common.training.loss_terms import LossTerms
from common.training.tasks import Classification


class KnowledgeDistillation(LossTerms):
    """ce_weight * CE(y, s) + kd_weight * T^2 KL(softmax(t / T) || softmax(s / T)).

    With an inner method its objective stands in CE's place. The student's own penalty, if it has one, is
    added as it is: no weight scales it.

    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.

    Args:
        parts: see `MethodParts`.
        teacher: the network whose logits t are imitated.
        ce_weight, kd_weight: of the two terms, at least 0.
        temperature: T.
        reduction: see `kd_loss`.

    Raises:
        UserError: numbers out of range, no teacher, another task than classification, other classes than the
            student's.
    """

    STAGES = ("teacher",)

    def __init__(
        self,
        *,
        teacher: Stage | str | None,
        ce_weight: float,
        kd_weight: float,
        temperature: float,
        reduction: KDReduction,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(**parts)
        require_kd_weights(ce_weight, kd_weight, temperature)
        self.teacher = Teacher(require_stage(teacher, "method.teacher").model)
        self.ce_weight, self.kd_weight, self.temperature = ce_weight, kd_weight, temperature
        self.reduction = reduction

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is."""
        require_same_classes(self, student, data)
        return super().attach(student, make_model, data)

    def fit_of(self, seen: Pass) -> Tensor:
        """The two terms."""
        theirs = self.teacher.logits(seen.inputs)
        imitation = kd_loss(seen.outputs, theirs, self.temperature, self.reduction)
        return self.ce_weight * self.inner_fit_of(seen) + self.kd_weight * imitation


class AttentionTransfer(LossTerms):
    """CE + beta * (3 / layers) * sum over layers of the distance of attention maps, and KD if wanted.

    Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017, equation 2; with the weight
    3 / layers of Moonshine's code, which keeps the sum of weights for other numbers of layers than three.
    With an inner method its objective stands in CE's place.

    The maps have unit length, so their mean square falls like 1 / pixels: a beta that was found on images of
    32x32 weighs 16 times as much on 8x8. Hence beta is that of images of P_0 pixels, and multiplied by
    P / P_0 for images of P; the distance "norm" does not depend on the number of pixels, and its beta stays.

    Args:
        parts: see `MethodParts`.
        teacher: the network whose features are imitated.
        beta: weight of each of three layers, for images of `reference_pixels`; at least 0.
        reference_pixels: P_0, height times width of an image; null takes beta as it is for all images.
        reduction: see `at_loss`.
        layers: names of features that both networks have; null takes all of both, in their order.
        beta_decay: "none", or "linear": from beta in the first epoch to 0 after the last.
        ce_weight, kd_weight, temperature, kd_reduction: as KnowledgeDistillation's; kd_weight 0 is AT alone.

    Raises:
        UserError: numbers out of range, no teacher, no such features, features that do not pair or differ in
            height or width.
    """

    STAGES = ("teacher",)
    NEEDS_FEATURES = True

    def __init__(
        self,
        *,
        teacher: Stage | str | None,
        beta: float,
        reference_pixels: int | None,
        reduction: ATReduction,
        layers: list[str] | None,
        beta_decay: Literal["none", "linear"],
        ce_weight: float,
        kd_weight: float,
        temperature: float,
        kd_reduction: KDReduction,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(**parts)
        require_kd_weights(ce_weight, kd_weight, temperature)
        require("at least 0", "method", beta=beta)
        require("positive", "method", reference_pixels=reference_pixels)
        self.teacher = Teacher(require_stage(teacher, "method.teacher").model)
        self.beta, self.reduction, self.layers, self.beta_decay = beta, reduction, layers, beta_decay
        self.reference_pixels = reference_pixels
        self.ce_weight, self.kd_weight = ce_weight, kd_weight
        self.temperature, self.kd_reduction = temperature, kd_reduction
        self.pairs: list[tuple[str, str]] = []

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is; its features and the teacher's are paired, and beta is that of the images."""
        if self.kd_weight:
            require_same_classes(self, student, data)
        if self.reference_pixels is not None and self.reduction == "mean_square":
            self.beta *= math.prod(data.shape[1:]) / self.reference_pixels
        own, other = (feature_shapes(model, data.shape) for model in (student, self.teacher.model))
        self.pairs = paired_features(own, other, self.layers)
        for name, teachers in self.pairs:
            if own[name][1:] != other[teachers][1:]:
                raise UserError(
                    f"method.layers={self.layers}: the student's {name} is {_size(own[name])}, the teacher's "
                    f"{teachers} {_size(other[teachers])} (valid: features of equal height and width)"
                )
        return super().attach(student, make_model, data)

    def fit_of(self, seen: Pass) -> Tensor:
        """All terms."""
        teachers_logits, *teachers_maps = self.teacher.targets(seen.inputs, self._seen)
        maps = [attention_map(seen.features[name]) for name, _ in self.pairs]
        distances = [
            at_loss(own, other, self.reduction) for own, other in zip(maps, teachers_maps, strict=True)
        ]
        total = self.ce_weight * self.inner_fit_of(seen)
        total = total + self._beta() * 3 / len(self.pairs) * torch.stack(distances).sum()
        if self.kd_weight:
            imitation = kd_loss(seen.outputs, teachers_logits, self.temperature, self.kd_reduction)
            total = total + self.kd_weight * imitation
        return total

    def _seen(self, logits: Tensor, features: dict[str, Tensor]) -> tuple[Tensor, ...]:
        maps = [attention_map(features[name]) for _, name in self.pairs]
        return (logits if self.kd_weight else maps[0].new_empty(0), *maps)

    def _beta(self) -> float:
        return self.beta if self.beta_decay == "none" else self.beta * max(0.0, 1 - self.epoch / self.epochs)


def paired_features(
    own: dict[str, tuple[int, ...]], other: dict[str, tuple[int, ...]], layers: list[str] | None
) -> list[tuple[str, str]]:
    """Names of the student's and of the teacher's features that belong together.

    Args:
        own, other: shapes by name, of the student and of the teacher.
        layers: names that both have; None pairs all in their order.

    Raises:
        UserError: a name that one of them lacks, or different numbers of features.
    """
    for name in layers or []:
        for who, names in (("student", own), ("teacher", other)):
            if name not in names:
                raise UserError(
                    f"method.layers={layers}: the {who} has no feature {name} (valid: {', '.join(names)})"
                )
    if layers is None and len(own) != len(other):
        raise UserError(
            f"method.layers=null: the student has {len(own)} features ({', '.join(own)}), the teacher "
            f"{len(other)} ({', '.join(other)}); valid: a list of names that both have"
        )
    return list(zip(layers or own, layers or other, strict=True))


def require_same_classes(method: TrainingMethod, student: nn.Module, data: DataSet) -> None:
    """Refuse to imitate logits where there are none, or of another number of classes.

    Raises:
        UserError: the task is not classification, or the teacher has other classes than the data.
    """
    if not isinstance(method.task, Classification):
        raise UserError(
            f"method: {type(method).__name__} imitates a classifier's logits, and this model is for "
            f"{student.task} (valid: distillation/attention_transfer with kd_weight 0)"
        )
    teacher = method.teacher
    assert isinstance(teacher, Teacher)
    with torch.no_grad():
        count = teacher.model(torch.zeros(1, *data.shape)).shape[-1]
    if count != data.classes:
        raise UserError(f"teacher: it has {count} classes, the data set {data.classes}")


def require_kd_weights(ce_weight: float, kd_weight: float, temperature: float) -> None:
    """Refuse what cannot weigh the terms of a method that imitates logits.

    Raises:
        UserError: a weight below 0, a temperature that is not positive, or one that is not finite.
    """
    require("at least 0", "method", ce_weight=ce_weight, kd_weight=kd_weight)
    require("positive", "method", temperature=temperature)


def _size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))
