"""Training with quantised weights, activations and gradients, as a method that any paper's networks take.

Banner, Hubara, Hoffer, Soudry, "Scalable Methods for 8-bit Training of Neural Networks", NeurIPS 2018
(arXiv 1805.11046).
"""

import math
import sys
from collections.abc import Callable
from typing import Unpack

import torch
from torch import Tensor, nn

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.base.loader import BlockLoader
from common.base.method import TrainingMethod, beside
from common.base.modes import evaluation_mode
from common.quantization.converter import quantise_network
from common.quantization.layers import QuantisedLayer
from common.quantization.range_norm import RangeNorm, ScaleNorm
from common.quantization.settings import Quantisation, Settings


class QuantisedTraining(TrainingMethod):
    """The student becomes its quantised twin; its loss is the task's, or the inner method's.

    A batch that the chunks of Range BN do not divide has no range: where it is the last of an epoch, it is
    left out of all epochs, said on stderr and counted (`train_examples_dropped`, of each epoch).

    Args:
        optimizer, inner: see `MethodParts`.
        leave: names of the student's layers that stay float.
        settings: those of `Quantisation`.

    Raises:
        UserError: a setting out of range; a student with layers that have no quantised form.
    """

    REPLACES_STUDENT = True

    def __init__(
        self,
        *,
        optimizer: Callable[..., torch.optim.Optimizer],
        leave: list[str],
        inner: TrainingMethod | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(optimizer=optimizer, inner=inner)
        # its loss is the inner method's
        self.ONE_PASS = inner is None or inner.ONE_PASS  # type: ignore[misc]
        self.leave = leave
        self.settings = Quantisation(**settings)
        self.dropped = 0
        # by the name of each Range BN, the pixels of its inputs
        self.pixels: dict[str, int] = {}

    def attach(self, student: nn.Module, make_model: Callable[[], nn.Module], data: DataSet) -> nn.Module:
        """The student's quantised twin."""

        def make_twin() -> nn.Module:
            return quantise_network(make_model(), self.settings, self.leave)

        twin = quantise_network(student, self.settings, self.leave)
        self.pixels = norm_pixels(twin, data.shape)
        return super().attach(twin, make_twin, data)

    def fit_loader(self, loader: BlockLoader) -> None:
        """Leave out the last batch of each epoch where Range BN's chunks do not divide it.

        Raises:
            UserError: they divide no batch of the size that the others have.
        """
        super().fit_loader(loader)
        sizes = loader.batch_sizes()
        if sizes is None or self._divides(sizes[1]):
            return
        first, last = sizes
        if loader.steps_per_epoch == 1 or not self._divides(first):
            count = first if not self._divides(first) else last
            raise UserError(
                f"dataset.batch_size: {self.settings.num_chunks} chunks of Range BN do not divide a batch "
                f"of {count} (valid: multiples of {self._multiple()}, or method.num_chunks=1)"
            )
        loader.steps_per_epoch -= 1
        self.dropped = last
        print(
            f"Range BN: the last batch of each epoch, {last} examples, is left out, as "
            f"{self.settings.num_chunks} chunks do not divide it (method.num_chunks=1 takes it)",
            file=sys.stderr,
        )

    def _divides(self, batch: int) -> bool:
        """Whether each chunk of each Range BN holds two values or more of a batch, all the same number."""
        chunks = self.settings.num_chunks
        return all(
            batch * pixels % chunks == 0 and batch * pixels >= 2 * chunks for pixels in self.pixels.values()
        )

    def _multiple(self) -> int:
        """The numbers of examples that all chunks divide are the multiples of this one."""
        chunks = self.settings.num_chunks
        return math.lcm(*(chunks // math.gcd(chunks, pixels) for pixels in self.pixels.values()))

    def evaluate(self, student: nn.Module, data: DataSet, split: SplitName) -> dict[str, float]:
        """How many examples each epoch leaves out, if any; the inner method's metrics.

        Raises:
            UserError: the running range of a layer's inputs is NaN or infinite.
        """
        _require_finite_ranges(student)
        own = {"train_examples_dropped": float(self.dropped)} if self.dropped and split == "train" else {}
        return beside(super().evaluate(student, data, split), own)


@torch.no_grad()
def norm_pixels(network: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """How many values of one example each channel of each Range BN gets, by the norm's name.

    Args:
        network: in any mode; it stays as it is.
        shape: of one input.
    """
    found: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found[name] = inputs[0][0, 0].numel()

        return hook

    norms = {name: layer for name, layer in network.named_modules() if isinstance(layer, RangeNorm)}
    hooks = [layer.register_forward_pre_hook(note(name)) for name, layer in norms.items()]
    if norms:
        device = next(network.parameters()).device
        with evaluation_mode(network):
            network(torch.zeros(1, *shape, device=device))
    for hook in hooks:
        hook.remove()
    return found


def _require_finite_ranges(network: nn.Module) -> None:
    """Name the first layer whose running range of inputs is no range.

    Raises:
        UserError: see above.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, QuantisedLayer | ScaleNorm) and layer.activation is not None:
            low, high = layer.activation.low, layer.activation.high
            if not bool(torch.isfinite(low) & torch.isfinite(high)):
                raise UserError(
                    f"model: the inputs of {name} had the range [{float(low):g}, {float(high):g}] in "
                    "training (valid: finite numbers; a lower method.optimizer.lr, or other inputs)"
                )
