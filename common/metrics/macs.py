"""Multiply-adds of a forward pass, counted from the shapes that really occur in it.

One example goes through a copy of the model on the `meta` device in eval mode, so nothing is computed, no
memory is used and the model stays as it is. What counts are the tensor operations below the modules, so
functional layers, attention and recurrent cells count like modules do.
"""

import copy
import math
from collections import defaultdict
from collections.abc import Collection
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from common.base.errors import UserError

Extra = Literal["bias", "batch_norm", "activation", "pooling"]

# operations by their name in PyTorch's ATen, without the underscore of the in-place forms
PRODUCTS = {"mm", "bmm", "mv", "dot"}
ADDED_PRODUCTS = {"addmm", "baddbmm", "addbmm", "addmv"}
ACTIVATIONS = {
    *("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "elu", "selu", "celu", "threshold"),
    *("gelu", "silu", "mish", "sigmoid", "hardsigmoid", "log_sigmoid", "hardswish", "tanh", "softplus"),
}
WINDOW_POOLS = {
    *("avg_pool1d", "avg_pool2d", "avg_pool3d", "max_pool1d", "max_pool2d", "max_pool3d"),
    *("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices"),
}
ADAPTIVE_POOLS = {f"adaptive_{kind}_pool{n}d" for kind in ("avg", "max") for n in (1, 2, 3)}
COUNTED = {"convolution", "linear", "batch_norm", "mean"}.union(
    PRODUCTS, ADDED_PRODUCTS, ACTIVATIONS, WINDOW_POOLS, ADAPTIVE_POOLS
)


def count_macs(model: nn.Module, shape: tuple[int, ...], *, include: Collection[Extra] = ()) -> int:
    """Multiply-adds of one forward pass of one example.

    Counted always:

    - convolutions of 1 to 3 dimensions: (elements of the output) x (inputs / groups) x (kernel's area),
      transposed ones: (elements of the input) x (outputs / groups) x (kernel's area). Padding counts like
      data, dilation costs nothing by itself.
    - linear layers and matrix products (so `@`, einsum, attention, recurrent cells): [n, k] by [k, m] is
      n k m.

    Counted where `include` names it, by papers' own conventions:

    - "bias": one an output element of a layer that adds a bias (the tables of Zhuang et al.,
      "Discrimination-aware Channel Pruning", NeurIPS 2018; for linear layers alone the code of Crowley et
      al., "Moonshine", NeurIPS 2018, and of Huang et al., "CondenseNet", CVPR 2018).
    - "activation": one an element of ReLU, sigmoid and their like; softmax is none (the codes of Moonshine
      and CondenseNet, which see nn.ReLU modules only).
    - "pooling": the inputs that are read: (elements of the output) x (window's area); for adaptive pooling
      and for a mean over positions, the elements of the input (CondenseNet's code, average pooling alone).
    - "batch_norm": one an element, as scale and shift are one multiply-add in eval mode. No paper of this
      project counts it; other tools do.

    Nothing else counts: additions of tensors, products element by element, softmax, other normalisations,
    embeddings, interpolation, loss functions. FLOPs, where a paper means them so, are twice the
    multiply-adds.

    A module with a method `multiply_adds(inputs, outputs)` says its own number, of what it stands for: its
    fast form may multiply by zeros too. What runs within it is not looked at.

    Args:
        model: on any device, in any mode; takes floating-point inputs.
        shape: of one example, without the batch.
        include: see above.

    Raises:
        UserError: the model cannot take that shape, or `include` names something else.
    """
    return sum(macs_by_module(model, shape, include=include).values())


def macs_by_module(
    model: nn.Module, shape: tuple[int, ...], *, include: Collection[Extra] = ()
) -> dict[str, int]:
    """The multiply-adds of `count_macs` by the submodule whose own forward does them, in order of use.

    Names are those of `named_modules`, "" is the model itself. Modules without work of their own are left
    out; a module that runs twice has the sum; the values add up to `count_macs`.
    """
    unknown = sorted(set(include) - set(get_args(Extra)))
    if unknown:
        raise UserError(f"include={unknown}; valid: any of {', '.join(get_args(Extra))}")
    model = meta_copy(model).eval()
    counter = _Counter(frozenset(include))
    _announce_calls(model, counter)
    example = torch.empty(1, *shape, device="meta", dtype=_input_type(model))
    try:
        with torch.inference_mode(), counter:
            model(example)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0]
        name = type(model).__name__
        raise UserError(f"{name} cannot take one example of shape {tuple(shape)}: {reason}") from error
    return {name: count for name, count in counter.counts.items() if count}


def meta_copy(model: nn.Module) -> nn.Module:
    """A copy whose parameters, buffers and plain tensor attributes lie on the `meta` device."""
    plain = [value for module in model.modules() for value in vars(module).values()]
    tensors = [*model.buffers(), *(value for value in plain if isinstance(value, Tensor))]
    copies: dict[int, Any] = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in tensors}
    for parameter in model.parameters():
        empty = torch.empty_like(parameter, device="meta")
        copies[id(parameter)] = nn.Parameter(empty, requires_grad=False)
    return copy.deepcopy(model, copies)


def _input_type(model: nn.Module) -> torch.dtype:
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(floating, torch.get_default_dtype())


def _announce_calls(model: nn.Module, counter: "_Counter") -> None:
    """Let the counter know which module runs, and what those say that count themselves."""

    def enter(name: str) -> Any:
        return lambda module, inputs: counter.running.append(name)

    def leave(module: nn.Module, inputs: Any, outputs: Any) -> None:
        counter.running.pop()

    def enter_own(module: nn.Module, inputs: Any) -> None:
        counter.own += 1

    def leave_own(name: str) -> Any:
        def tell(module: Any, inputs: Any, outputs: Any) -> None:
            counter.own -= 1
            if not counter.own:
                counter.counts[name] += module.multiply_adds(*inputs, outputs)

        return tell

    for name, module in model.named_modules():
        module.register_forward_pre_hook(enter(name), prepend=True)
        module.register_forward_hook(leave)
        if hasattr(module, "multiply_adds"):
            module.register_forward_pre_hook(enter_own)
            module.register_forward_hook(leave_own(name))


class _Counter(TorchDispatchMode):
    """Sees every tensor operation and adds its cost to the module that runs.

    Under inference mode composite operations arrive whole: those with a cost are counted as they are (a
    linear layer is one operation, whatever it is made of), the others are taken apart.
    """

    def __init__(self, include: frozenset[Extra]) -> None:
        super().__init__()
        self.include = include
        self.running: list[str] = []
        # modules that run now and count themselves
        self.own = 0
        self.counts: defaultdict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__.strip("_")
        if func.namespace != "aten" or name not in COUNTED:
            with self:
                parts = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if parts is NotImplemented else parts
        result = func(*args, **kwargs)
        output = result[0] if isinstance(result, tuple) else result
        if not self.own:
            self.counts[self.running[-1]] += _cost(name, args, output, self.include)
        return result


def _cost(name: str, args: tuple[Any, ...], output: Tensor, include: frozenset[Extra]) -> int:
    """The multiply-adds of one operation; `args` are as ATen defines them."""
    if name in PRODUCTS:
        return _product(*args[:2])
    if name in ADDED_PRODUCTS:
        return _product(*args[1:3]) + ("bias" in include) * output.numel()
    if name == "linear":
        inputs, weight, bias = (*args, None)[:3]
        return output.numel() * weight.shape[-1] + _bias(bias, output, include)
    if name == "convolution":
        inputs, weight, bias, transposed = (*args[:3], args[6])
        positions = inputs if transposed else output
        return positions.numel() * weight.shape[1:].numel() + _bias(bias, output, include)
    if name == "batch_norm":
        return ("batch_norm" in include) * output.numel()
    if name in ACTIVATIONS:
        return ("activation" in include) * output.numel()
    return ("pooling" in include) * _pooling(name, args, output)


def _product(left: Tensor, right: Tensor) -> int:
    """[..., n, k] by [..., k, m], either also as a vector [k]."""
    return left.numel() * (right.shape[-1] if right.dim() > 1 else 1)


def _bias(bias: Tensor | None, output: Tensor, include: frozenset[Extra]) -> int:
    return output.numel() if bias is not None and "bias" in include else 0


def _pooling(name: str, args: tuple[Any, ...], output: Tensor) -> int:
    inputs: Tensor = args[0]
    if name == "mean":
        reduced = args[1] if len(args) > 1 else None
        over_positions = reduced and inputs.dim() > 2 and min(d % inputs.dim() for d in reduced) >= 2
        return inputs.numel() if over_positions else 0
    if name in ADAPTIVE_POOLS:
        return inputs.numel()
    window: list[int] = args[1]
    sides = int(name.split("pool")[1][0])
    return output.numel() * (window[0] ** sides if len(window) == 1 else math.prod(window))
