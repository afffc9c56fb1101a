"""What a model asks of its data set: checks that end in one line when they do not fit."""

from common.base.errors import UserError

# layers of a network: more could only be a slip of the keys, and would fill the memory one by one
DEEPEST = 10_000


def require_classes(model: str, classes: int | None) -> int:
    """The number of classes.

    Raises:
        UserError: the data set has no classes (a regression set), or fewer than two.
    """
    if classes is None or classes < 2:
        raise UserError(f"model: {model} needs a data set with classes, this one has {classes}; valid: >= 2")
    return classes


def require_no_classes(model: str, classes: int | None) -> None:
    """Refuse a classification set.

    Raises:
        UserError: the data set has classes.
    """
    if classes is not None:
        raise UserError(f"model: {model} predicts a number, the data set has {classes} classes; valid: none")


def require_image(model: str, shape: tuple[int, ...], smallest: int) -> tuple[int, int, int]:
    """The shape (channels, height, width) of an image of at least `smallest` pixels a side.

    Raises:
        UserError: the inputs are no images, or too small.
    """
    if len(shape) != 3 or min(shape[1:]) < smallest:
        raise UserError(
            f"model: {model} cannot take inputs of shape {tuple(shape)}; "
            f"valid: images (channels, height, width) of at least {smallest} pixels a side"
        )
    return shape[0], shape[1], shape[2]


def require_sizes(key: str, sizes: list[int]) -> None:
    """Refuse an empty list of sizes or one with a size below 1.

    Raises:
        UserError: see above; `key` is the name that the user set.
    """
    if not sizes or min(sizes) < 1:
        raise UserError(f"model.{key}={list(sizes)}; valid: one or more numbers, each >= 1")


def require_positive(key: str, value: int) -> None:
    """Refuse a number below 1.

    Raises:
        UserError: see above; `key` is the name that the user set.
    """
    if value < 1:
        raise UserError(f"model.{key}={value}; valid: a number >= 1")


def require_depth(depth: int, layers: int, others: int, what: str = "") -> int:
    """The n of a depth `layers` n + `others`; `what` says for which form of the model that is the rule.

    Raises:
        UserError: no n >= 1 gives that depth, or it is above `DEEPEST`.
    """
    n, rest = divmod(depth - others, layers)
    if rest or n < 1 or depth > DEEPEST:
        raise UserError(f"model.depth={depth}; valid{what}: {layers}n + {others}, n >= 1, up to {DEEPEST:,}")
    return n
