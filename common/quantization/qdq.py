"""Quantised networks as ONNX in QDQ form, which onnxruntime runs on integers.

Norms are folded into the convolutions first, activations are uint8, weights int8, symmetric, with a step
for each output channel: of the forms tried the only one that is faster than float32 on a CPU.
"""

import logging
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from common.base.errors import UserError
from common.quantization.layers import QuantisedLayer

# operations with weights, whose inputs have the ranges of the layers
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
CPU_FLAGS = Path("/proc/cpuinfo")


def require_onnxruntime() -> None:
    """Refuse to write integers without the package that does.

    Raises:
        UserError: onnxruntime is not installed.
    """
    if not find_spec("onnxruntime"):
        raise UserError(
            "to=int8 needs the package onnxruntime: pip install onnxruntime (without it: to=onnx)"
        )


def own_ranges(network: nn.Module) -> dict[str, tuple[float, float]]:
    """The running range of each quantised layer's inputs, by the layer's name.

    Raises:
        UserError: no layer has one, or they have seen no training batch.
    """
    layers = {
        name: layer.activation
        for name, layer in network.named_modules()
        if isinstance(layer, QuantisedLayer) and layer.activation is not None
    }
    found = {name: (float(own.low), float(own.high)) for name, own in layers.items() if int(own.batches) > 0}
    if not found:
        raise UserError(
            "to=int8: the network has no ranges of activations (valid: a run of method=quantization/qbp with "
            "method.bits below 32, or to=onnx)"
        )
    return found


def has_vnni() -> bool:
    """Whether the processor multiplies uint8 by int8 without an overflow in between (VNNI)."""
    flags = CPU_FLAGS.read_text() if CPU_FLAGS.exists() else ""
    # arm64 has such products too
    return "_vnni" in flags or platform.machine() in ("arm64", "aarch64")


def write_qdq(
    plain: Path, target: Path, ranges: dict[str, tuple[float, float]], samples: list[NDArray[np.float32]]
) -> dict[str, Any]:
    """Write the integer form of an ONNX file.

    The inputs of layers have their own ranges, as training tracked them; a tensor that something else reads
    too, as a shortcut, has at least the range that it has on the samples, and so have all others. On a
    processor without VNNI weights have 7 bits, as sums of two products would not fit int16.

    Args:
        plain: the float network, with weights named as its layers.
        target: where to.
        ranges: of `own_ranges`.
        samples: batches as the network takes them.

    Returns:
        own: how many tensors have ranges of their own; reduced: whether weights have 7 bits.
    """
    import onnx
    from onnxruntime import quantization

    reader = _Samples(onnx.load(plain).graph.input[0].name, samples)
    measured = _measured(plain, reader)
    overrides = _overrides(onnx.load(plain), ranges, measured, quantization.QuantType.QUInt8)
    reduced = not has_vnni()
    reader.rewind()
    # it advises to fold norms first, which the exporter has done
    with _without_advice():
        quantization.quantize_static(
            plain,
            target,
            reader,
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            reduce_range=reduced,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            extra_options={
                "WeightSymmetric": True,
                "TensorQuantOverrides": overrides,
                # logits stay float
                "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],
            },
        )
    return {"own": len(overrides), "reduced": reduced}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Within it the root logger, to which onnxruntime writes, says nothing below errors."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)


class _Samples:
    """Batches of inputs, one after the other, as onnxruntime's calibration asks for them."""

    def __init__(self, name: str, samples: list[NDArray[np.float32]]) -> None:
        self.name, self.samples = name, samples
        self.rewind()

    def rewind(self) -> None:
        self.left: Iterator[NDArray[np.float32]] = iter(self.samples)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        found = next(self.left, None)
        return None if found is None else {self.name: found}


def _measured(plain: Path, reader: _Samples) -> dict[str, tuple[float, float]]:
    """The smallest and the largest number of every tensor on the samples."""
    from onnxruntime.quantization import create_calibrator

    with tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(plain, augmented_model_path=str(Path(folder) / "augmented.onnx"))
        calibrator.collect_data(reader)
        found = calibrator.compute_data()
    ends = {name: data.range_value for name, data in found.items()}
    return {name: (float(low.min()), float(high.max())) for name, (low, high) in ends.items()}


def _overrides(
    model: Any,
    ranges: dict[str, tuple[float, float]],
    measured: dict[str, tuple[float, float]],
    kind: Any,
) -> dict[str, list[dict[str, Any]]]:
    """onnxruntime's settings of the tensors that go into layers: those that are not weights, by name."""
    found: dict[str, tuple[float, float]] = {}
    shared: set[str] = set()
    for node in model.graph.node:
        name = _layer(node, ranges) if node.op_type in WEIGHTED else None
        for place, tensor in enumerate(node.input):
            if name is None or place:
                shared.add(tensor)
                continue
            low, high = found.get(tensor, ranges[name])
            found[tensor] = min(low, ranges[name][0]), max(high, ranges[name][1])
    for tensor in shared & set(found) & set(measured):
        low, high = found[tensor]
        found[tensor] = min(low, measured[tensor][0]), max(high, measured[tensor][1])
    # 0 must be a level
    return {
        tensor: [{"quant_type": kind, "rmin": np.float32(min(low, 0.0)), "rmax": np.float32(max(high, 0.0))}]
        for tensor, (low, high) in found.items()
    }


def _layer(node: Any, ranges: dict[str, tuple[float, float]]) -> str | None:
    """The name of the layer whose weights a node has, if it has a range."""
    for tensor in node.input[1:2]:
        name = tensor.removesuffix(".weight").removeprefix("network.")
        if name in ranges:
            return name
    return None
