"""Batch normalisation folded into the convolution before it, for networks that are no longer trained."""

import copy
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from common.base.errors import UserError

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)
# what a tensor is asked for without reading its values; attributes, as its shape, go by __get__
FACTS = {"__get__", "size", "dim", "numel", "stride", "is_contiguous", "is_floating_point"}
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class Pair(NamedTuple):
    """The names of a convolution (or linear layer) and of the normalisation that it can take in."""

    layer: str
    norm: str


def folded(network: nn.Module, shape: tuple[int, ...]) -> nn.Module:
    """A copy of a network in evaluation mode, without the batch normalisations that follow a convolution.

    Of y = gamma (W * x + b - mean) / sqrt(var + eps) + beta, with s = gamma / sqrt(var + eps), stays
    y = (s W) * x + (beta + s (b - mean)); s is taken in float64. Where the normalisation was stands an
    identity, so that all other layers keep their names. The outputs are the same but for rounding.

    A normalisation that follows something else does not fold and stays: in pre-activation networks (DenseNet,
    pre-activation ResNets) those of concatenated or added channels, which stand before a ReLU and not after
    a convolution.

    Args:
        network: on any device, in any mode; it stays as it is.
        shape: of one input, without the batch.

    Raises:
        UserError: the network cannot take that shape.
    """
    plain = copy.deepcopy(network).eval()
    for pair in foldable(plain, shape):
        norm = plain.get_submodule(pair.norm)
        _fold(plain.get_submodule(pair.layer), norm)
        _drop(plain, norm)
    return plain


@torch.no_grad()
def foldable(network: nn.Module, shape: tuple[int, ...]) -> list[Pair]:
    """What `folded` folds, in the order of use: seen in one forward pass of an example of zeros.

    A normalisation folds if it has running statistics, and its input is what a convolution (plain or
    transposed, of one to three dimensions, or a linear layer on rows) gave, which nothing else reads, and
    both run once a pass, are of torch's own classes and carry no hooks.

    Args:
        network: in evaluation mode.
        shape: of one input, without the batch.

    Raises:
        UserError: the network cannot take that shape.
    """
    readers = _Readers()
    made: dict[int, str] = {}
    joined: list[Pair] = []
    runs: Counter[str] = Counter()

    def note(name: str) -> Callable[[nn.Module, tuple[Any, ...], Any], None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            runs[name] += 1
            if isinstance(module, NORMS):
                if id(inputs[0]) in made:
                    joined.append(Pair(made[id(inputs[0])], name))
            # normalisation takes the second dimension as channels, a linear layer gives them as the last
            elif isinstance(output, Tensor) and not (isinstance(module, nn.Linear) and output.dim() != 2):
                made[id(output)] = name
                readers.held.append(output)

        return hook

    with ExitStack() as hooks:
        for name, module in _candidates(network):
            hooks.enter_context(module.register_forward_hook(note(name)))
        first = next((p for p in network.parameters() if p.is_floating_point()), torch.empty(0))
        example = torch.zeros(1, *shape, device=first.device, dtype=first.dtype)
        try:
            with readers:
                outputs = network(example)
        except RuntimeError as error:
            reason, name = str(error).strip().splitlines()[0], type(network).__name__
            raise UserError(f"{name} cannot take one example of shape {tuple(shape)}: {reason}") from error
    output_of = {name: number for number, name in made.items()}
    given = {id(leaf) for leaf in tree_leaves(outputs)}
    return [
        pair
        for pair in joined
        if runs[pair.layer] == runs[pair.norm] == 1
        and readers.counts[output_of[pair.layer]] == 1
        and output_of[pair.layer] not in given
    ]


def _candidates(network: nn.Module) -> list[tuple[str, nn.Module]]:
    """Convolutions, linear layers and normalisations that may be folded, each once, by name."""
    return [
        (name, module)
        for name, module in network.named_modules()
        # subclasses may compute something else
        if name
        and type(module) in (*CONVOLUTIONS, nn.Linear, *NORMS)
        and not _hooked(module)
        and not (isinstance(module, NORMS) and module.running_mean is None)
    ]


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)


class _Readers(TorchFunctionMode):
    """Counts how many of torch's functions read each tensor.

    Attributes:
        counts: by the tensor's id.
        held: tensors that must live as long as their ids are compared.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()
        self.held: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "") not in FACTS:
            read = {id(leaf): leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            self.counts.update(read.keys())
            self.held += read.values()
        return func(*args, **kwargs)


@torch.no_grad()
def _fold(layer: nn.Module, norm: nn.Module) -> None:
    """Give a layer the weights and the bias with which it does the work of the normalisation after it."""
    assert isinstance(norm, NORMS) and isinstance(layer, (*CONVOLUTIONS, nn.Linear))
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale, shift = (variance + norm.eps).rsqrt(), torch.zeros_like(mean)
    if norm.affine:
        scale, shift = scale * norm.weight.double(), norm.bias.double()
    bias = shift - scale * (mean if layer.bias is None else mean - layer.bias.double())
    weight = layer.weight.double()
    if isinstance(layer, TRANSPOSED):
        # [inputs, outputs / groups, ...], the inputs in groups
        by_group = weight.unflatten(0, (layer.groups, -1))
        factor = scale.view(layer.groups, 1, -1, *[1] * (weight.dim() - 2))
        weight = (by_group * factor).flatten(0, 1)
    else:
        weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    dtype = layer.weight.dtype
    layer.weight, layer.bias = nn.Parameter(weight.to(dtype)), nn.Parameter(bias.to(dtype))


def _drop(network: nn.Module, norm: nn.Module) -> None:
    """Put an identity wherever a network holds a normalisation."""
    for module in network.modules():
        for name, child in module.named_children():
            if child is norm:
                setattr(module, name, nn.Identity())
