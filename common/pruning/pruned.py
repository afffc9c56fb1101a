"""A pruned network as a file: weights, the plan of its channels, and how the whole network is built."""

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from common.base.errors import UserError
from common.base.weights import read_weights
from common.pruning.slicing import sliced

# packages whose networks a file may name
TRUSTED = ("common.", "papers.")
KEYS = {"state_dict", "pruning", "target", "settings", "shape"}


def pack(
    network: nn.Module,
    *,
    target: str,
    settings: dict[str, Any],
    shape: tuple[int, ...],
    about: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What the file of a pruned network holds: plain data and tensors alone.

    Args:
        network: that `sliced` gave, or with its `pruning`.
        target: dotted name of the class of the whole network.
        settings: what its constructor takes.
        shape: of one input.
        about: words on its data and its training.
    """
    return {
        "state_dict": network.state_dict(),
        "pruning": network.pruning,
        "target": target,
        "settings": settings,
        "shape": list(shape),
        "about": about or {},
    }


def load_pruned(path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """The pruned network of a file that `export.py` wrote, in evaluation mode, on the CPU.

    Nothing in the file is executed: it is read with `weights_only=True`, and it may name only networks of
    this project. A network of your own class is built by you, whole, and given here.

    Args:
        path: of the file.
        network: the whole network, as it was before channels were removed; left as it is. None for one of
            this project.

    Raises:
        UserError: no such file, or one that holds no pruned network; a class of your own without
            `network`; a network that is not the one that was pruned.
    """
    return restored(read_weights(Path(path)), path, network)


def restored(found: dict[str, Any], path: str | Path, network: nn.Module | None = None) -> nn.Module:
    """The pruned network of what `read_weights` has read; else as `load_pruned`."""
    if not is_pruned(found):
        raise UserError(
            f"{path} holds no pruned network (valid: what export.py writes of a pruned run; a bare state "
            "dict is loaded by load_state_dict)"
        )
    whole = _whole(found, path) if network is None else network
    try:
        smaller = sliced(whole, tuple(found["shape"]), found["pruning"]["keep"])
        smaller.load_state_dict(found["state_dict"])
    except (UserError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{path}: is not of {type(whole).__name__} as it is here ({reason})") from error
    return smaller.eval()


def is_pruned(found: dict[str, Any]) -> bool:
    """Whether what a file holds is a pruned network."""
    return set(found) >= KEYS and isinstance(found["pruning"], dict)


def _whole(found: dict[str, Any], path: str | Path) -> nn.Module:
    """The network that a file names, with its first weights.

    Raises:
        UserError: a class that is not this project's, or that takes other settings by now.
    """
    target = str(found["target"])
    module, _, name = target.rpartition(".")
    if not f"{module}.".startswith(TRUSTED):
        raise UserError(
            f"{path}: is of {target}, which is no network of this project; build the whole network yourself: "
            "load_pruned(path, network=...)"
        )
    try:
        made = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"{path}: {target} cannot be found ({error})") from error
    if not (
        isinstance(made, type) and issubclass(made, nn.Module) and f"{made.__module__}.".startswith(TRUSTED)
    ):
        raise UserError(f"{path}: {target} is no network of this project")
    try:
        return made(**found["settings"])
    except TypeError as error:
        raise UserError(f"{path}: {target} takes other settings by now ({error})") from error
