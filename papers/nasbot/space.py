"""The space of networks within limits, as searches over architectures see it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from common.architectures.space import ArchitectureSpace, Random
from common.base.errors import UserError
from papers.nasbot.graph import Kind, Layer, Network, valid_or_none
from papers.nasbot.modifiers import modified, steps_of
from papers.nasbot.pools import InitialPool, initial_networks


@dataclass(frozen=True)
class Limits:
    """What networks of a space keep to; the defaults stand in conf/method/network_search.

    Attributes:
        layers: fewest and most, input and output among them.
        units: fewest and most of a layer.
        in_degree, out_degree, edges: the most.
        mass: the most of a network; None for any.
        halvings: the most that an image goes through; None for any.
    """

    layers: tuple[int, int]
    units: tuple[int, int]
    in_degree: int
    out_degree: int
    edges: int
    mass: float | None
    halvings: int | None

    def violation(self, network: Network) -> str | None:
        """Which limit a network does not keep to, in a few words; None where it keeps to all."""
        units = [units for layer in network.layers if (units := layer.units) is not None]
        halvings = max((count for count in network.halvings if count is not None), default=0)
        bounds: list[tuple[str, float, float | None, float | None]] = [
            ("layers", len(network), *self.layers),
            ("units of its smallest layer", min(units, default=self.units[0]), self.units[0], None),
            ("units of its largest layer", max(units, default=self.units[1]), None, self.units[1]),
            ("edges into a layer", max(map(len, network.parents)), None, self.in_degree),
            ("edges out of a layer", max(map(len, network.children)), None, self.out_degree),
            ("edges", len(network.edges), None, self.edges),
            ("mass", float(network.masses.sum()), None, self.mass),
            ("halvings", halvings if network.kind == "cnn" else 0, None, self.halvings),
        ]
        for name, value, least, most in bounds:
            if (least is not None and value < least) or (most is not None and value > most):
                return f"{name}: {value:g} (valid: {_range(least, most)})"
        if network.kind == "cnn" and not all(network.layers[n].on_images for n in network.children[0]):
            return "a layer behind the input is no convolution"
        return None


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return f"at most {most:g}"
    return f"at least {least:g}" if most is None else f"{least:g} to {most:g}"


class NetworkSpace(ArchitectureSpace[Network]):
    """Networks of one kind within limits.

    Args:
        kind: cnn or mlp.
        decision: the label of decision layers: softmax, or linear for regression.
        limits: see `Limits`.
        pool: which networks a search starts from; their units are brought into the limits, and those that do
            not keep to the others are left out.

    Raises:
        UserError: limits out of order, or such that no network of the pool keeps to them.
    """

    def __init__(self, kind: Kind, decision: str, limits: Limits, pool: InitialPool) -> None:
        for name, (least, most) in {"layers": limits.layers, "units": limits.units}.items():
            if not 1 <= least <= most:
                raise UserError(f"method.{name}=[{least}, {most}]; valid: fewest and most, from 1 on")
        self.kind, self.decision, self.limits, self.pool = kind, decision, limits, pool
        networks = [self._within_units(network) for network in initial_networks(kind, decision, pool)]
        self.initial = [network for network in networks if network in self]
        if not self.initial:
            said = "; ".join(sorted({limits.violation(network) or "" for network in networks}))
            raise UserError(f"no network of the initial pool keeps to the limits of the search: {said}")

    def __contains__(self, network: Network) -> bool:
        return network.kind == self.kind and self.limits.violation(network) is None

    def _within_units(self, network: Network) -> Network:
        least, most = self.limits.units
        layers = tuple(
            layer if layer.units is None else layer._replace(units=min(max(layer.units, least), most))
            for layer in network.layers
        )
        return Network(network.kind, layers, network.edges)

    @property
    def size(self) -> int:
        """Not known: no formula counts the networks within limits.

        Raises:
            UserError: always.
        """
        raise UserError("how many networks keep to the limits is not known")

    def sample(self, random: Random) -> Network:
        """A network of the initial pool after 1 to 5 times 1 to 5 modifications; not uniform."""
        network = self.initial[int(random.integers(len(self.initial)))]
        for _ in range(steps_of(random)):
            network = self.mutate(network, random)
        return network

    def mutate(self, architecture: Network, random: Random) -> Network:
        """A network after 1 to 5 modifications; as it was where none of those drawn is valid."""
        return modified(architecture, steps_of(random), random, self.__contains__)

    def encode(self, architecture: Network) -> tuple[int, ...]:
        self.require(architecture)
        return architecture.code

    def decode(self, code: tuple[int, ...]) -> Network:
        network = Network.decoded(code)
        self.require(network)
        return network

    def from_json(self, data: Any) -> Network:
        network = Network.from_json(data)
        self.require(network)
        return network

    def require(self, network: Network) -> None:
        """Refuse a network that is not in the space.

        Raises:
            UserError: with the limit.
        """
        if network.kind != self.kind:
            raise UserError(f"a network of kind {network.kind}; valid: {self.kind}")
        if (said := self.limits.violation(network)) is not None:
            raise UserError(f"a network outside the limits of the search: {said}")


def feed_forward(network: Network) -> bool:
    """Whether its layers stand in one row."""
    return len(network.edges) == len(network) - 1 and all(len(part) <= 1 for part in network.children)


def row_within(kind: Kind, layers: Sequence[Layer], space: NetworkSpace) -> Network | None:
    """A network of layers in one row, or None where it is not in the space."""
    edges = tuple((number, number + 1) for number in range(len(layers) - 1))
    network = valid_or_none(lambda: Network(kind, tuple(layers), edges))
    return network if network is not None and network in space else None
