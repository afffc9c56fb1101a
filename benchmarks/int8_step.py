"""Time of a step of 8-bit training beside float's and beside its peers, and of integers at inference.

Run: python -m benchmarks.int8_step [batch=128]. ResNet-20 on random images of CIFAR's size. The peers of a
simulated 8-bit step: the float step; and the same step with the authors' trick of two forward convolutions
and Range BN composed of autograd's parts. On the CPU steps are timed by the processor, which other programs
do not change. The ONNX file of integers is timed beside float32's, one thread; int8 matrices in
`method.arithmetic=integer` beside a float convolution, which they need not beat.
"""

import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.figures import Figure, command, seconds
from common.models.resnet import CifarResNet
from common.quantization import layers, range_norm
from common.quantization.affine import quantise_gradient
from common.quantization.bifurcated import GradientQuantiser, Operation
from common.quantization.converter import plain_network, quantise_network
from common.quantization.qdq import own_ranges, write_qdq
from common.quantization.settings import Quantisation
from common.runs.int8 import speeds

ROUNDS = 9
SHAPE = (3, 32, 32)
EIGHT = Quantisation(
    bits=8, bits_weight=8, bits_bias=8, bits_norm=8, grad_bits=8, scale="code", num_chunks=16
)


def network(depth: int) -> nn.Module:
    """A ResNet for CIFAR-10."""
    return CifarResNet(shape=SHAPE, classes=10, depth=depth, block="basic", shortcut="A")


def two_products(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    operation: Operation,
    quantiser: GradientQuantiser,
    **told: object,
) -> Tensor:
    """The authors' trick: the gradients of two forward products, of which one is taken off again."""
    settings = operation.stride, operation.padding, operation.dilation, operation.groups  # type: ignore[attr-defined]
    first = functional.conv2d(inputs.detach(), weight, bias, *settings)
    second = functional.conv2d(inputs, weight.detach(), None, *settings)
    second = quantise_gradient(second, quantiser.bits, quantiser.stochastic)
    return first + second - second.detach()


def composed_norm(
    inputs: Tensor, weight: Tensor, bias: Tensor, *, scale: str, chunks: int, eps: float, scale_bits: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Range BN as the authors' code has it: of autograd's own parts."""
    rows = inputs.transpose(0, 1).contiguous()
    pieces = rows.view(inputs.shape[1] * chunks, -1)
    high = pieces.max(-1)[0].view(inputs.shape[1], chunks).mean(-1)
    low = pieces.min(-1)[0].view(inputs.shape[1], chunks).mean(-1)
    mean = rows.view(inputs.shape[1], -1).mean(-1)
    factor = range_norm.range_factor(pieces.shape[1], scale)  # type: ignore[arg-type]
    spread = (high - low) * factor + eps
    along = (1, -1, 1, 1)
    output = (inputs - mean.view(along)) * (1 / spread).view(along)
    return output * weight.view(along) + bias.view(along), mean.detach(), spread.detach()


def step(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Gradients of a fresh loss."""
    model.zero_grad(set_to_none=True)
    functional.cross_entropy(model(images), labels).backward()


def as_the_code(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    """`step` of a quantised network by the authors' two tricks."""
    ours = layers.bifurcated, range_norm.range_norm
    layers.bifurcated = _only_convolutions(ours[0])
    range_norm.range_norm = composed_norm  # type: ignore[assignment]
    try:
        step(model, images, labels)
    finally:
        layers.bifurcated, range_norm.range_norm = ours


def _only_convolutions(ours: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The trick for convolutions; linear layers stay as they are."""

    def product(inputs: Tensor, *parts: object, **told: object) -> Tensor:
        if inputs.ndim == 2:
            return ours(inputs, *parts, **told)
        return two_products(inputs, *parts, **told)  # type: ignore[arg-type]

    return product


def ratio(above: list[float], below: list[float]) -> float:
    """The median over rounds of how many times as long one takes as another."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def training(batch: int, depth: int, rounds: int) -> dict[str, Figure]:
    """The step of 8 bits beside its peers."""
    cuda = torch.cuda.is_available()
    device = "cuda" if cuda else "cpu"
    images = torch.randn(batch, *SHAPE, device=device)
    labels = torch.randint(0, 10, (batch,), device=device)
    plain, ours = network(depth).to(device), quantise_network(network(depth), EIGHT).to(device)
    found = seconds(
        {
            "float": lambda: step(plain, images, labels),
            "8 bits": lambda: step(ours, images, labels),
            "as the code": lambda: as_the_code(ours, images, labels),
        },
        cuda,
        rounds,
    )
    what = f"int8_training: a simulated 8-bit step of ResNet-{depth}, batch {batch}"
    peer = "two forward convolutions, and Range BN of autograd's parts"
    return {
        f"step_{device}": Figure(
            ratio(found["8 bits"], found["float"]), "x its time", what, "the float step", at_most=2.5
        ),
        f"trick_{device}": Figure(
            ratio(found["as the code"], found["8 bits"]), "x as fast", what, peer, at_least=1.3
        ),
    }


def inference(depth: int) -> dict[str, Figure]:
    """ONNX of integers beside float32, batches of 1 and 64, one thread."""
    warnings.simplefilter("ignore")
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    model = quantise_network(network(depth), EIGHT)
    model(torch.randn(32, *SHAPE))
    with tempfile.TemporaryDirectory() as folder:
        plain, int8 = (Path(folder) / name for name in ("plain.onnx", "int8.onnx"))
        torch.onnx.export(
            plain_network(model.eval()).eval(),
            (torch.zeros(2, *SHAPE),),
            plain,
            dynamo=True,
            input_names=["images"],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            verbose=False,
        )
        write_qdq(plain, int8, own_ranges(model), [torch.randn(32, *SHAPE).numpy()])
        found = speeds(plain, int8, SHAPE)
    return {
        f"onnx_{batch}": Figure(
            float32 / integer,
            "x as fast",
            f"int8_training: ResNet-{depth} as ONNX of integers, batch {batch}, one thread",
            "float32 ONNX, onnxruntime",
            at_least=1.4,
        )
        for batch, (float32, integer) in found.items()
    }


def matrices(channels: int, batch: int, rounds: int) -> dict[str, Figure]:
    """A layer's forward product on int8 matrices beside the float convolution; no goal."""
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    images = torch.rand(batch, channels, 16, 16)
    settings = Quantisation(bits=8, bits_weight=8, arithmetic="integer")
    integer = quantise_network(nn.Conv2d(channels, channels, 3, padding=1, bias=False), settings)
    with torch.no_grad():
        found = seconds({"float": partial(layer, images), "integer": partial(integer, images)}, False, rounds)
    what = f"int8_training: a 3x3 convolution of {channels} channels on int8 matrices"
    value = ratio(found["float"], found["integer"])
    return {f"matrices_{channels}": Figure(value, "x as fast", what, "torch's float convolution")}


def main(tiny: bool = False, batch: int = 128) -> dict[str, Figure]:
    """Measure steps, files and matrices."""
    batch, rounds, depth = (16, 1, 8) if tiny else (batch, ROUNDS, 20)
    torch.manual_seed(0)
    found = training(batch, depth, rounds) | inference(depth)
    for channels in (16, 64):
        found |= matrices(channels, 2 if tiny else 32, rounds)
    return found


if __name__ == "__main__":
    command(main)
