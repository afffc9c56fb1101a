"""Absolute derivatives of a network's outputs by its parameters, summed over examples, layer by layer.

For a layer with input x_b and output p_b of example b, the derivative of a number f_b by the layer's
parameters follows from x_b and df_b/dp_b alone: so a backward pass to the layers' outputs, of the sum over
the batch, gives the derivatives of every single example without a Jacobian of any.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.func import functional_call, vjp, vmap
from torch.nn import functional

from common.base.errors import UserError

# numbers in the derivatives of some examples by one parameter: more leave the processor's caches
CHUNK_NUMBERS = 2**20
# numbers in the gradients of one vectorised backward pass, which fill the memory
MEMORY_NUMBERS = 2**27


@dataclass(frozen=True)
class Call:
    """One use of a layer in a forward pass.

    Attributes:
        name, layer: of the layer, which has parameters of its own.
        inputs: x, [b, ...], without gradient; None where the layer does not map one tensor to one tensor.
        output: where the gradient by p, the layer's output, arrives, whatever changes p in place afterwards.
        numbers: of p.
    """

    name: str
    layer: nn.Module
    inputs: Tensor | None
    output: GradientEdge | None
    numbers: int


@contextmanager
def recorded(network: nn.Module) -> Iterator[list[Call]]:
    """Within it, each use of a layer with parameters of its own is added to the list that is given."""
    calls: list[Call] = []
    hooks = [
        layer.register_forward_hook(_recorder(calls, name), with_kwargs=True)
        for name, layer in network.named_modules()
        if any(p.requires_grad for p in layer.parameters(recurse=False))
    ]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def _recorder(calls: list[Call], name: str) -> Any:
    def hook(layer: nn.Module, inputs: tuple[Any, ...], more: dict[str, Any], output: Any) -> None:
        plain = len(inputs) == 1 and not more and isinstance(inputs[0], Tensor)
        if plain and isinstance(output, Tensor) and len(output) == len(inputs[0]):
            calls.append(Call(name, layer, inputs[0].detach(), get_gradient_edge(output), output.numel()))
        else:
            calls.append(Call(name, layer, None, None, 0))

    return hook


def absolute_sums(
    network: nn.Module, calls: Sequence[Call], outputs: Tensor, directions: Tensor
) -> dict[str, Tensor]:
    """sum over m and b of |d(v_mb . y_b) / dw| for each parameter w of a network.

    A Linear layer that is used once on [b, in] takes the closed form |d|^T |x| with |d| summed over m, any
    other layer the derivatives of single examples, a few at a time.

    Args:
        network: each of its examples' outputs depends on that example alone, as in evaluation mode.
        calls: of the forward pass that gave `outputs`.
        outputs: y, [b, K], with gradient.
        directions: v, [m, b, K].

    Returns:
        By the names of the parameters that need a gradient; zeros for those that the outputs do not depend
        on.

    Raises:
        UserError: names a layer whose derivatives by single examples cannot be told.
    """
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    names = {id(p): name for name, p in trained.items()}
    uses = _uses(calls, names)
    _require_known(calls, len(outputs), outputs, {n: p for n, p in trained.items() if n not in uses})
    numbers = sum(call.numbers for call in calls)
    sums: dict[str, Tensor] = {}
    for gradients in gradients_by_direction(outputs, [call.output for call in calls], directions, numbers):
        found = dict(zip(map(id, calls), gradients, strict=True))
        sizes = {id(call): found[id(call)].abs().sum(0) for call in calls if _is_plain_linear(call)}
        for name, places in uses.items():
            part = _absolute_sum(places, found, sizes)
            sums[name] = sums[name].add_(part) if name in sums else part
    return {name: sums[name] if name in sums else torch.zeros_like(p) for name, p in trained.items()}


def _is_plain_linear(call: Call) -> bool:
    return isinstance(call.layer, nn.Linear) and call.inputs is not None and call.inputs.dim() == 2


def _uses(calls: Sequence[Call], names: dict[int, str]) -> dict[str, list[tuple[Call, str]]]:
    """For each parameter the calls in which it takes part, and what it is called in that layer."""
    uses: dict[str, list[tuple[Call, str]]] = {}
    for call in calls:
        for own, parameter in call.layer.named_parameters(recurse=False):
            if id(parameter) in names:
                uses.setdefault(names[id(parameter)], []).append((call, own))
    return uses


def _require_known(
    calls: Sequence[Call], batch: int, outputs: Tensor, unseen: dict[str, nn.Parameter]
) -> None:
    for call in calls:
        if call.inputs is None or len(call.inputs) != batch:
            raise UserError(_unknown(f"{call.name} ({type(call.layer).__name__})"))
    if unseen:
        used = torch.autograd.grad(outputs.sum(), list(unseen.values()), retain_graph=True, allow_unused=True)
        for name, gradient in zip(unseen, used, strict=True):
            if gradient is not None:
                raise UserError(_unknown(f"{name}, which is used outside of its layer"))


def _unknown(what: str) -> str:
    return (
        f"method.batch_reduce=mean_of_abs: the derivatives of single examples by {what} cannot be told "
        "(valid: abs_of_mean; layers that map a tensor [batch, ...] to a tensor [batch, ...])"
    )


def gradients_by_direction(
    outputs: Tensor, by: Sequence[Any], directions: Tensor, numbers: int
) -> Iterator[tuple[Tensor, ...]]:
    """d(sum_b v_mb . y_b) by each of several tensors, [m, ...], for some directions after the others.

    Several directions go through one vectorised backward pass, as many as a bounded memory allows.

    Args:
        outputs: y, [b, K].
        by: tensors, or edges of the graph.
        directions: v, [m, b, K].
        numbers: in all that `by` stands for.
    """
    for chunk in directions.split(max(1, MEMORY_NUMBERS // max(1, numbers))):
        yield torch.autograd.grad(outputs, by, chunk, is_grads_batched=True, retain_graph=True)


def _absolute_sum(
    places: list[tuple[Call, str]], gradients: dict[int, Tensor], sizes: dict[int, Tensor]
) -> Tensor:
    """sum over m and b of |d(v_mb . y_b) / dw| of one parameter w.

    Args:
        places: the calls that w takes part in, and what it is called there.
        gradients: by each call's output, [m, b, ...].
        sizes: of plain Linear layers the sum over m of their absolute values, [b, out].
    """
    (call, own), *others = places
    assert call.inputs is not None
    if not others and id(call) in sizes:
        size = sizes[id(call)]
        return size.T @ call.inputs.abs().to(size.dtype) if own == "weight" else size.sum(0)
    gradient = gradients[id(call)]
    parameter = getattr(call.layer, own)
    total = torch.zeros_like(parameter)
    step = max(1, CHUNK_NUMBERS // max(1, parameter.numel(), _columns(call)))
    for index in range(len(gradient)):
        for start in range(0, gradient.shape[1], step):
            part = slice(start, start + step)
            each = [_of_examples(c, name, gradients[id(c)][index, part], part) for c, name in places]
            total += torch.stack(each).sum(0).abs_().sum(0) if others else each[0].abs().sum(0)
    return total


def _of_examples(call: Call, own: str, gradient: Tensor, part: slice) -> Tensor:
    """[b, *w]: the derivatives of single examples by w, from the gradient [b, ...] by the output."""
    layer, inputs = call.layer, call.inputs
    assert inputs is not None
    inputs = inputs[part]
    if isinstance(layer, nn.Conv2d) and own == "weight" and _plain(layer):
        columns = functional.unfold(
            inputs.to(gradient.dtype),
            layer.kernel_size,
            layer.dilation,
            layer.padding,  # type: ignore[arg-type]
            layer.stride,
        )
        return torch.einsum("bol,bil->boi", gradient.flatten(2), columns).unflatten(2, layer.weight.shape[1:])
    if isinstance(layer, nn.modules.conv._ConvNd) and own == "bias":
        return gradient.flatten(2).sum(2)
    return _by_vjp(layer, own, inputs, gradient)


def _columns(call: Call) -> int:
    """Numbers of an example's inputs to a convolution, once for each place that a kernel sees."""
    assert call.inputs is not None
    kernel = getattr(call.layer, "kernel_size", ())
    return call.inputs[0].numel() * math.prod(kernel) if isinstance(kernel, tuple) else 0


def _plain(layer: nn.Conv2d) -> bool:
    return layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)


def _by_vjp(layer: nn.Module, own: str, inputs: Tensor, gradient: Tensor) -> Tensor:
    """The same for any layer: its own derivative, example by example, in one vectorised call."""
    parameter = getattr(layer, own).detach()

    def one(example: Tensor, by_output: Tensor) -> Tensor:
        def run(value: Tensor) -> Tensor:
            return functional_call(layer, {own: value}, (example[None],))

        outputs, pull = vjp(run, parameter)  # type: ignore[misc]
        return pull(by_output[None].to(outputs.dtype))[0]

    return vmap(one)(inputs, gradient).detach()
