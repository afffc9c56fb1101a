"""A network of the user's own: built with what its constructor takes, and checked once by forward passes."""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.utilities.seed import isolate_rng
from torch import nn

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.kinds import TASKS
from common.base.modes import evaluation_mode
from common.base.passages import SPECIAL, joined
from common.base.sequence import EOS, packed
from common.base.task import penalty

# settings that a line on a constructor names
SHOWN = 8
# tasks whose outputs are one tensor, of which the loss is made
OF_ONE_TENSOR = ("classification", "regression", "reconstruction", "segmentation", "tagging")


def settings_of(node: DictConfig) -> str:
    """The settings that a node of a config holds, by their keys, as ` (model.width=-3)`; else nothing."""
    group = node._key()
    plain = {str(key): value for key, value in node.items() if not OmegaConf.is_dict(value)}
    given = [f"{group}.{key}={value}" for key, value in plain.items() if not key.startswith("_")]
    shown = ", ".join([*given[:SHOWN], *(["..."] if len(given) > SHOWN else [])])
    return f" ({shown})" if shown else ""


def taken(target: Callable[..., Any], given: dict[str, Any], offered: dict[str, Any]) -> dict[str, Any]:
    """Those of the offered arguments that a constructor takes and the config does not give.

    Args:
        target: the class, or the function that makes the network.
        given: what the config holds.
        offered: `shape` and `classes` of the data set, and stages.

    Raises:
        UserError: an argument that it needs and nobody gives.
    """
    parameters = inspect.signature(target).parameters
    anything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters.values())
    chosen = {
        key: value for key, value in offered.items() if (anything or key in parameters) and key not in given
    }
    for name, one in parameters.items():
        named = one.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        if named and one.default is inspect.Parameter.empty and name not in {**given, **chosen}:
            raise UserError(
                f"model: {_name(target)} needs {name}: give it as model.{name}=... (it gets by itself: "
                f"{', '.join(offered)})"
            )
    return chosen


def checked(model: Any, target: Callable[..., Any], data: DataSet, kind: str, given: str = "") -> nn.Module:
    """The network, with its `task`, after passes of two blank examples in evaluation and in training mode.

    A copy makes the latter, as it may change running means; a network that cannot be copied goes without.

    Args:
        model: what the target gave.
        data: for the shape of inputs and what is asked of the outputs; not read.
        kind: of the data set.
        given: the settings that it was made with, for what is said.

    Raises:
        UserError: no network, no parameters, another task, a failing pass, or outputs of another shape or of
            which no gradient can be taken.
    """
    name = _name(target)
    if not isinstance(model, nn.Module):
        raise UserError(f"model: {name} gives a {type(model).__name__} (valid: a torch.nn.Module)")
    if getattr(model, "task", None) is None:
        # not by setattr of a Tensor or a Module, so it is a plain attribute
        model.task = TASKS[kind][0]  # type: ignore[assignment]
    if model.task not in TASKS[kind]:
        fitting = " or ".join(sorted(TASKS[kind]))
        raise UserError(f"model: {name}.task={model.task!r}; a data set of kind {kind} is for {fitting}")
    inputs = _example(data, kind)
    # neither the passes nor the first weights of lazy layers may move the random numbers of the run
    with isolate_rng(include_cuda=False):
        with torch.no_grad(), evaluation_mode(model):
            outputs = _passed(model, inputs, f"{name} fails", given)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(f"model: {name} has no parameters to train{given}")
        _check_outputs(name, outputs, model.task, model, data)
        trained = _copied(model)
        if trained is not None:
            _check_training(name, trained.train(), inputs, data, given)
    return model


def _passed(model: nn.Module, inputs: torch.Tensor, fails: str, given: str) -> Any:
    """What a network gives.

    Raises:
        UserError: whatever it raises.
    """
    try:
        return model(inputs)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"model: {fails} on inputs of shape {tuple(inputs.shape)}: {type(error).__name__}: "
            f"{reason}{given}"
        ) from error


def _copied(model: nn.Module) -> nn.Module | None:
    """A copy that shares nothing with a network; None where it holds what cannot be copied."""
    try:
        return copy.deepcopy(model)
    except Exception:
        # whatever the network's parts raise: generators, locks and open files are no data
        return None


def _check_training(name: str, model: nn.Module, inputs: torch.Tensor, data: DataSet, given: str) -> None:
    """Refuse a network that gives in training mode what no loss or no gradient can be taken of.

    Raises:
        UserError: see above, or a failing pass.
    """
    training = f"{name} in training mode"
    with torch.enable_grad():
        outputs = _passed(model, inputs, f"{training} fails", given)
        added = penalty(model)
    _check_outputs(training, outputs, model.task, model, data)
    if isinstance(added, torch.Tensor) and added.numel() != 1:
        raise UserError(
            f"model: {name}.penalty() gives a tensor {tuple(added.shape)} (valid: a scalar, as by .sum())"
        )
    if model.task in OF_ONE_TENSOR and not outputs.requires_grad:
        raise UserError(
            f"model: {training} gives outputs without a gradient (valid: a forward without no_grad, detach, "
            "argmax and the like on its way)"
        )


def _example(data: DataSet, kind: str) -> torch.Tensor:
    """Two inputs as the data have them."""
    if kind == "question_answering":
        words = torch.full((2, 3, data.shape[1]), SPECIAL)
        return joined(words, words)
    if kind != "translation":
        # words go by their numbers
        return torch.zeros(2, *data.shape, dtype=torch.int64 if kind == "sequence_tagging" else None)
    sentences = torch.full((2, 3), EOS)
    return packed(sentences, sentences)


def _check_detections(name: str, outputs: Any, model: nn.Module, data: DataSet) -> None:
    priors = getattr(model, "priors", None)
    if not isinstance(priors, torch.Tensor) or priors.ndim != 2 or priors.shape[1] != 4:
        raise UserError(
            f"model: {name} has no priors (valid: a buffer [P, 4], (cx, cy, w, h) in the image's parts)"
        )
    wanted = [(2, len(priors), 4), (2, len(priors), (data.classes or 0) + 1)]
    given = [tuple(getattr(one, "shape", ())) for one in outputs] if isinstance(outputs, tuple | list) else []
    if given != wanted:
        raise UserError(
            f"model: {name} gives {' and '.join(map(str, given)) or type(outputs).__name__}; valid: offsets "
            f"(b, {len(priors)}, 4) and logits (b, {len(priors)}, {wanted[1][2]}), a tuple, as there are "
            f"{len(priors)} priors and {data.classes} classes beside the background"
        )


def _check_outputs(name: str, outputs: Any, task: Any, model: nn.Module, data: DataSet) -> None:
    if task == "detection":
        _check_detections(name, outputs, model, data)
        return
    wanted: tuple[tuple[Any, ...], str] | None = {
        "classification": ((data.classes,), f"the data have {data.classes} classes"),
        "regression": ((), "one number an example, without a second dimension"),
        "tagging": ((*data.shape[:1], data.classes), f"each word has one of {data.classes} tags"),
        "reconstruction": ((math.prod(data.shape),), "one logit a pixel"),
    }.get(str(task))
    if task == "translation":
        given = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
        if given != (2, 3, data.classes):
            raise UserError(
                f"model: {name} gives {given} for 2 packed pairs of 3 and 3 tokens; valid: logits "
                f"(2, 3, {data.classes}), one for each token of the target and entry of the vocabulary"
            )
        return
    if task == "segmentation" and isinstance(outputs, torch.Tensor):
        fits = outputs.ndim == 4 and outputs.shape[1] >= (data.classes or 0)
        wanted = None if fits else ((data.classes, "h", "w"), f"the data have {data.classes} classes")
    if wanted is None:
        return
    shape, why = wanted
    if not isinstance(outputs, torch.Tensor):
        raise UserError(f"model: {name} gives a {type(outputs).__name__} (valid: one tensor {_text(shape)})")
    if not outputs.is_floating_point():
        kind = str(outputs.dtype).removeprefix("torch.")
        raise UserError(
            f"model: {name} gives numbers of type {kind} (valid: float32, or another one of reals)"
        )
    if tuple(outputs.shape[1:]) != shape or len(outputs) != 2:
        raise UserError(f"model: {name} gives {_text(outputs.shape[1:])}; valid: {_text(shape)}, as {why}")


def _text(shape: Any) -> str:
    return f"({', '.join(['b', *map(str, shape)])}{',' if not len(shape) else ''})"


def _name(target: Callable[..., Any]) -> str:
    return f"{target.__module__}.{getattr(target, '__qualname__', target)}"
