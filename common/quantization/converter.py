"""Any network as its quantised twin: convolutions, linear layers and batch normalisation, one by one."""

from collections.abc import Callable
from copy import deepcopy

from torch import nn

from common.base.errors import UserError
from common.models.resnet import ResidualBlock
from common.quantization.layers import (
    QuantisedConvolution,
    QuantisedLayer,
    QuantisedLinear,
    QuantisedTransposed,
)
from common.quantization.range_norm import L1Norm, RangeNorm, ScaleNorm
from common.quantization.settings import Quantisation

QUANTISED: dict[type[nn.Module], type[QuantisedLayer]] = {
    nn.Linear: QuantisedLinear,
    nn.Conv1d: QuantisedConvolution,
    nn.Conv2d: QuantisedConvolution,
    nn.Conv3d: QuantisedConvolution,
    nn.ConvTranspose1d: QuantisedTransposed,
    nn.ConvTranspose2d: QuantisedTransposed,
    nn.ConvTranspose3d: QuantisedTransposed,
}
# what a layer was given to do beside its forward pass
HOOKS = (
    *("_forward_hooks", "_forward_hooks_with_kwargs", "_forward_hooks_always_called", "_forward_pre_hooks"),
    *("_forward_pre_hooks_with_kwargs", "_backward_hooks", "_backward_pre_hooks", "_is_full_backward_hook"),
)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# of the constructors of batch normalisation
NORM_ARGUMENTS = ("eps", "momentum", "affine", "track_running_stats")


def quantise_network(network: nn.Module, settings: Quantisation, leave: list[str] | None = None) -> nn.Module:
    """Put quantised layers in the place of a network's convolutions, linear layers and norms.

    The first and the last layer are among them. Parameters stay the same objects under the same names. What
    has no parameters (ReLU, pooling, additions) stays as it is. The network is changed; a network that is a
    single such layer is given back as another one. One that is quantised already is made float first, by
    `float_network`, so that these settings alone hold.

    Args:
        network: of layers in `QUANTISED` and batch normalisation.
        settings: how; a part whose bits are all 32 stays the float layer.
        leave: names of layers, or of parts with layers, that stay as they are.

    Raises:
        UserError: layers that have no quantised form, or a name of `leave` that there is not; the network is
            as it was.
    """
    left = leave or []
    names = [name for name, _ in network.named_modules()]
    for name in left:
        if name not in names:
            raise UserError(f"method.leave={left}: the network has no {name} (valid: names of its layers)")
    refused = [
        f"{name or 'itself'} ({type(layer).__name__})"
        for name, layer in network.named_modules()
        if settings.products and not _is_left(name, left) and _has_no_form(layer)
    ]
    if refused:
        raise UserError(
            f"method: no quantised form of {', '.join(refused)} in {type(network).__name__} (valid: "
            "convolutions, linear layers, batch normalisation; method.leave=[NAME] keeps a layer in float)"
        )
    network = float_network(network)
    if settings.zero_init_residual:
        _zero_last_norms(network)
    made: dict[nn.Module, nn.Module] = {}
    return _converted(network, "", settings, left, made)


def is_quantised(network: nn.Module) -> bool:
    """Whether any of a network's layers or norms is quantised."""
    return any(isinstance(layer, QuantisedLayer | ScaleNorm) for layer in network.modules())


def require_float(network: nn.Module, what: str) -> None:
    """Refuse a quantised network for what asks more of layers than they can give.

    Args:
        network: whose layers are looked at.
        what: asks it.

    Raises:
        UserError: one of its layers is quantised.
    """
    if is_quantised(network):
        raise UserError(
            f"{what} works on layers of float numbers, and the network is quantised (valid: first this, from "
            "a run in float, then method=quantization/qbp with that run as start=)"
        )


def plain_network(network: nn.Module) -> nn.Module:
    """A copy of a quantised network in float layers: as it evaluates, but for the rounding of activations.

    Weights and biases have their quantised values, Range BN and L1 BN are batch normalisation with the same
    effect in evaluation. The network stays as it is.
    """
    return _made_plain(deepcopy(network), {}, lambda layer: layer.plain(levels=True))


def float_network(network: nn.Module) -> nn.Module:
    """A quantised network made float again, to be trained on: with its trained parameters, the same objects.

    Range BN and L1 BN are batch normalisation with the same effect in evaluation. The network is changed; one
    that is a single layer is given back as another, one that has nothing quantised stays as it is.
    """
    return _made_plain(network, {}, lambda layer: layer.restored())


def _made_plain(
    layer: nn.Module,
    made: dict[nn.Module, nn.Module],
    form: Callable[[QuantisedLayer | ScaleNorm], nn.Module],
) -> nn.Module:
    if isinstance(layer, QuantisedLayer | ScaleNorm):
        if layer not in made:
            made[layer] = _with_hooks(form(layer), layer)
        return made[layer]
    for part, child in layer._modules.items():
        if child is not None:
            layer._modules[part] = _made_plain(child, made, form)
    return layer


def _converted(
    layer: nn.Module, name: str, settings: Quantisation, left: list[str], made: dict[nn.Module, nn.Module]
) -> nn.Module:
    """The quantised form of a layer, or the layer with those of its parts; one, however often it is used."""
    if _is_left(name, left):
        return layer
    if layer not in made:
        made[layer] = _form(layer, settings)
        if made[layer] is layer:
            for part, child in layer._modules.items():
                if child is not None:
                    path = f"{name}.{part}" if name else part
                    layer._modules[part] = _converted(child, path, settings, left, made)
    return made[layer]


def _form(layer: nn.Module, settings: Quantisation) -> nn.Module:
    """The quantised form of a single layer; the layer itself where nothing of it is quantised."""
    if type(layer) in QUANTISED and settings.products:
        found: nn.Module = QUANTISED[type(layer)](layer, settings)  # type: ignore[arg-type]
    elif isinstance(layer, NORMS) and settings.norm != "bn":
        found = _norm(layer, settings)
    else:
        return layer
    _with_hooks(found, layer)
    # its ranges and averages where the parameters are
    own = next(layer.parameters(), None)
    return (found if own is None else found.to(own)).train(layer.training)


def _with_hooks(made: nn.Module, layer: nn.Module) -> nn.Module:
    for name in HOOKS:
        setattr(made, name, getattr(layer, name))
    return made


def _norm(layer: nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d, settings: Quantisation) -> ScaleNorm:
    """Range BN or L1 BN with the parameters of batch normalisation, if it has any, and its averages.

    Where batch normalisation has seen training batches it evaluates as before until it sees one itself.
    """
    shared = {
        "eps": settings.eps,
        "momentum": settings.norm_momentum,
        "bits": settings.bits,
        "bits_norm": settings.bits_norm,
        "grad_bits": settings.grad_bits,
        "grad_stochastic": settings.grad_stochastic,
        "act_stochastic": settings.act_stochastic,
        "true_zero": settings.true_zero,
        "range_momentum": settings.range_momentum,
    }
    norm: ScaleNorm
    if settings.norm == "l1_bn":
        norm = L1Norm(layer.num_features, **shared)  # type: ignore[arg-type]
    else:
        norm = RangeNorm(
            layer.num_features,
            scale=settings.scale,
            chunks=settings.num_chunks,
            scale_bits=settings.bits_scale,
            **shared,
        )
    norm.kind = type(layer)
    norm.arguments = {name: getattr(layer, name) for name in NORM_ARGUMENTS}
    norm.begin_averages(layer)
    if layer.affine:
        norm.weight, norm.bias = layer.weight, layer.bias
    else:
        norm.requires_grad_(False)
    return norm


def _has_no_form(layer: nn.Module) -> bool:
    """Whether a layer has parameters of its own and no quantised form, and is no activation function."""
    known = type(layer) in (*QUANTISED, *NORMS, nn.PReLU) or isinstance(layer, QuantisedLayer | ScaleNorm)
    if type(layer) in QUANTISED and not isinstance(layer.weight, nn.Parameter):
        # made anew of other parameters at each pass, as by torch.nn.utils.weight_norm
        return True
    return not known and any(True for _ in layer.parameters(recurse=False))


def _is_left(name: str, left: list[str]) -> bool:
    return any(name == kept or name.startswith(f"{kept}.") for kept in left)


def _zero_last_norms(network: nn.Module) -> None:
    """gamma of the last norm of each residual block at 0, so that the block begins as its shortcut."""
    for block in network.modules():
        if not isinstance(block, ResidualBlock):
            continue
        norms = [layer for layer in block.residual.modules() if isinstance(layer, NORMS)]
        if norms and norms[-1].weight is not None:
            nn.init.zeros_(norms[-1].weight)
