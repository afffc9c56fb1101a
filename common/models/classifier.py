"""The layers of a classifier: what VGG and MobileNet share."""

from torch import nn

from common.base.errors import UserError


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer whose weights start at N(0, 0.01²) and biases at 0, as in torchvision."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer


def require_dropout(probability: float) -> None:
    """Refuse a probability outside [0, 1).

    Raises:
        UserError: see above.
    """
    if not 0 <= probability < 1:
        raise UserError(f"model.dropout={probability}; valid: 0 <= dropout < 1")
