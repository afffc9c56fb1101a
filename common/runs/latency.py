"""How long a network takes for a batch, in torch and in onnxruntime."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from common.models.served import onnx_session

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCHES = (1, 64)
REPEATS = 30
WARM_UP = 3


@dataclass(frozen=True)
class Timed:
    """A network whose batches are timed.

    Attributes:
        network: on the CPU, in evaluation mode.
        onnx: the same network as a file; None to measure torch alone.
    """

    network: "nn.Module"
    onnx: Path | None = None


def latencies(
    networks: Mapping[str, Timed], shape: tuple[int, ...]
) -> dict[str, dict[str, dict[int, float]]]:
    """Milliseconds for a batch on the CPU, the median of `REPEATS` calls after `WARM_UP`.

    All networks and engines are called in turn, so that what else the machine does meets them alike. Both
    engines use as many threads as torch does here.

    Args:
        networks: by name.
        shape: of one input.

    Returns:
        By network, engine ("torch"; "onnxruntime" where it is installed and there is a file) and batch size.
    """
    calls: dict[tuple[str, str], Callable[[Tensor], object]] = {}
    for name, timed in networks.items():
        calls[name, "torch"] = timed.network
        if timed.onnx is not None and find_spec("onnxruntime"):
            calls[name, "onnxruntime"] = _session(timed.onnx)
    found: dict[str, dict[str, dict[int, float]]] = {name: {} for name in networks}
    with torch.inference_mode():
        for batch in BATCHES:
            inputs = torch.rand(batch, *shape)
            for (name, engine), milliseconds in _in_turn(calls, inputs).items():
                found[name].setdefault(engine, {})[batch] = milliseconds
    return found


def _session(path: Path) -> "Callable[[Tensor], object]":
    session = onnx_session(path, torch.get_num_threads())
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs.numpy()})


def _in_turn(
    calls: "Mapping[tuple[str, str], Callable[[Tensor], object]]", inputs: "Tensor"
) -> dict[tuple[str, str], float]:
    for _ in range(WARM_UP):
        for call in calls.values():
            call(inputs)
    times: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(REPEATS):
        for key, call in calls.items():
            started = time.perf_counter()
            call(inputs)
            times[key].append(time.perf_counter() - started)
    return {key: 1000 * statistics.median(measured) for key, measured in times.items()}
