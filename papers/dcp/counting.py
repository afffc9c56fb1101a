"""The size of a pruned network, and how long it takes: a run that trains nothing and reads no data."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from common.base.limits import require
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.pruning.slicing import sliced
from papers.dcp.complexity import complexity
from papers.dcp.layer_problem import kept_channels
from papers.dcp.measures import saved
from papers.dcp.selectors import layers_within

# seconds of passes in one training step, beside which Lightning's own time vanishes
ROUND_SECONDS = 0.15


class Count:
    """What is counted and timed: a choice of the config group `method`.

    (No dataclass: Hydra would take it for a config.)

    Args:
        rate: eta, the part of each layer's channels that goes, in [0, 1); which of them changes no size.
        layers: names of layers, or of blocks of them, whose input channels go; None: all that can.
        batch: examples of a pass that is timed.
        repeats: passes, of which the median time is taken, after one that is not counted.

    Raises:
        UserError: no batch, or no pass; in the run a rate outside [0, 1) or a name without such a layer.
    """

    def __init__(self, *, rate: float, layers: list[str] | None, batch: int, repeats: int) -> None:
        require("at least 1", "method", batch=batch, repeats=repeats)
        self.rate, self.layers, self.batch, self.repeats = rate, layers, batch, repeats


class CountingModule(PaperModule):
    """Counts a network without part of its channels, and times it on the device of the run.

    A round is a forward pass in training mode and a backward pass to its weights, of random inputs.

    Args:
        settings: of `papers.dcp.module.DCPModule`; the method is a `Count`.

    Raises:
        UserError: see `Count`.
    """

    STARTS = True

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.data, self.count = settings["data"], settings["method"]
        assert isinstance(self.count, Count)
        network: nn.Module = settings["model"]
        self.whole = complexity(network, self.data.shape)
        keep = {}
        if self.count.rate != 0:
            layers = layers_within(network, self.data.shape, self.count.layers)
            for layer, group in layers.items():
                keep[group.name] = list(range(kept_channels(group.channels, self.count.rate, layer)))
        self.pruned = sliced(network, self.data.shape, keep) if keep else network
        self.seconds: dict[str, list[float]] = {"forward": [], "backward": []}

    def network(self) -> nn.Module:
        """The network that is counted, of weights that nothing has trained."""
        return self.pruned

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_train_start(self) -> None:
        self.trainer.should_stop = self._timed >= self.count.repeats

    def training_step(self, batch: int, batch_idx: int) -> None:
        """As many rounds as fit in `ROUND_SECONDS`; the first after a start warms the machine up."""
        self.pruned.train()
        inputs = torch.rand(self.count.batch, *self.data.shape, device=self.device)
        if batch_idx == 0:
            self._round(inputs)
        started = time.perf_counter()
        while self._timed < self.count.repeats:
            for name, seconds in zip(self.seconds, self._round(inputs), strict=True):
                self.seconds[name].append(seconds)
            if time.perf_counter() - started > ROUND_SECONDS:
                break
        self.trainer.should_stop = self._timed >= self.count.repeats

    def _round(self, inputs: Tensor) -> tuple[float, float]:
        """Seconds of a forward and of a backward pass."""
        self.pruned.zero_grad(set_to_none=True)
        forward, outputs = self._clocked(lambda: self.pruned(inputs))
        loss = outputs.sum()
        backward, _ = self._clocked(loss.backward)
        return forward, backward

    def _clocked(self, call: Callable[[], Any]) -> tuple[float, Any]:
        """How long a call keeps the device busy, and what it gives."""
        self._wait()
        started = time.perf_counter()
        found = call()
        self._wait()
        return time.perf_counter() - started, found

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    @property
    def _timed(self) -> int:
        return len(self.seconds["forward"])

    def progress(self) -> Progress:
        return Progress(
            self._timed, self.count.repeats, "passes", f"{self.whole.macs / 1e6:.4g} M multiply-adds"
        )

    def results(self) -> dict[str, Any]:
        """What `papers.dcp.measures.saved` says, and the median times.

        `gpu_fwd_ms` and `gpu_bwd_ms` in milliseconds on a GPU, `cpu_fwd_s` and `cpu_bwd_s` in seconds else.
        """
        medians = {name: statistics.median(times) for name, times in self.seconds.items()}
        on_gpu = self.data.device.type == "cuda"
        times = (
            {"gpu_fwd_ms": 1000 * medians["forward"], "gpu_bwd_ms": 1000 * medians["backward"]}
            if on_gpu
            else {"cpu_fwd_s": medians["forward"], "cpu_bwd_s": medians["backward"]}
        )
        return saved(self.pruned, self.data.shape, self.whole) | {"rate": self.count.rate} | times

    def search_state(self) -> dict[str, Any]:
        return {"seconds": {name: list(times) for name, times in self.seconds.items()}}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]

    def on_fit_start(self) -> None:
        # results are given when the network is back on the CPU
        self.data.move(self.device)
