"""The graph of a module, read as a chain of affine maps and ReLUs; everything else is refused by name.

torch.fx records what a module's forward does. Between two ReLUs each value is L'x + c of the chain's input x
there, and each operation is applied to L and to c apart: to L without its own constant. So the matrices of a
chain of nn.Linear are its weights to the last bit, however large a bias is.

What torch.fx does not see is refused as well: an alias changed in place, random numbers drawn in the forward,
a question whether the input is a tensor. The module and its graph are run once each, and must do the same
operations (`check_operations`).
"""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from common.base.errors import UserError


class _Refused(Exception):
    """Why an operation cannot be read; the reader adds the name of the layer."""


class _Batch:
    """The number of examples, where a forward asks for it: it stands for any number."""


BATCH = _Batch()


@dataclass(frozen=True)
class _Affine:
    """L'x + c for the examples' values x [n] after some ReLU.

    Attributes:
        stretch: after how many ReLUs.
        linear: L, [n, *shape]; constant: c, [1, *shape].
        bare: it is x itself, as the input or the ReLU gave it.
    """

    stretch: int
    linear: Tensor
    constant: Tensor
    bare: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return tuple(self.constant.shape[1:])

    def map(self, function: Callable[[Tensor, bool], Tensor]) -> "_Affine":
        """An affine function of each example; it is told whether its own constant counts."""
        linear, constant = function(self.linear, False), function(self.constant, True)
        kept = len(linear) == len(self.linear) and len(constant) == 1
        if not kept or linear.shape[1:] != constant.shape[1:]:
            raise _Refused("it joins the examples of a batch")
        return _Affine(self.stretch, linear, constant)


def _start(stretch: int, shape: tuple[int, ...]) -> _Affine:
    size = math.prod(shape)
    eye = torch.eye(size, dtype=torch.float64).view(size, *shape)
    return _Affine(stretch, eye, torch.zeros(1, *shape, dtype=torch.float64), bare=True)


def _linear(layer: nn.Linear, value: _Affine) -> _Affine:
    return value.map(lambda x, whole: F.linear(x, layer.weight, layer.bias if whole else None))


def _convolution(layer: Any, value: _Affine) -> _Affine:
    _need_dimensions(value, layer.weight.ndim)
    return value.map(lambda x, whole: layer._conv_forward(x, layer.weight, layer.bias if whole else None))


def _batch_norm(layer: Any, value: _Affine) -> _Affine:
    mean, variance = layer.running_mean, layer.running_var
    if mean is None or variance is None:
        raise _Refused("it has no running statistics, so one example's logits depend on the others")
    none = torch.zeros_like(mean)

    def normalise(x: Tensor, whole: bool) -> Tensor:
        center, bias = (mean, layer.bias) if whole else (none, None)
        return F.batch_norm(x, center, variance, layer.weight, bias, False, 0.0, layer.eps)

    return value.map(normalise)


def _unchanged(layer: nn.Module, value: _Affine) -> _Affine:
    if layer.training:
        raise _Refused("it stays in training mode")
    return _Affine(value.stretch, value.linear, value.constant)


def _shaped(layer: nn.Module, value: _Affine) -> _Affine:
    """Layers that are linear themselves: they move or average values."""
    return value.map(lambda x, _: layer(x))


def _need_dimensions(value: _Affine, count: int) -> None:
    # with one dimension less, a convolution takes the examples for channels
    if 1 + len(value.shape) != count:
        raise _Refused(f"it takes inputs of {count - 1} dimensions, not {value.shape}")


# what is affine in evaluation mode, layer by layer
LAYERS: dict[type[nn.Module], Callable[[Any, _Affine], _Affine]] = {
    nn.Linear: _linear,
    nn.Flatten: _shaped,
    nn.Unflatten: _shaped,
    nn.Identity: _unchanged,
    nn.Dropout: _unchanged,
    nn.Dropout2d: _unchanged,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.AvgPool1d: _shaped,
    nn.AvgPool2d: _shaped,
    nn.AdaptiveAvgPool2d: _shaped,
    nn.ZeroPad2d: _shaped,
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
READABLE = ", ".join(layer.__name__ for layer in (*LAYERS, nn.ReLU))
UNKNOWN = f"it is neither a ReLU nor known to be affine (valid: {READABLE})"


def _constant(value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach().double()
    if isinstance(value, (int, float)):
        return torch.tensor(value, dtype=torch.float64)
    raise _Refused("it joins values that are not constants")


def _keeps_shape(result: Tensor, value: _Affine) -> None:
    if result.shape != value.constant.shape:
        raise _Refused("its constant is not of one example's shape")


def _sum(a: Any, b: Any, sign: float) -> Any:
    """a + sign b of values and constants, at least one a value."""
    if isinstance(a, _Affine) and isinstance(b, _Affine):
        if a.shape != b.shape:
            raise _Refused("it adds values of two shapes")
        return _Affine(a.stretch, a.linear + sign * b.linear, a.constant + sign * b.constant)
    if isinstance(b, _Affine):
        constant = _constant(a) + sign * b.constant
        _keeps_shape(constant, b)
        return _Affine(b.stretch, sign * b.linear, constant)
    constant = a.constant + sign * _constant(b)
    _keeps_shape(constant, a)
    return _Affine(a.stretch, a.linear, constant)


def _add(input: Any, other: Any) -> Any:
    return _sum(input, other, 1.0)


def _subtract(input: Any, other: Any) -> Any:
    return _sum(input, other, -1.0)


def _multiply(input: Any, other: Any) -> Any:
    value, factor = (input, other) if isinstance(input, _Affine) else (other, input)
    scale = _constant(factor)
    _keeps_shape(value.constant * scale, value)
    return value.map(lambda x, _: x * scale)


def _divide(input: Any, other: Any) -> Any:
    if not isinstance(input, _Affine):
        raise _Refused("it divides by a value")
    scale = _constant(other)
    _keeps_shape(input.constant / scale, input)
    return input.map(lambda x, _: x / scale)


def _negative(input: _Affine) -> _Affine:
    return input.map(lambda x, _: -x)


def _matrix_product(input: Any, other: Any) -> Any:
    if not isinstance(input, _Affine) or _constant(other).ndim != 2 or len(input.shape) < 1:
        raise _Refused("it is no product of the examples with a constant matrix")
    return input.map(lambda x, _: x @ _constant(other))


def _functional_linear(input: _Affine, weight: Tensor, bias: Tensor | None = None) -> _Affine:
    W, b = _constant(weight), None if bias is None else _constant(bias)
    return input.map(lambda x, whole: F.linear(x, W, b if whole else None))


def _functional_conv2d(
    input: _Affine, weight: Tensor, bias: Tensor | None = None, *rest: Any, **options: Any
) -> _Affine:
    W, b = _constant(weight), None if bias is None else _constant(bias)
    _need_dimensions(input, W.ndim)
    return input.map(lambda x, whole: F.conv2d(x, W, b if whole else None, *rest, **options))


def _pooled(function: Callable[..., Tensor]) -> Callable[..., _Affine]:
    def pool(input: _Affine, *rest: Any, **options: Any) -> _Affine:
        _need_dimensions(input, 4)
        return input.map(lambda x, _: function(x, *rest, **options))

    return pool


def _dropout(input: _Affine, p: float = 0.5, training: bool = True, inplace: bool = False) -> _Affine:
    if training and p != 0:
        raise _Refused("it is random also in evaluation mode (valid: training=self.training)")
    return _Affine(input.stretch, input.linear, input.constant)


def _same(input: _Affine) -> _Affine:
    return _Affine(input.stretch, input.linear, input.constant)


def _flatten(input: _Affine, start_dim: int = 0, end_dim: int = -1) -> _Affine:
    return input.map(lambda x, _: x.flatten(start_dim, end_dim))


def _reshape(input: _Affine, *sizes: Any, shape: Any = None) -> _Affine:
    if shape is not None or (len(sizes) == 1 and isinstance(sizes[0], (tuple, list))):
        sizes = tuple(sizes[0] if shape is None else shape)
    first, *rest = sizes or (None,)
    if not (first is BATCH or first == -1) or not all(isinstance(size, int) for size in rest):
        raise _Refused("its first size is not the number of examples")
    numbers = [int(size) for size in rest]
    # -1 for the number of examples gives it only where the other sizes make up one example
    if first == -1 and (-1 in numbers or math.prod(numbers) != math.prod(input.shape)):
        raise _Refused("it joins the examples of a batch")
    return input.map(lambda x, _: x.reshape(len(x), *numbers))


def _sizes(input: _Affine, dim: int | None = None) -> Any:
    sizes = (BATCH, *input.shape)
    return sizes if dim is None else sizes[dim]


def _attribute(input: Any, name: str) -> Any:
    if isinstance(input, _Affine) and name == "shape":
        return _sizes(input)
    raise _Refused(f"it asks for {name}")


def _item(sizes: Any, index: Any) -> Any:
    if not isinstance(sizes, tuple):
        raise _Refused("it takes a part of a value")
    return sizes[index]


# functions, and methods by name
OPERATIONS: dict[Any, Callable[..., Any]] = {
    F.linear: _functional_linear, torch.conv2d: _functional_conv2d,
    F.avg_pool2d: _pooled(F.avg_pool2d), F.adaptive_avg_pool2d: _pooled(F.adaptive_avg_pool2d),
    F.dropout: _dropout,
    torch.flatten: _flatten, "flatten": _flatten,
    torch.reshape: _reshape, "reshape": _reshape, "view": _reshape,
    "contiguous": _same, "clone": _same, "detach": _same,
    operator.add: _add, torch.add: _add, "add": _add,
    operator.sub: _subtract, torch.sub: _subtract, "sub": _subtract,
    operator.mul: _multiply, torch.mul: _multiply, "mul": _multiply,
    operator.truediv: _divide, torch.div: _divide, "div": _divide,
    operator.neg: _negative, torch.neg: _negative, "neg": _negative,
    operator.matmul: _matrix_product, torch.matmul: _matrix_product, "matmul": _matrix_product,
    getattr: _attribute, "size": _sizes, operator.getitem: _item,
}  # fmt: skip


def _relu(input: Any, inplace: bool = False) -> tuple[Any, bool]:
    return input, inplace


def _relu_in_place(input: Any) -> tuple[Any, bool]:
    return input, True


def _clamp(input: Any, min: Any = None, max: Any = None) -> tuple[Any, bool]:
    if isinstance(min, _Affine) or isinstance(max, _Affine) or min != 0 or max is not None:
        raise _Refused("it is a ReLU only with min=0 and no max")
    return input, False


# what is a ReLU: gives its input, and whether it overwrites it
RECTIFIERS: dict[Any, Callable[..., tuple[Any, bool]]] = {
    F.relu: _relu, torch.relu: _relu, "relu": _relu, torch.relu_: _relu_in_place, "relu_": _relu_in_place,
    torch.clamp: _clamp, "clamp": _clamp, torch.clamp_min: _clamp, "clamp_min": _clamp,
}  # fmt: skip


def _known(layer: nn.Module, kinds: Any) -> type[nn.Module] | None:
    """Which of the kinds a layer is, if it does what the kind does."""
    for kind in kinds:
        own = "forward" in vars(layer) or type(layer).__call__ is not nn.Module.__call__
        if isinstance(layer, kind) and type(layer).forward is kind.forward and not own:
            return kind
    return None


class _Whole(nn.Module):
    """Calls the module, so that what it is asked to do besides its forward is in the graph."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x)


class _Tracer(fx.Tracer):
    """Notes where a module could not be traced."""

    where: tuple[str, nn.Module] | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _known(m, (*LAYERS, nn.ReLU)) is not None or super().is_leaf_module(m, module_qualified_name)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            if self.where is None:
                path = next((name for name, part in self.root.named_modules() if part is m), "module")
                self.where = (path, m)
            raise


def _named(path: str, kind: str) -> str:
    """`layer first.2 (Tanh)`, or the class alone for the whole module."""
    path = path.removeprefix("module").removeprefix(".")
    return f"layer {path} ({kind})" if path else kind


def _trace(module: nn.Module) -> tuple[nn.Module, fx.Graph]:
    whole, tracer = _Whole(module), _Tracer()
    for name, part in whole.named_modules():
        if part._forward_hooks or part._forward_pre_hooks:
            raise UserError(
                f"{_named(name, type(part).__name__)} has a forward hook, which may change its values, and "
                "cannot be certified (valid: remove the hook)"
            )
    try:
        return whole, tracer.trace(whole)
    # a forward may raise anything when it is given what stands for a tensor
    except Exception as error:
        path, part = tracer.where or ("module", module)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{_named(path, type(part).__name__)} cannot be certified: its forward could not be traced, "
            f"as one with control flow that depends on the input cannot ({reason})"
        ) from error


class _Operations(TorchDispatchMode):
    """Notes the kernels that are run on a tensor and on what is made of it, and those that draw numbers."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.names: list[str] = []
        # kept, so that no memory is given to another tensor
        self.made, self.memory = [x], {self._place(x)}

    @staticmethod
    def _place(x: Tensor) -> int:
        place: int = x.untyped_storage()._cdata
        return place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        touches = any(self._place(x) in self.memory for x in given)
        if touches:
            found = [x for x in tree_leaves(result) if isinstance(x, Tensor)]
            self.made += found
            self.memory |= {self._place(x) for x in found}
        if touches or torch.Tag.nondeterministic_seeded in func.tags:
            self.names.append(str(func))
        return result


def check_operations(module: nn.Module, shape: tuple[int, ...]) -> None:
    """The module does to its input what its graph says, kernel by kernel; both are run once.

    Raises:
        UserError: it does something else.
    """
    whole, graph = _trace(module)
    done = []
    for one in (module, fx.GraphModule(whole, graph)):
        x = torch.full((2, *shape), 0.5, dtype=torch.float64)
        with _Operations(x) as operations:
            one(x)
        done.append(operations.names)
    if done[0] != done[1]:
        other = next((a for a, b in zip(*done, strict=False) if a != b), "one more or less")
        raise UserError(
            f"{type(module).__name__} does other operations than those of its graph ({other}) and cannot be "
            "certified (valid: nothing changed in place but by a ReLU, as x = x + 1 for x += 1; no random "
            "numbers; no question whether the input is a tensor)"
        )


def read_graph(module: nn.Module, shape: tuple[int, ...]) -> tuple[list[Tensor], list[Tensor]]:
    """Weights [n_{i+1}, n_i] and biases [n_{i+1}] of a module in float64, in evaluation mode and on the CPU.

    Raises:
        UserError: an operation that is neither affine nor a ReLU, by the name of its layer; a value from
            before a ReLU that is used after it; a module that cannot be traced, ends with a ReLU or gives no
            logits.
    """
    whole, graph = _trace(module)
    return _Reader(whole, shape).read(graph)


class _Reader:
    """Walks through a graph; `stretch` is the number of ReLUs so far."""

    def __init__(self, whole: nn.Module, shape: tuple[int, ...]) -> None:
        self.whole, self.shape = whole, shape
        self.stretch = 0
        self.weights: list[Tensor] = []
        self.biases: list[Tensor] = []
        self.values: dict[fx.Node, Any] = {}

    def read(self, graph: fx.Graph) -> tuple[list[Tensor], list[Tensor]]:
        """Weights and biases; see `read_graph`."""
        for node in graph.nodes:
            try:
                self.values[node] = self._value(node)
            except (_Refused, RuntimeError, TypeError, ValueError, IndexError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{self._name(node)} cannot be certified: {reason}") from error
        return self.weights, self.biases

    def _name(self, node: fx.Node) -> str:
        if node.op == "call_module":
            return _named(str(node.target), type(self.whole.get_submodule(str(node.target))).__name__)
        stack = list(node.meta.get("nn_module_stack", {}).values())
        path, kind = stack[-1] if stack else ("module", type(self.whole.module))
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "operation")
        return f"{_named(path, kind.__name__)}: {'its output' if node.op == 'output' else name}"

    def _value(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return _start(0, self.shape)
        if node.op == "get_attr":
            found: Any = self.whole
            for part in str(node.target).split("."):
                found = getattr(found, part)
            return found
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self._current)
        if node.op == "output":
            return self._finish(args[0])
        if node.op == "call_module":
            return self._layer(node, *args, **kwargs)
        if node.target in RECTIFIERS:
            value, overwrites = RECTIFIERS[node.target](*args, **kwargs)
            return self._rectify(node, value, overwrites)
        if node.target not in OPERATIONS:
            raise _Refused(UNKNOWN)
        if not any(isinstance(x, _Affine) for x in (*args, *kwargs.values())) and callable(node.target):
            # arithmetic of sizes
            if any(x is BATCH for x in args):
                raise _Refused("its result depends on the number of examples")
            return node.target(*args, **kwargs)
        return OPERATIONS[node.target](*args, **kwargs)

    def _current(self, node: fx.Node) -> Any:
        value = self.values[node]
        if isinstance(value, _Affine) and value.stretch != self.stretch:
            raise _Refused("it takes a value from before a ReLU (a branch or a residual connection)")
        return value

    def _layer(self, node: fx.Node, value: Any) -> Any:
        layer = self.whole.get_submodule(str(node.target))
        if not isinstance(value, _Affine):
            raise _Refused("it is not given the values of a layer")
        if _known(layer, [nn.ReLU]):
            return self._rectify(node, value, bool(layer.inplace))
        kind = _known(layer, LAYERS)
        if kind is None:
            raise _Refused(UNKNOWN)
        return LAYERS[kind](layer, value)

    def _rectify(self, node: fx.Node, value: Any, overwrites: bool) -> _Affine:
        if not isinstance(value, _Affine):
            raise _Refused("it is not given the values of a layer")
        rows, size = value.linear.flatten(1), len(value.linear)
        # what a ReLU gave stays as it is under another
        same = (
            rows.shape[1] == size
            and bool((value.constant == 0).all())
            and torch.equal(rows, torch.eye(size).double())
        )
        if self.stretch == 0 or not same:
            self._close(value)
            value = _start(self.stretch, value.shape)
        if overwrites:
            self.values[node.all_input_nodes[0]] = value
        return value

    def _close(self, value: _Affine) -> None:
        self.weights.append(value.linear.flatten(1).T.contiguous())
        self.biases.append(value.constant.flatten().clone())
        self.stretch += 1

    def _finish(self, value: Any) -> None:
        if not isinstance(value, _Affine) or len(value.shape) != 1:
            raise _Refused("it is not one row of logits an example")
        if value.bare:
            raise _Refused("the network ends with a ReLU or has no layer; valid: its last layer gives logits")
        self._close(value)
