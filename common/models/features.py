"""The outputs of a model's stages, beside its own, from one forward pass."""

from typing import Any

import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.modes import evaluation_mode


def forward_features(model: nn.Module, inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The model's output and the outputs of the submodules that `model.features` names, in that order.

    They are the tensors that the next layer got, not copies, so gradients flow through both. Hooks take
    them, and are removed again, also where the forward pass fails.

    Args:
        model: with `features`, names as in `get_submodule` of modules that run once a pass and return a
            tensor.
        inputs: as the model takes them.

    Raises:
        UserError: the model names no features, or submodules that it has not got; a named module did not
            run exactly once or gives no tensor, or a later layer wrote over its output in place.
    """
    names: tuple[str, ...] | None = getattr(model, "features", ())
    if not names:
        raise UserError(
            f"model: {type(model).__name__} names no features (valid: a model with stages; in your own, "
            'features = ("layer1", "layer2"), the names of the submodules whose outputs are to be matched)'
        )
    taps: dict[str, list[tuple[Tensor, int]]] = {name: [] for name in names}
    hooks = [module.register_forward_hook(_tap(taps[name])) for name, module in _named(model, names).items()]
    try:
        output = model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return output, {name: _whole(name, tapped) for name, tapped in taps.items()}


def _named(model: nn.Module, names: tuple[str, ...]) -> dict[str, nn.Module]:
    """The submodules that a model's `features` name."""
    try:
        if not isinstance(names, str):
            return {name: model.get_submodule(name) for name in names}
        wrong = "a text"
    except AttributeError as error:
        wrong = str(error)
    modules = [name for name, _ in model.named_modules() if name]
    raise UserError(
        f"model: {type(model).__name__}.features={names!r}: {wrong} (valid: a tuple of some of "
        f"{', '.join(modules[:20])})"
    )


def _tap(tapped: list[tuple[Tensor, int]]) -> Any:
    """A forward hook that keeps outputs, each with the number of writes in place it has seen."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> None:
        if not isinstance(output, Tensor):
            raise UserError(
                f"model: a feature's module gives a {type(output).__name__} (valid: submodules that give one "
                f"tensor; this is a {type(module).__name__})"
            )
        # inference tensors do not count writes, so what may be written over is copied
        tapped.append((output.clone(), 0) if output.is_inference() else (output, output._version))

    return hook


def _whole(name: str, tapped: list[tuple[Tensor, int]]) -> Tensor:
    if len(tapped) != 1:
        raise UserError(
            f"feature {name}: its module ran {len(tapped)} times in one pass (valid: one that runs once)"
        )
    tensor, version = tapped[0]
    if not tensor.is_inference() and tensor._version != version:
        raise UserError(
            f"feature {name}: a later layer wrote over its output in place (valid: inplace=False there)"
        )
    return tensor


@torch.no_grad()
def feature_shapes(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """The shapes, without the batch, of a model's features for inputs of a shape.

    Raises:
        UserError: the model names no features.
    """
    device = next(model.parameters()).device
    with evaluation_mode(model):
        _, features = forward_features(model, torch.zeros(1, *shape, device=device))
    return {name: tuple(feature.shape[1:]) for name, feature in features.items()}
