"""How many images a second a network takes: a run that trains nothing and reads no data."""

import copy
import math
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from common.base.limits import require
from common.base.loader import RoundLoader
from common.base.module import PaperModule, Progress
from common.detection.ssd import SSD
from common.metrics.macs import count_macs
from common.metrics.parameters import count_parameters
from common.models.folding import folded
from common.models.served import onnx_session, quiet_exporter

Call = Callable[[Tensor], Any]


class Speed:
    """What is timed: a choice of the config group `method`.

    (No dataclass: Hydra would take it for a config.)

    Args:
        sides: of square images in pixels; None: the images of the data set alone.
        batches: numbers of images at once; of other sides than the first the first number alone.
        repeats: passes of each, of which the median time is taken, after one that is not counted.
        onnx: whether the folded network is timed in onnxruntime too, on images of the first side.
        half: whether the folded network is timed in half precision too: float16 on a GPU, bfloat16 on a CPU.

    Raises:
        UserError: a side, a batch or a number of repeats below 1.
    """

    def __init__(
        self, *, sides: list[int] | None, batches: list[int], repeats: int, onnx: bool, half: bool
    ) -> None:
        for side in sides or []:
            require("at least 1", "method", sides=side)
        for batch in batches or [0]:
            require("at least 1", "method", batches=batch)
        require("at least 1", "method", repeats=repeats)
        self.sides, self.batches, self.repeats, self.onnx, self.half = sides, batches, repeats, onnx, half


class SpeedModule(PaperModule):
    """Times a network on the device of the run, in the forms in which it could be served, in turn.

    Forms: `plain`, as it is trained, in evaluation mode; `folded`, without the batch normalisations that fold
    into convolutions; `channels_last`, that with channels last in memory; `onnx`, the folded network in
    onnxruntime on the CPU, with as many threads; `half`, see `Speed`. A detector gives offsets and logits:
    what follows them is not timed, as in the paper. On a CPU seconds are those of the process over its number
    of threads: with one they are what a quiet machine takes, whatever else this one does.

    Args:
        settings: of `papers.pelee.module.PeleeModule`; the method is a `Speed`.

    Raises:
        UserError: see `Speed`; the network cannot take images of those sides.
    """

    STARTS = True

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.data, self.speed = settings["data"], settings["method"]
        assert isinstance(self.speed, Speed)
        self.model: nn.Module = settings["model"]
        self.seconds: dict[str, list[float]] = {}
        self.calls: dict[str, Call] = {}

    def network(self) -> nn.Module:
        """The network that is timed."""
        return self.model

    @property
    def _cases(self) -> list[tuple[tuple[int, ...], int]]:
        """(shape of an image, images at once)."""
        channels, *own = self.data.shape
        sides = [tuple(own)] if self.speed.sides is None else [(side, side) for side in self.speed.sides]
        first, *others = self.speed.batches
        return [
            ((channels, *side), batch)
            for side in sides
            for batch in ([first, *others] if side == sides[0] else [first])
        ]

    def _label(self, shape: tuple[int, ...], images: int) -> str:
        """A case's name in results: the side, or `own`, and the number of images."""
        return f"{'own' if self.speed.sides is None else shape[-1]}_{images}"

    def train_dataloader(self) -> RoundLoader:
        return RoundLoader()

    def on_fit_start(self) -> None:
        # results are given when the network is back on the CPU
        self.data.move(self.device)
        self.calls = self._forms()

    def on_train_start(self) -> None:
        self.trainer.should_stop = self._finished

    def training_step(self, batch: int, batch_idx: int) -> None:
        """One case whole: each form once to warm up, then all forms in turn."""
        shape, images = self._cases[len(self._timed)]
        inputs = torch.rand(images, *shape, device=self.device)
        first = shape == self._cases[0][0]
        calls = {name: call for name, call in self.calls.items() if first or name != "onnx"}
        found: dict[str, list[float]] = {name: [] for name in calls}
        with torch.inference_mode():
            for turn in range(self.speed.repeats + 1):
                for name, call in calls.items():
                    seconds = self._clocked(call, inputs)
                    if turn > 0:
                        found[name].append(seconds)
        for name, times in found.items():
            self.seconds[f"{name}_{self._label(shape, images)}"] = times
        self.trainer.should_stop = self._finished

    def _clocked(self, call: Call, inputs: Tensor) -> float:
        started = self._now()
        call(inputs)
        return self._now() - started

    def _now(self) -> float:
        """Seconds: on a GPU of the clock when its work is done, on a CPU of the process for each thread."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time() / torch.get_num_threads()

    def _forms(self) -> dict[str, Call]:
        plain = self.model.eval()
        served = folded(plain, self.data.shape)
        last: nn.Module = copy.deepcopy(served).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        forms: dict[str, Call] = {"plain": plain, "folded": served}
        forms["channels_last"] = lambda inputs: last(inputs.contiguous(memory_format=torch.channels_last))
        if self.speed.onnx and find_spec("onnxscript") and find_spec("onnxruntime"):
            forms["onnx"] = _session(served, self._cases[0][0])
        if self.speed.half:
            kind = torch.float16 if self.device.type == "cuda" else torch.bfloat16
            small = copy.deepcopy(last).to(kind)
            forms["half"] = lambda inputs: small(inputs.to(kind, memory_format=torch.channels_last))
        return forms

    @property
    def _timed(self) -> list[str]:
        """The cases that are done."""
        return [name for name in self.seconds if name.startswith("plain_")]

    @property
    def _finished(self) -> bool:
        return len(self._timed) >= len(self._cases)

    def progress(self) -> Progress:
        last = f"{self._rates()[self._timed[-1]]:.3g} images/s" if self._timed else ""
        return Progress(len(self._timed), len(self._cases), "sizes", last)

    def _rates(self) -> dict[str, float]:
        """Images a second by form, side and batch."""
        return {
            name: int(name.rsplit("_", 1)[1]) / statistics.median(times)
            for name, times in self.seconds.items()
        }

    def results(self) -> dict[str, Any]:
        """Images a second as `speed_FORM_SIDE_BATCH`, medians; `flops` and `params` in millions; `threads`.

        SIDE is `own` for images of the data set. `half_over_full` is the rate of half precision against that
        of `channels_last`, first side and batch. Of a detector also `map_1`, `scale_1`, ...: table 6.
        """
        rates = self._rates()
        found: dict[str, Any] = {f"speed_{name}": rate for name, rate in rates.items()}
        if self.speed.half:
            of = self._label(*self._cases[0])
            found["half_over_full"] = rates[f"half_{of}"] / rates[f"channels_last_{of}"]
        if isinstance(self.model, SSD):
            found |= maps_and_scales(self.model, self.data.shape)
        return found | {
            "flops": count_macs(self.model, self.data.shape) / 1e6,
            "params": count_parameters(self.model) / 1e6,
            "threads": torch.get_num_threads(),
        }

    def search_state(self) -> dict[str, Any]:
        return {"seconds": {name: list(times) for name, times in self.seconds.items()}}

    def load_search_state(self, state: dict[str, Any]) -> None:
        self.seconds = state["seconds"]


def maps_and_scales(detector: SSD, shape: tuple[int, ...]) -> dict[str, float]:
    """For each pair of heads the rows of its map and its smallest square prior in pixels, off the priors.

    Args:
        detector: on square images.
        shape: of an image.
    """
    head = detector.offsets[0]
    assert isinstance(head, nn.Conv2d)
    of_cell = head.out_channels // 4
    sides = (detector.priors[::of_cell, 2] * shape[-1]).double()
    # a map's cells have one size, and the next map a larger one
    scales, cells = sides.unique_consecutive(return_counts=True)
    found: dict[str, float] = {}
    for number, (scale, count) in enumerate(zip(scales.tolist(), cells.tolist(), strict=True), 1):
        found |= {f"map_{number}": math.isqrt(count), f"scale_{number}": round(scale, 2)}
    return found


def _session(network: nn.Module, shape: tuple[int, ...]) -> Call:
    """The network in onnxruntime, from a model in memory; it takes any number of images of this shape."""
    example = torch.zeros(2, *shape, device=next(network.parameters()).device)
    with quiet_exporter():
        program = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=({0: "batch"},), verbose=False
        )
    assert program is not None
    session = onnx_session(program.model_proto.SerializeToString(), torch.get_num_threads())
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs.cpu().numpy()})
