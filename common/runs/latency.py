"""How long a network takes for a batch, in torch and in onnxruntime."""

import statistics
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCHES = (1, 64)
REPEATS = 30
WARM_UP = 3


def latencies(network: "nn.Module", shape: tuple[int, ...], onnx: Path | None) -> dict[str, dict[int, float]]:
    """Milliseconds for a batch on the CPU, the median of `REPEATS` calls after `WARM_UP`.

    Both engines use as many threads as torch does here.

    Args:
        network: on the CPU, in evaluation mode.
        shape: of one input.
        onnx: the same network as a file; None to measure torch alone.

    Returns:
        By engine ("torch"; "onnxruntime" where it is installed and there is a file) and batch size.
    """
    calls: dict[str, Callable[[Tensor], object]] = {"torch": network}
    if onnx is not None and find_spec("onnxruntime"):
        calls["onnxruntime"] = _session(onnx)
    found: dict[str, dict[int, float]] = {engine: {} for engine in calls}
    with torch.inference_mode():
        for batch in BATCHES:
            inputs = torch.rand(batch, *shape)
            for engine, call in calls.items():
                found[engine][batch] = _milliseconds(partial(call, inputs))
    return found


def _session(path: Path) -> "Callable[[Tensor], object]":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda inputs: session.run(None, {name: inputs.numpy()})


def _milliseconds(call: Callable[[], object]) -> float:
    for _ in range(WARM_UP):
        call()
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)
