"""The losses of distillation that several papers share.

Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (KD); Zagoruyko and Komodakis, "Paying
More Attention to Attention", ICLR 2017 (AT).
"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

KDReduction = Literal["sample", "element"]
ATReduction = Literal["mean_square", "norm"]


def computed(tensor: Tensor) -> Tensor:
    """A tensor as losses compute with it: float64 as it is, everything narrower as float32."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def without_unit(values: Tensor) -> Tensor:
    """Each example of [b, ...] times the power of two that makes its largest number about 1.

    That changes no digit, and squares of it neither vanish nor overflow.
    """
    largest = values.detach().abs().flatten(1).amax(1)
    _, exponents = torch.frexp(largest)
    # the type holds no powers of two beyond these
    limit = math.frexp(torch.finfo(values.dtype).max)[1] - 2
    scales = torch.ldexp(torch.ones_like(largest), -exponents.clamp(-limit, limit))
    return values * scales.view(-1, *[1] * (values.ndim - 1))


def unit_vectors(vectors: Tensor) -> Tensor:
    """v / ||v||_2 of each row of [b, d], whatever the unit of v; a row of zeros stays 0."""
    return functional.normalize(without_unit(vectors), dim=1)


def kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, reduction: KDReduction
) -> Tensor:
    """T^2 KL(softmax(t / T) || softmax(s / T)).

    Args:
        student_logits: s, [b, classes].
        teacher_logits: t, [b, classes], without gradient.
        temperature: T.
        reduction: "sample": the mean over the batch of the sum over classes. "element": the mean over both,
            `classes` times weaker, as PyTorch's `kl_div` with its default reduction, which Moonshine's code
            uses.
    """
    log_student = functional.log_softmax(computed(student_logits) / temperature, dim=1)
    log_teacher = functional.log_softmax(computed(teacher_logits) / temperature, dim=1)
    total = functional.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    count = len(student_logits) if reduction == "sample" else student_logits.numel()
    return temperature**2 * total / count


def attention_map(feature: Tensor) -> Tensor:
    """f(A) / ||f(A)||_2, f the mean over channels of A^2: [b, c, h, w] to [b, h*w] (AT, section 3.1)."""
    return unit_vectors(without_unit(computed(feature)).square().mean(1).flatten(1))


def at_loss(student_maps: Tensor, teacher_maps: Tensor, reduction: ATReduction) -> Tensor:
    """The distance of normalised attention maps q [b, h*w].

    Args:
        student_maps: q_s.
        teacher_maps: q_t, without gradient.
        reduction: "mean_square": the mean over batch and pixels of (q_s - q_t)^2, as in the authors' code.
            "norm": the mean over the batch of ||q_s - q_t||_2, as in AT's equation 2.
    """
    difference = student_maps - teacher_maps
    if reduction == "mean_square":
        return difference.square().mean()
    return difference.norm(dim=1).mean()
