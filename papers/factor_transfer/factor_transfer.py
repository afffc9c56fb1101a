"""Factor transfer: Kim, Park, Kwak, "Paraphrasing Complex Network", NeurIPS 2018 (arXiv 1802.04977).

A paraphraser learns to encode and decode the teacher's last feature map x without labels; its code is the
teacher's factor F_T. A translator turns the student's feature map into a factor F_S, and both learn from

    CE(y, student) + beta * || F_T / ||F_T||_2 - F_S / ||F_S||_2 ||_p .
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import ClassVar, Literal, Unpack

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.limits import require
from common.base.method import MethodParts, Pass, beside
from common.base.modes import evaluation_mode
from common.base.stages import Stage, require_stage
from common.distillation.hints import require_kd_weights, require_same_classes
from common.distillation.losses import KDReduction, computed, kd_loss, unit_vectors
from common.distillation.teacher import Teacher
from common.models.features import feature_shapes, forward_features
from common.training.loss_terms import LossTerms

Reconstruction = Literal["l1", "mse"]
FactorReduction = Literal["mean", "norm"]
Size = tuple[int, ...]

SLOPE = 0.1  # of LeakyReLU below 0


def factor_channels(channels: int, rate: float) -> int:
    """Channels of a factor: round(m * k) for m channels of the teacher and the paraphrase rate k.

    Raises:
        UserError: that is no channel at all.
    """
    count = round(channels * rate)
    if count < 1:
        raise UserError(f"model.rate={rate}: {channels} channels give {count} (valid: at least 1 channel)")
    return count


def encoder(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    """Three 3x3 convolutions with LeakyReLU: [b, inputs, h, w] to [b, outputs, h, w].

    The paraphraser's first half and the whole translator (authors' code): inputs -> inputs -> outputs ->
    outputs channels, each convolution with a bias; the height and the width stay.

    Args:
        inputs, outputs: channels.
        batch_norm: between each convolution and its LeakyReLU; the authors' code has none.
    """
    widths = [inputs, inputs, outputs, outputs]
    return _chain(nn.Conv2d, widths, batch_norm)


def decoder(inputs: int, outputs: int, batch_norm: bool) -> nn.Sequential:
    """Three transposed 3x3 convolutions with LeakyReLU: [b, inputs, h, w] to [b, outputs, h, w].

    The paraphraser's second half: inputs -> inputs -> outputs -> outputs channels. Arguments as `encoder`'s.
    """
    widths = [inputs, inputs, outputs, outputs]
    return _chain(nn.ConvTranspose2d, widths, batch_norm)


def _chain(
    layer: type[nn.Conv2d] | type[nn.ConvTranspose2d], widths: list[int], batch_norm: bool
) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        norm = [nn.BatchNorm2d(outputs)] if batch_norm else []
        layers += [layer(inputs, outputs, kernel_size=3, padding=1), *norm, nn.LeakyReLU(SLOPE)]
    return nn.Sequential(*layers)


class Paraphraser(nn.Module):
    """x to decoder(encoder(x)), [b, m, h, w] to itself; encoder(x), [b, round(m k), h, w], is the factor F_T.

    Args:
        channels: m, of the teacher's feature.
        rate: k, the paraphrase rate.
        batch_norm: see `encoder`.

    Raises:
        UserError: a rate that leaves no channel.
    """

    def __init__(self, channels: int, rate: float, batch_norm: bool = False) -> None:
        super().__init__()
        factor = factor_channels(channels, rate)
        self.encoder = encoder(channels, factor, batch_norm)
        self.decoder = decoder(factor, channels, batch_norm)

    def forward(self, feature: Tensor) -> Tensor:
        """The reconstruction of the teacher's feature."""
        return self.decoder(self.encoder(feature))


def factor_loss(student: Tensor, teacher: Tensor, p: int, reduction: FactorReduction) -> Tensor:
    """|| t - s ||_p of factors scaled to unit length, averaged over the batch (equation 3).

    t and s are a sample's factors, each flattened to D numbers and divided by its 2-norm; so the loss does
    not depend on the scale of either, and its gradient is orthogonal to the student's factor.

    Args:
        student: F_S, [b, c, h, w].
        teacher: F_T, of the same shape, without gradient.
        p: of the norm, 1 or 2. With 2, the square of the norm is 2 (1 - cos(F_S, F_T)).
        reduction: "norm": the p-norm over D. "mean": the p-mean (sum |t - s|^p / D)^(1/p), which is the norm
            over D^(1/p); with p = 1 the mean of |t - s|, as in the authors' code. Factors of D numbers that
            differ by the same angle have a p-mean of c_p / sqrt(D) for both p, so one beta fits both.

    Source: the paper's section 3.2; `L1Loss` of normalised factors in Jangho-Kim/Factor-Transfer-pytorch.
    """
    own, other = (unit_vectors(computed(factor).flatten(1)) for factor in (student, teacher))
    difference = own - other
    if p == 1 and reduction == "mean":
        return difference.abs().mean()
    norm = torch.linalg.vector_norm(difference, ord=p, dim=1).mean()
    return norm if reduction == "norm" else norm / difference.shape[1] ** (1 / p)


def size_factor(ratio: float, p: int, reduction: FactorReduction) -> float:
    """By how much the factor loss falls where factors at the same angle have `ratio` times the numbers.

    Numbers of a unit vector are about 1 / sqrt(D), so a p-mean of their differences is c / sqrt(D), and a
    p-norm c D^(1/p - 1/2), which with p = 2 does not depend on D.
    """
    return ratio ** (0.5 if reduction == "mean" else 0.5 - 1 / p)


class ParaphraserModel(nn.Module):
    """Stage 1: a paraphraser of a frozen teacher's feature, trained without labels.

    The loss is the mean over all elements of |x - P(x)| ("l1", the authors' code) or of its square ("mse",
    the paper). The teacher is in evaluation mode, and neither among the parameters nor in the checkpoint.

    Args:
        shape: of one input.
        classes: of the data set; without effect.
        teacher: the network whose feature is paraphrased.
        rate: k, the paraphrase rate, above 0.
        reconstruction: the loss.
        feature: name of the teacher's feature; null takes its last.
        batch_norm: see `encoder`.

    Attributes:
        feature: the name that was taken.
        channels: m, of that feature.

    Raises:
        UserError: a rate that is not above 0 or leaves no channel, no teacher, no such feature, no feature of
            c x h x w.
    """

    STAGES: ClassVar[tuple[str, ...]] = ("teacher",)
    task: ClassVar[Literal["own"]] = "own"

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        teacher: Stage | str | None,
        rate: float,
        reconstruction: Reconstruction,
        feature: str | None,
        batch_norm: bool,
    ) -> None:
        super().__init__()
        require("positive", "model", rate=rate)
        self.teacher = Teacher(require_stage(teacher, "model.teacher").model)
        shapes = _maps(feature_shapes(self.teacher.model, shape))
        self.feature = _named("model.feature", feature, shapes) if feature else list(shapes)[-1]
        self.channels, self.rate, self.reconstruction = shapes[self.feature][0], rate, reconstruction
        self.paraphraser = Paraphraser(self.channels, rate, batch_norm)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Images to the teacher's feature x and its reconstruction P(x), both [b, m, h, w]."""
        (feature,) = self.teacher.targets(inputs, lambda _, features: (features[self.feature],))
        return feature, self.paraphraser(feature)

    def loss_of(self, outputs: tuple[Tensor, Tensor], inputs: Tensor, targets: Tensor | None) -> Tensor:
        """The reconstruction error of a batch: a scalar."""
        return self._error(*outputs)

    def metrics_of(
        self, outputs: tuple[Tensor, Tensor], inputs: Tensor, targets: Tensor | None
    ) -> dict[str, Tensor]:
        """`loss`, and `relative_error`: the mean over samples of sum |x - P(x)| / sum |x|."""
        feature, found = outputs
        wrong, size = (tensor.abs().flatten(1).sum(1) for tensor in (found - feature, feature))
        # a feature that is 0 everywhere has no relative error
        relative = wrong / size.clamp_min(torch.finfo(size.dtype).tiny)
        return {"loss": self._error(feature, found), "relative_error": relative.mean()}

    def _error(self, feature: Tensor, found: Tensor) -> Tensor:
        measure = functional.l1_loss if self.reconstruction == "l1" else functional.mse_loss
        return measure(found, feature)


class FactorTransfer(LossTerms):
    """Stage 2: ce_weight * CE + beta * L_FT(translator(student's feature), factor of the teacher's) + KD.

    The translator is trained with the student, by the same optimizer: two optimizers with the same options,
    as in the authors' code, do the same. The deployed network is the student alone. With an inner
    method its objective stands in CE's place.

    Args:
        parts: see `MethodParts`.
        teacher: the network whose factors are imitated.
        paraphraser: a trained ParaphraserModel of that teacher; null imitates the teacher's last feature.
        rate: k of the paraphraser; 1 without one.
        feature: name of the student's feature; null takes the last whose height and width are the factor's.
        translator: between the student's feature and the loss; without it their shapes must be equal.
        batch_norm: of the translator, see `encoder`.
        p, reduction: see `factor_loss`.
        beta: weight of the factor loss, for factors of `reference_size` numbers; at least 0.
        beta_decay: "none", or "linear": from beta in the first epoch to 0 after the last.
        reference_size: D_0: for factors of D numbers beta is multiplied by what keeps the loss's strength,
            see `size_factor`, so that neither the size of the images nor the channels change it; null takes
            beta as it is.
        ce_weight, kd_weight, temperature, kd_reduction: as KnowledgeDistillation's; kd_weight 0 is FT alone.

    Raises:
        UserError: no teacher, a paraphraser that is none or of another rate or feature, numbers out of range;
            in `attach` features that do not fit.
    """

    STAGES = ("teacher", "paraphraser")
    NEEDS_FEATURES = True

    def __init__(
        self,
        *,
        teacher: Stage | str | None,
        paraphraser: Stage | str | None,
        rate: float,
        feature: str | None,
        translator: bool,
        batch_norm: bool,
        p: Literal[1, 2],
        reduction: FactorReduction,
        beta: float,
        beta_decay: Literal["none", "linear"],
        reference_size: int | None,
        ce_weight: float,
        kd_weight: float,
        temperature: float,
        kd_reduction: KDReduction,
        **parts: Unpack[MethodParts],
    ) -> None:
        super().__init__(**parts)
        require_kd_weights(ce_weight, kd_weight, temperature)
        require("at least 0", "method", beta=beta)
        require("positive", "method", rate=rate, reference_size=reference_size)
        self.teacher = Teacher(require_stage(teacher, "method.teacher").model)
        paraphrases = _paraphraser(paraphraser, rate)
        self.paraphraser = None if paraphrases is None else Teacher(paraphrases.paraphraser.encoder)
        self.paraphrased = None if paraphrases is None else (paraphrases.feature, paraphrases.channels)
        self.feature, self.translates, self.batch_norm = feature, translator, batch_norm
        self.p, self.reduction = p, reduction
        self.beta, self.beta_decay, self.reference_size = beta, beta_decay, reference_size
        self.ce_weight, self.kd_weight = ce_weight, kd_weight
        self.temperature, self.kd_reduction = temperature, kd_reduction
        self.students_feature = self.teachers_feature = ""
        self.translator: nn.Module = nn.Identity()

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student as it is; its feature is chosen, and the translator made."""
        if self.kd_weight:
            require_same_classes(self, student, data)
        factor = self._factor_shape(data.shape)
        shapes = _maps(feature_shapes(student, data.shape))
        self.students_feature = _same_size(self.feature, shapes, factor)
        own = shapes[self.students_feature]
        if self.translates:
            self.translator = encoder(own[0], factor[0], self.batch_norm)
        elif own != factor:
            raise UserError(
                f"method.translator=false: the student's {self.students_feature} is {_text(own)}, the "
                f"teacher's factor {_text(factor)} (valid: equal shapes, or method.translator=true)"
            )
        if self.reference_size is not None:
            self.beta *= size_factor(math.prod(factor) / self.reference_size, self.p, self.reduction)
        return super().attach(student, make_model, data)

    def fit_of(self, seen: Pass) -> Tensor:
        """All terms."""
        teachers_logits, factor = self.teacher.targets(seen.inputs, self._seen)
        distance = self._distance(seen.features, factor)
        total = self.ce_weight * self.inner_fit_of(seen) + self._beta() * distance
        if self.kd_weight:
            imitation = kd_loss(seen.outputs, teachers_logits, self.temperature, self.kd_reduction)
            total = total + self.kd_weight * imitation
        return total

    @torch.no_grad()
    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """`test_factor_loss`, the factor loss without its weight; of the test split alone."""
        inner = super().evaluate(student, data, split)
        if split != "test":
            return inner
        total = torch.zeros((), device=data.device)
        with evaluation_mode(student, self):
            for inputs, _ in data.batches(split, data.evaluation_batch):
                _, factor = self.teacher.targets(inputs, self._seen)
                _, features = forward_features(student, inputs)
                total += len(inputs) * self._distance(features, factor)
        return beside(inner, {"test_factor_loss": float(total) / data.size(split)})

    def _distance(self, features: dict[str, Tensor], factor: Tensor) -> Tensor:
        own = self.translator(features[self.students_feature])
        return factor_loss(own, factor, self.p, self.reduction)

    def _seen(self, logits: Tensor, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The teacher's logits, if they are wanted, and its factor."""
        factor = features[self.teachers_feature]
        if self.paraphraser is not None:
            factor = self.paraphraser.logits(factor)
        return (logits if self.kd_weight else factor.new_empty(0)), factor

    def _factor_shape(self, shape: Size) -> Size:
        """The shape of the teacher's factor; the paraphraser must be of this teacher."""
        shapes = _maps(feature_shapes(self.teacher.model, shape))
        if self.paraphrased is not None:
            name, channels = self.paraphrased
            if shapes.get(name, (0,))[0] != channels:
                raise UserError(
                    f"method.paraphraser: it is of a feature {name} with {channels} channels, the teacher's "
                    f"features are {_sizes(shapes)} (valid: a paraphraser of this teacher)"
                )
            self.teachers_feature = name
        else:
            self.teachers_feature = list(shapes)[-1]
        _, factor = self.teacher.targets(torch.zeros(1, *shape), self._seen)
        return tuple(factor.shape[1:])

    def _beta(self) -> float:
        return self.beta if self.beta_decay == "none" else self.beta * max(0.0, 1 - self.epoch / self.epochs)


def _paraphraser(paraphraser: Stage | str | None, rate: float) -> ParaphraserModel | None:
    """The trained paraphraser, if there is to be one.

    Raises:
        UserError: see FactorTransfer.
    """
    if paraphraser is None:
        if rate != 1:
            raise UserError(f"method.rate={rate}: without a paraphraser the factor is the feature (valid: 1)")
        return None
    stage = require_stage(paraphraser, "method.paraphraser")
    model = stage.model
    if not isinstance(model, ParaphraserModel):
        raise UserError(
            f"method.paraphraser={stage.words}: gives a {type(model).__name__} (valid: model=paraphraser ...)"
        )
    if model.rate != rate:
        raise UserError(f"method.rate={rate}: the paraphraser was made with {model.rate} (valid: the same)")
    return model


def _named(key: str, name: str, shapes: dict[str, Size]) -> str:
    if name not in shapes:
        raise UserError(f"{key}={name}: no such feature (valid: {_sizes(shapes)})")
    return name


def _same_size(name: str | None, shapes: dict[str, Size], factor: Size) -> str:
    """The student's feature of a name, or the last whose height and width are the factor's."""
    fitting = [own for own in shapes if shapes[own][1:] == factor[1:]]
    chosen = _named("method.feature", name, shapes) if name else (fitting or [""])[-1]
    if chosen not in fitting:
        raise UserError(
            f"method.feature={name or 'null'}: the teacher's factor is {_text(factor)}, the student's "
            f"features are {_sizes(shapes)} (valid: one of equal height and width)"
        )
    return chosen


def _maps(shapes: dict[str, Size]) -> dict[str, Size]:
    """The features that have channels, a height and a width.

    Raises:
        UserError: there is none.
    """
    maps: dict[str, Size] = {name: shape for name, shape in shapes.items() if len(shape) == 3}
    if not maps:
        raise UserError(f"factor transfer needs feature maps, the model has {_sizes(shapes)}")
    return maps


def _sizes(shapes: dict[str, Size]) -> str:
    return ", ".join(f"{name} {_text(shape)}" for name, shape in shapes.items())


def _text(shape: Size) -> str:
    return "x".join(map(str, shape))
