"""Which numbers of a network are one channel: a blank pass in which every channel carries a label.

Every axis of a parameter that counts channels gets a label for each of its entries, and every tensor of the
pass carries, for each of its elements, the label of the channel to which the element belongs (0: none, it
stays whatever is removed). What only moves elements (reshape, transpose, chunk, concatenation, ...) is done
to the labels by the very operation; layers give new labels and tie those of their weights to those of what
they take; sums and products tie the labels of their sides. Labels that are tied, directly or over others,
are one channel: it is removed as a whole or not at all.

The pass runs on the `meta` device, so nothing is computed. It sees every function of torch that `forward`
calls (`TorchFunctionMode`), so layers and their functional forms, sizes as Python numbers, loops and
branches over settings are all seen as they are; what depends on the values of tensors fails. An operation
that is not listed here fixes the channels that it takes: they cannot be removed, and the reason names it.
Whether what is left once channels are removed is the same computation, `common.pruning.comparison` says.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from common.base.errors import UserError
from common.metrics.macs import meta_copy
from common.pruning.names import ELEMENTWISE
from common.pruning.operations import reader_of
from common.pruning.tracker import Expected, Passed, Refused, Tracker, Unseen

Shape = Sequence[int] | Sequence[Sequence[int]]

# examples of the blank pass
BATCH = 2


def propagate(network: nn.Module, shape: Shape, expected: Expected | None = None) -> Passed:
    """Pass blank inputs through a network on the `meta` device.

    Args:
        network: left as it is.
        shape: of one input, or of each input of a network with several.
        expected: hold the pass against it.

    Raises:
        UserError: the forward pass fails, or depends on the values of tensors.
        Refused: the pass is not what is expected.
    """
    _require_plain(network)
    model = meta_copy(network)
    tracker = Tracker(model, reader_of, expected)
    _run(model.eval(), shape, tracker)
    unseen = any(name not in tracker.seen for name, _ in model.named_parameters())
    if unseen if expected is None else expected.whole.modes:
        tracker.second, tracker.found.modes = True, True
        # heads that help the training alone take channels too
        _run(model.train(), shape, tracker)
    return tracker.found


def _require_plain(network: nn.Module) -> None:
    """Refuse what cannot be passed through in Python.

    Raises:
        UserError: a scripted layer, or one whose sizes are not known yet.
    """
    for name, module in network.named_modules():
        what = f"{type(network).__name__}: its channels cannot be traced: {name or 'it'}"
        if isinstance(module, torch.jit.ScriptModule):
            raise UserError(f"{what} is a ScriptModule (valid: the network before torch.jit.script)")
        if any(map(is_lazy, module.parameters(recurse=False))):
            raise UserError(f"{what} does not know its sizes yet (valid: a network that has run once)")


def _run(model: nn.Module, shape: Shape, tracker: "Tracker") -> None:
    """One pass; in training mode, where not every network can take blank inputs, a failure ends it."""
    try:
        with torch.no_grad(), torch.device("meta"), Unseen(tracker):
            inputs = [_blank(model, one, which, tracker) for which, one in enumerate(_shapes(shape))]
            with tracker:
                outputs = model(*inputs)
        tracker.finish(outputs)
    except UserError:
        raise
    except Refused as error:
        error.position = tracker.position
        raise
    except Exception as error:
        if tracker.second and tracker.expected is None:
            return
        reason = " ".join(str(error).split())[:160]
        where, name = tracker.last
        if tracker.expected is not None:
            joins = name in ELEMENTWISE and "meta tensor" not in reason
            why = "joins numbers of channels that differ" if joins else f"fails ({reason})"
            refused = Refused(where, f"{name} {why} once channels are removed")
            refused.position = tracker.position
            raise refused from error
        raise UserError(
            f"{type(model).__name__}: its channels cannot be traced: {where}: {type(error).__name__}: "
            f"{reason} (valid: a forward without branches or loops over the values of tensors, which "
            f"takes inputs of shape {tuple(shape)})"
        ) from error


def _shapes(shape: Shape) -> list[tuple[int, ...]]:
    several = [tuple(map(int, one)) for one in shape if isinstance(one, Sequence)]
    return several or [tuple(int(one) for one in shape if not isinstance(one, Sequence))]


def _blank(model: nn.Module, shape: tuple[int, ...], which: int, tracker: "Tracker") -> Tensor:
    """A blank input, whose entries along its first dimension are channels that stay."""
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    blank = torch.empty(BATCH, *shape, device="meta", dtype=next(floating, torch.get_default_dtype()))
    if shape:
        labels = tracker.input_labels(which, shape[0])
        tracker.mark(blank, labels.view(1, -1, *[1] * (len(shape) - 1)).expand(blank.shape))
    return blank
