"""Looking at the tensors that a network quantises, where it does so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from torch import Tensor, nn

Kind = Literal["activations", "weights", "layer_gradients"]
# (layer's name, kind, the tensor, what became of it)
Observer = Callable[[str, Kind, Tensor, Tensor], None]


class Observed:
    """What a layer tells of each tensor that it quantises; nobody listens but within `observing`."""

    def __init__(self) -> None:
        self.listener: Callable[[Kind, Tensor, Tensor], None] | None = None

    def tell(self, kind: Kind, before: Tensor, after: Tensor) -> None:
        """Hand a tensor and its quantised form to the listener, if there is one."""
        if self.listener is not None:
            self.listener(kind, before.detach(), after.detach())


@contextmanager
def observing(network: nn.Module, observer: Observer) -> Iterator[None]:
    """Within it the observer is told of every tensor that the network's layers quantise.

    Args:
        network: with layers that have `observed`; all others are left alone.
        observer: gets what must not be kept or changed: it copies what it needs.
    """
    layers = {
        name: layer.observed
        for name, layer in network.named_modules()
        if isinstance(getattr(layer, "observed", None), Observed)
    }
    for name, observed in layers.items():
        observed.listener = _named(name, observer)
    try:
        yield
    finally:
        for observed in layers.values():
            observed.listener = None


def _named(name: str, observer: Observer) -> Callable[[Kind, Tensor, Tensor], None]:
    def tell(kind: Kind, before: Tensor, after: Tensor) -> None:
        observer(name, kind, before, after)

    return tell
