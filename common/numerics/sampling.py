"""Random draws for a batch of replicates, each from its own generator.

Replicate r of a batched run draws exactly what a single run with seed `seed + r` draws: every replicate
consumes its own stream, whatever the others do. Streams are filled in blocks, so that drawing costs
one slice a step.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Generator, Tensor

BLOCK = 1 << 14


class _Stream:
    """One kind of draw (indices, normals, uniforms) of all replicates, buffered in blocks."""

    def __init__(
        self, generators: list[Generator], fill: Callable[[Generator, int], Tensor], device: torch.device
    ) -> None:
        self.generators, self.fill, self.device = generators, fill, device
        self.block: Tensor | None = None
        self.position = [BLOCK] * len(generators)

    def take(self, size: int, rows: list[int] | None) -> Tensor:
        """The next `size` draws of the replicates `rows` (None: all): [len(rows), size]."""
        chosen = range(len(self.generators)) if rows is None else rows
        if size > BLOCK // 2:
            return torch.stack([self.fill(self.generators[r], size) for r in chosen]).to(self.device)
        starts = [self._advance(r, size) for r in chosen]
        assert self.block is not None
        if rows is None and min(starts) == max(starts):
            return self.block[:, starts[0] : starts[0] + size]
        return torch.stack(
            [self.block[r, start : start + size] for r, start in zip(chosen, starts, strict=True)]
        )

    def _advance(self, r: int, size: int) -> int:
        """Reserve `size` draws of replicate r; what is left of a block that is too short is dropped."""
        if self.position[r] + size > BLOCK:
            fresh = self.fill(self.generators[r], BLOCK).to(self.device)
            if self.block is None:
                self.block = fresh.new_zeros(len(self.generators), BLOCK)
            self.block[r] = fresh
            self.position[r] = 0
        start = self.position[r]
        self.position[r] += size
        return start

    def state_dict(self) -> dict[str, Any]:
        return {
            "block": None if self.block is None else self.block.clone(),
            "position": list(self.position),
            "generators": [generator.get_state() for generator in self.generators],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        block = state["block"]
        self.block = None if block is None else block.to(self.device).clone()
        self.position = list(state["position"])
        for generator, saved in zip(self.generators, state["generators"], strict=True):
            generator.set_state(saved.cpu())


class ReplicateSampler:
    """The random streams of R replicates with seeds `seed`, ..., `seed + R - 1`.

    Indices, normals and uniforms each come from a generator of their own, so methods that differ in the
    others still see the same samples. Generators live on the CPU: draws are the same on every device.

    Args:
        seed: seed of the first replicate.
        replicates: R.
        n: indices are uniform in 0..n-1 (None: no indices can be drawn).
        device: where the draws are put.
        dtype: type of normals and uniforms.
    """

    def __init__(
        self, seed: int, replicates: int, n: int | None, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.replicates = replicates
        fills: dict[str, Callable[[Generator, int], Tensor]] = {
            "normal": lambda g, size: torch.randn(size, generator=g, dtype=dtype),
            "uniform": lambda g, size: torch.rand(size, generator=g, dtype=dtype),
        }
        if n is not None:
            fills["index"] = lambda g, size: torch.randint(n, (size,), generator=g)
        seeds = range(seed, seed + replicates)
        self._streams = {
            name: _Stream([_generator(name, s) for s in seeds], fill, device) for name, fill in fills.items()
        }

    def indices(self, size: int, rows: list[int] | None = None) -> Tensor:
        """Uniform indices with replacement, int64 [R, size] (or [len(rows), size])."""
        return self._streams["index"].take(size, rows)

    def normal(self, shape: tuple[int, ...], rows: list[int] | None = None) -> Tensor:
        """Standard normals [R, *shape] (or [len(rows), *shape])."""
        flat = self._streams["normal"].take(torch.Size(shape).numel(), rows)
        return flat.reshape(len(flat), *shape)

    def uniform(self, size: int, rows: list[int] | None = None) -> Tensor:
        """Uniforms in [0, 1): [R, size] (or [len(rows), size])."""
        return self._streams["uniform"].take(size, rows)

    def state_dict(self) -> dict[str, Any]:
        return {name: stream.state_dict() for name, stream in self._streams.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, stream in self._streams.items():
            stream.load_state_dict(state[name])


def _generator(stream: str, seed: int) -> Generator:
    """Streams and seeds never share a generator's seed."""
    kinds = ("index", "normal", "uniform")
    return Generator().manual_seed(len(kinds) * seed + kinds.index(stream))
