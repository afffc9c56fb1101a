"""What a run says when a number stops being finite."""

from common.base.errors import UserError


class NonFinite(UserError):
    """A loss, gradient or iterate became NaN or infinite.

    Args:
        what: which quantity.
        step: the step at which it happened.
        last_finite: its last finite value, if there was one.
    """

    def __init__(self, *, step: int, last_finite: float | None, what: str = "loss") -> None:
        value = "none" if last_finite is None else f"{last_finite:.6g}"
        super().__init__(f"the {what} is not finite at step {step} (last finite value: {value})")
