"""A network in integers beside float32 and beside its own training: the same classes, and how fast."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from common.models.served import onnx_session
from common.quantization.layers import QuantisedLayer
from common.quantization.settings import INTEGER_BITS
from common.runs.latency import BATCHES, REPEATS, WARM_UP
from common.runs.trained import Trained

if TYPE_CHECKING:
    from numpy.typing import NDArray

# test examples on which networks are compared, at most
COMPARED = 2000


@dataclass(frozen=True)
class Agreement:
    """For how large a share of `count` examples the integers name the class that others do, by their name."""

    count: int
    shares: dict[str, float]


def session(path: Path, threads: int) -> "Callable[[NDArray[Any]], NDArray[Any]]":
    """An ONNX file as a function of one input."""
    made = onnx_session(path, threads)
    name = made.get_inputs()[0].name
    return lambda inputs: made.run(None, {name: inputs})[0]


@torch.no_grad()
def agreements(
    found: Trained, plain: Path, int8: Path, stored: "Callable[[torch.Tensor], NDArray[Any]]"
) -> Agreement:
    """Compare the classes that networks name on the test set.

    Args:
        found: the run's network, quantised; our integer arithmetic is used where its bits allow.
        plain, int8: the files.
        stored: gives inputs as the files take them.
    """
    network, data = found.network.eval(), found.module.data
    by_integers = use_integers(network)
    files = {"the float32 file": session(plain, 1), "int8": session(int8, 1)}
    named: dict[str, list[torch.Tensor]] = {}
    count = 0
    for inputs, _ in data.batches("test", data.evaluation_batch):
        given = stored(inputs)
        ours = "our integer arithmetic" if by_integers else "the run's own network"
        named.setdefault(ours, []).append(network(inputs).argmax(1))
        for name, run in files.items():
            named.setdefault(name, []).append(torch.from_numpy(run(given)).argmax(1))
        count += len(inputs)
        if count >= COMPARED:
            break
    classes = {name: torch.cat(parts) for name, parts in named.items()}
    int8_classes = classes.pop("int8")
    return Agreement(
        count, {name: float((own == int8_classes).double().mean()) for name, own in classes.items()}
    )


def use_integers(network: torch.nn.Module) -> bool:
    """Let a network's layers compute with int8 matrices; whether all of them can."""
    layers = [layer for layer in network.modules() if isinstance(layer, QuantisedLayer)]
    if any(max(layer.settings.bits, layer.settings.bits_weight) > INTEGER_BITS for layer in layers):
        return False
    for layer in layers:
        layer.settings = replace(layer.settings, arithmetic="integer")
    return True


def speeds(plain: Path, int8: Path, shape: tuple[int, ...]) -> dict[int, tuple[float, float]]:
    """Milliseconds of float32 and of int8 by the size of the batch, one thread, in turn, by median."""
    calls = [session(path, 1) for path in (plain, int8)]
    found = {}
    for batch in BATCHES:
        inputs = torch.rand(batch, *shape).numpy()
        times: list[list[float]] = [[], []]
        for repeat in range(WARM_UP + REPEATS):
            for call, own in zip(calls, times, strict=True):
                started = time.perf_counter()
                call(inputs)
                if repeat >= WARM_UP:
                    own.append(1000 * (time.perf_counter() - started))
        found[batch] = (statistics.median(times[0]), statistics.median(times[1]))
    return found
