"""Deep autoencoders of Hinton and Salakhutdinov, the benchmark of second-order and adaptive methods."""

import math
from itertools import pairwise
from typing import ClassVar, Literal

from torch import Tensor, nn

from common.models.shapes import require_sizes


class Autoencoder(nn.Module):
    """Mirrored fully connected autoencoder: sigmoid hidden layers, a linear code layer, logits out.

    Sources: Hinton and Salakhutdinov 2006; Martens 2010, section 6. On 28x28 images, MNIST's
    (hidden 1000-500-250-30) has 2,837,314 parameters, CURVES' (400-200-100-50-25-6) 842,340. Its feature is
    the code.

    Args:
        shape: of one input, flattened; the output has as many logits.
        classes: ignored; inputs are their own targets.
        hidden: sizes of the encoder's layers, the code last; the decoder mirrors them.
        init: "xavier_normal" (weights N(0, 2/(fan_in + fan_out)), biases 0) or "torch" (weights and
            biases U(-1/sqrt(fan_in), 1/sqrt(fan_in))).

    Raises:
        UserError: hidden sizes below 1.
    """

    task: ClassVar[Literal["reconstruction"]] = "reconstruction"
    features: ClassVar[tuple[str, ...]] = ("encoder",)

    def __init__(
        self,
        *,
        shape: tuple[int, ...],
        classes: int | None,
        hidden: list[int],
        init: Literal["xavier_normal", "torch"],
    ) -> None:
        super().__init__()
        require_sizes("hidden", hidden)
        sizes = [math.prod(shape), *hidden]
        self.encoder = nn.Sequential(nn.Flatten(), *_sigmoid_layers(sizes))
        self.decoder = _sigmoid_layers(sizes[::-1])
        if init == "xavier_normal":
            self.apply(_init_xavier_normal)

    def forward(self, inputs: Tensor) -> Tensor:
        """Inputs [b, *shape] to reconstruction logits [b, prod(shape)]; their sigmoid is the image."""
        return self.decoder(self.encoder(inputs))


def _sigmoid_layers(sizes: list[int]) -> nn.Sequential:
    """Linear layers from size to size with sigmoids between them, none after the last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.Sigmoid()]
    return nn.Sequential(*layers[:-1])


def _init_xavier_normal(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_normal_(module.weight)
        nn.init.zeros_(module.bias)
