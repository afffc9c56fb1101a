"""Functions of torch by name, in kinds that do the same to channels."""

from typing import Any


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# functions by name, without the underscores of their in-place and reflected forms
ACTIVATIONS = _words(
    "relu relu6 hardtanh leaky_relu elu selu celu gelu silu mish sigmoid hardsigmoid logsigmoid hardswish "
    "tanh softplus softsign threshold rrelu tanhshrink softshrink hardshrink"
)
UNARY = _words(
    "exp expm1 log log1p log2 sqrt rsqrt abs absolute neg negative square sin cos tan atan erf clamp "
    "clamp_min clamp_max clip sign reciprocal nan_to_num round floor ceil logical_not isnan dropout "
    "dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout feature_dropout native_dropout float "
    "double half bfloat16 to type type_as clone detach contiguous data requires_grad cpu cuda positive"
)
BINARY = _words(
    "add sub subtract mul multiply div divide true_divide floor_divide rsub rdiv rtruediv rpow pow maximum "
    "minimum where addcmul addcdiv lerp fmod remainder eq ne gt ge lt le logical_and logical_or masked_fill "
    "iadd isub imul idiv itruediv"
)
ELEMENTWISE = ACTIVATIONS | UNARY | BINARY
MOVING = _words(
    "view reshape flatten unflatten ravel permute transpose swapaxes swapdims movedim moveaxis T mT t chunk "
    "split split_with_sizes tensor_split unbind narrow select getitem squeeze unsqueeze expand expand_as "
    "view_as reshape_as repeat tile flip roll stack channel_shuffle native_channel_shuffle pixel_shuffle "
    "pixel_unshuffle repeat_interleave broadcast_to hsplit vsplit dsplit hstack vstack"
)
# of those, what puts several tensors into one, and what repeats one along dimensions of size 1
JOINED = frozenset({"stack", "hstack", "vstack"})
REPEATING = frozenset({"expand", "expand_as", "broadcast_to", "repeat"})
JOINING = {"cat", "concat", "concatenate"}
REDUCTIONS = _words("mean sum amax amin max min std var norm prod logsumexp any all std_mean var_mean")
ALONG = {"softmax", "log_softmax", "softmin", "cumsum", "normalize"}
# spatial dimensions of what works on windows or positions of each channel
WINDOWS = {
    f"{kind}_pool{n}d": n for n in (1, 2, 3) for kind in ("max", "avg", "lp", "adaptive_avg", "adaptive_max")
}
WINDOWS |= {f"{kind}_pool{n}d_with_indices": n for n in (1, 2, 3) for kind in ("max", "adaptive_max")}
CONVOLUTIONS = {f"conv{n}d": n for n in (1, 2, 3)}
TRANSPOSED = {f"conv_transpose{n}d": n for n in (1, 2, 3)}
RESIZING = {"interpolate", "upsample"}
# give tensors whose numbers are alike, or drawn alike, so that any of them may be removed
ALIKE = _words(
    "zeros ones full empty rand randn zeros_like ones_like full_like empty_like rand_like randn_like "
    "new_zeros new_ones new_full new_empty bernoulli uniform normal fill zero"
)
# of those, what takes nothing but sizes
SIZED = _words("zeros ones empty rand randn new_zeros new_ones new_empty")


def name_of(func: Any) -> str:
    """Of a function of torch, without the underscores of its other forms: `add` for `add_`, `__radd__`."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(func.__self__, "__name__", name)
    return str(name).strip("_")


def is_in_place(func: Any) -> bool:
    name = str(getattr(func, "__name__", ""))
    return (
        name.startswith("__i") or (name.endswith("_") and not name.startswith("__")) or name == "__setitem__"
    )
