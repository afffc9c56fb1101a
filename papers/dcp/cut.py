"""A network cut at one layer, so that what stands before the layer runs once and what follows runs alone.

The graph of operations (torch.fx) says what the rest needs beside the layer's output: the shortcut of a
residual block, the other branches of a concatenation. Those tensors are kept with the layer's inputs.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from common.base.errors import UserError
from common.quantization.converter import require_float
from papers.dcp.layer_problem import LayerProblem, Rows

Loss = Callable[[Tensor, Tensor], Tensor]
# the cut network's outputs are compared with the whole one's up to this
SAME = 1e-4


class Traced(NamedTuple):
    """A network as a graph.

    Attributes:
        network: in evaluation mode.
        graph: its operations.
        outputs: the operation whose value each module returns, by the module's name, in the order in which
            modules return.
        calls: how often each module runs.
    """

    network: nn.Module
    graph: fx.Graph
    outputs: dict[str, fx.Node]
    calls: Counter[str]


class _Tracer(fx.Tracer):
    """Follows the calls of modules, and notes what each returns."""

    def __init__(self) -> None:
        super().__init__()
        self.outputs: dict[str, fx.Node] = {}
        self.calls: Counter[str] = Counter()

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        found = super().call_module(m, forward, args, kwargs)
        name = self.path_of_module(m)
        self.calls[name] += 1
        if isinstance(found, fx.Proxy):
            self.outputs[name] = found.node
        return found


def trace(network: nn.Module) -> Traced:
    """The graph of a network in evaluation mode, the mode in which it is left.

    Raises:
        UserError: its forward pass branches on values, or does what torch.fx cannot follow, or it is
            quantised.
    """
    require_float(network, "pruning of channels")
    tracer = _Tracer()
    try:
        graph = tracer.trace(network.eval())
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise UserError(
            f"{type(network).__name__}: its forward pass cannot be followed: {reason[0] if reason else error}"
        ) from error
    return Traced(network, graph, tracer.outputs, tracer.calls)


def order_of_modules(network: nn.Module) -> list[str]:
    """The names of a network's modules in the order in which they return, so a block after its layers."""
    return list(trace(network).outputs)


class Cut:
    """A network before and after one layer.

    Args:
        network: is put into evaluation mode; its own parameters are used, not copies.
        layer: name of a layer that runs once.
        end: name of the module whose output is wanted; None: the network's own output.
        example: inputs of the network, a few.

    Raises:
        UserError: no such module, a layer that runs more than once, an end that does not depend on it, or a
            network that cannot be followed; each names the layer.
    """

    def __init__(self, network: nn.Module, layer: str, end: str | None, example: Tensor) -> None:
        traced = trace(network)
        self.layer = layer
        node = _only_run(traced, layer)
        last = _output(traced.graph) if end is None else _run_of(traced, end)
        inside = _between(traced.graph, node, last)
        if last not in inside:
            raise UserError(f"layer {layer}: the output of {end or 'the network'} does not depend on it")
        shapes = _Shapes(fx.GraphModule(network, traced.graph), len(example)).of(example)
        live, self.tail = _tail(network, traced.graph, node, last, inside, shapes)
        self.prefix = _prefix(network, traced.graph, node, live)

    def before(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """The layer's inputs, and the other tensors that the rest needs."""
        found = self.prefix(inputs)
        return tuple(found)

    def after(self, outputs: Tensor, live: Sequence[Tensor]) -> Tensor:
        """The wanted output from the layer's outputs and the tensors of `before`."""
        return self.tail(outputs, *live)


class CachedTail:
    """L_S of a layer's outputs: the rest of the network up to a head, the head, and the loss.

    Args:
        cut: of the network at the layer.
        live: what the rest needs beside the layer's outputs, of all examples.
        targets: of all examples.
        head: from the cut's output to logits; None: the cut's output are logits. It is put into evaluation
            mode.
        loss: of logits and targets, the mean over examples.
        copies: the rest gets copies of `live`, as it writes over them.
    """

    def __init__(
        self,
        cut: Cut,
        live: Sequence[Tensor],
        targets: Tensor,
        head: nn.Module | None,
        loss: Loss,
        copies: bool,
    ) -> None:
        self.cut, self.live, self.targets, self.loss = cut, live, targets, loss
        self.head = None if head is None else head.eval()
        self.copies = copies

    def __call__(self, outputs: Tensor, rows: Rows) -> Tensor:
        live = [tensor[rows].to(outputs.device) for tensor in self.live]
        if self.copies:
            live = [tensor.clone() for tensor in live]
        found = self.cut.after(outputs, live)
        logits = found if self.head is None else self.head(found)
        return self.loss(logits, self.targets[rows].to(outputs.device))


@torch.no_grad()
def cached_problem(
    network: nn.Module,
    baseline: nn.Module,
    layer: str,
    inputs: Tensor,
    targets: Tensor,
    *,
    end: str | None = None,
    head: nn.Module | None = None,
    loss: Loss = functional.cross_entropy,
    chunk: int = 64,
    storage: torch.device | None = None,
    **settings: Any,
) -> LayerProblem:
    """The problem of a layer of a network, everything before the layer computed once.

    Both networks and the head are put into evaluation mode, and their parameters no longer ask for gradients.

    Args:
        network: the one that is pruned, as far as it has come; from it come the layer's inputs X, its
            pretrained weights W_0 and the rest up to the loss.
        baseline: the unpruned network, with a layer of the same name, which gives O^b.
        layer: name of a Conv2d or Linear.
        inputs, targets: the selection set, without augmentation.
        end, head, loss: see `Cut` and `CachedTail`; with lam = 0 there is nothing after the layer.
        chunk: examples that run at once.
        storage: the device on which the layer's inputs and outputs are kept; None: that of the network.
        settings: of `LayerProblem`: mse_weight, lam, channels, train_bias.

    Raises:
        UserError: as `Cut` and `LayerProblem`; a layer after which the network cannot be run alone.
    """
    for frozen in (network, baseline, *([] if head is None else [head])):
        frozen.eval().requires_grad_(False)
    if settings.get("lam", 1.0) == 0:
        # nothing after the layer is needed
        end, head = layer, None
    # three, so that a number of examples is told from other sizes of 1
    first = inputs[torch.arange(3) % len(inputs)].to(next(network.parameters()).device)
    cut = Cut(network, layer, end, first)
    unpruned = before(baseline, layer)
    kept = _run(cut.before, inputs, chunk, first.device, storage)
    features = kept[0]
    module, teacher = network.get_submodule(layer), baseline.get_submodule(layer)
    (outputs,) = _run(lambda x: (teacher(unpruned(x)[0]),), inputs, chunk, first.device, storage)
    _require_same(network, cut, end, first)
    tail = CachedTail(cut, kept[1:], targets, head, loss, _writes_over(cut, module, features, kept[1:]))
    if not isinstance(module, nn.Conv2d | nn.Linear):
        raise UserError(
            f"layer {layer}: channels of {type(module).__name__} are not selected (valid: Conv2d, Linear)"
        )
    return LayerProblem(module, features, outputs, tail, name=layer, chunk=chunk, **settings)


def _run(
    work: Callable[[Tensor], tuple[Tensor, ...]],
    inputs: Tensor,
    chunk: int,
    device: torch.device,
    storage: torch.device | None,
) -> list[Tensor]:
    """What `work` gives for all examples, `chunk` of them at a time."""
    parts = [
        [tensor.to(storage or device) for tensor in work(rows.to(device))] for rows in inputs.split(chunk)
    ]
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def before(network: nn.Module, layer: str) -> fx.GraphModule:
    """The part of a network that gives a layer's inputs, as a tuple of one tensor.

    Raises:
        UserError: as `Cut`.
    """
    traced = trace(network)
    return _prefix(network, traced.graph, _only_run(traced, layer), [])


def _run_of(traced: Traced, name: str) -> fx.Node:
    """The operation whose value a module returns."""
    if name not in traced.outputs:
        raise UserError(f"layer {name}: {type(traced.network).__name__} runs no module of that name")
    return traced.outputs[name]


def _only_run(traced: Traced, layer: str) -> fx.Node:
    """The one run of a layer."""
    found = _run_of(traced, layer)
    if traced.calls[layer] != 1:
        raise UserError(f"layer {layer}: runs {traced.calls[layer]} times in a pass (valid: once)")
    return found


def _output(graph: fx.Graph) -> fx.Node:
    """The operation whose value a network returns."""
    (last,) = [node for node in graph.nodes if node.op == "output"]
    found = last.args[0]
    if not isinstance(found, fx.Node):
        raise UserError("the network returns more than one tensor (valid: logits, or the name of a module)")
    return found


def _between(graph: fx.Graph, first: fx.Node, last: fx.Node) -> set[fx.Node]:
    """The operations that depend on `first` and that `last` depends on, both among them."""
    after = {first}
    for node in graph.nodes:
        if not after.isdisjoint(node.all_input_nodes):
            after.add(node)
    before, pending = {last}, [last]
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in before:
                before.add(source)
                pending.append(source)
    return after & before


class _Shapes(fx.Interpreter):
    """Which operations give a tensor with an entry for each example."""

    def __init__(self, module: fx.GraphModule, examples: int) -> None:
        super().__init__(module)
        self.examples = examples
        self.found: set[str] = set()

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor) and value.ndim > 0 and len(value) == self.examples:
            self.found.add(n.name)
        return value

    @torch.no_grad()
    def of(self, example: Tensor) -> set[str]:
        """Their names."""
        self.run(example)
        return self.found


def _tail(
    network: nn.Module,
    graph: fx.Graph,
    layer: fx.Node,
    last: fx.Node,
    inside: set[fx.Node],
    batched: set[str],
) -> tuple[list[fx.Node], fx.GraphModule]:
    """The operations of `inside` as a network of the layer's output and of the tensors that are returned.

    What is no tensor of examples (a size, a parameter) is computed again from what is.
    """
    needed = set(inside) - {layer}
    live: dict[fx.Node, None] = {}
    pending = list(needed)
    while pending:
        for source in pending.pop().all_input_nodes:
            if source is layer or source in needed or source in live:
                continue
            if source.name in batched or source.op == "placeholder":
                live[source] = None
            else:
                needed.add(source)
                pending.append(source)
    # in the order of execution, whatever the order in which they were found
    ordered = [node for node in graph.nodes if node in live]
    rest = fx.Graph()
    copies = {node: rest.placeholder(f"kept_{node.name}") for node in (layer, *ordered)}
    for node in graph.nodes:
        if node in needed:
            copies[node] = rest.node_copy(node, copies.__getitem__)
    rest.output(copies[last])
    return ordered, fx.GraphModule(network, rest)


def _prefix(network: nn.Module, graph: fx.Graph, layer: fx.Node, live: list[fx.Node]) -> fx.GraphModule:
    """The operations up to the layer, and all that the rest needs: (the layer's inputs, *live)."""
    wanted, pending = set(live), [layer, *live]
    wanted.add(layer)
    while pending:
        for source in pending.pop().all_input_nodes:
            if source not in wanted:
                wanted.add(source)
                pending.append(source)
    first = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    inputs: fx.Node | None = None
    for node in graph.nodes:
        if node is layer:
            # a copy: a later operation may write over it in place
            inputs = first.call_function(torch.clone, (copies[layer.all_input_nodes[0]],))
        elif node in wanted or node.op == "placeholder":
            copies[node] = first.node_copy(node, copies.__getitem__)
    first.output((inputs, *(copies[node] for node in live)))
    return fx.GraphModule(network, first)


def _require_same(network: nn.Module, cut: Cut, end: str | None, example: Tensor) -> None:
    """Refuse a cut whose two parts are not the network: one whose layers write over each other's inputs."""
    features, *live = cut.before(example)
    found = cut.after(network.get_submodule(cut.layer)(features), live)
    seen: list[Tensor] = []
    if end is None:
        seen.append(network(example))
    else:
        hook = network.get_submodule(end).register_forward_hook(lambda *each: seen.append(each[2].clone()))
        try:
            network(example)
        finally:
            hook.remove()
    difference = (found - seen[0]).abs().max()
    if not difference <= SAME * seen[0].abs().max():
        raise UserError(
            f"layer {cut.layer}: what follows it cannot be run alone (an operation in place changes what it "
            "shares with the layers before)"
        )


def _writes_over(cut: Cut, layer: nn.Module, features: Tensor, live: Sequence[Tensor]) -> bool:
    """Whether the rest writes in place over what it is given beside the layer's output."""
    device = next(layer.parameters()).device
    given = [tensor[:1].to(device, copy=True) for tensor in live]
    cut.after(layer(features[:1].to(device)), given)
    return any(not torch.equal(old[:1].to(device), new) for old, new in zip(live, given, strict=True))
