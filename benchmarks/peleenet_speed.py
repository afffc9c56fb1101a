"""PeleeNet as it is served against pytorchcv's: a forward pass at 224x224, in turn, on the threads of torch.

    python -m benchmarks.peleenet_speed

The peer is `pytorchcv.models.peleenet` with the same weights (`pip install --no-deps pytorchcv`: as a plain
dependency it brings torchvision). Ours is timed as it is trained, with its batch normalisations folded, and
folded with channels last. Outputs must be equal first. Seconds are medians of CPU time in turns, which other
work stretches least. Exits with 1 if the folded network takes longer than the peer.
"""

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from pytorchcv.models.peleenet import peleenet
from torch import nn

from benchmarks.figures import Figure, command, seconds
from common.models.folding import folded
from common.models.peleenet import PeleeNet

CONF = Path(__file__).parents[1] / "conf" / "model" / "peleenet.yaml"
SHAPE, TURNS, AT_MOST = (3, 224, 224), 15, 1.0
# the halves of the stem that are joined have another order there
SWAPPED = "stem.last.0.weight"


def ours() -> PeleeNet:
    """The paper's network with new weights."""
    settings: dict[str, Any] = yaml.safe_load(CONF.read_text())
    del settings["_target_"]
    return PeleeNet(shape=SHAPE, classes=1000, **settings).eval()


def theirs(network: PeleeNet) -> nn.Module:
    """pytorchcv's with the same weights."""
    peer: nn.Module = peleenet().eval()
    weights = network.state_dict()
    half = weights[SWAPPED].shape[1] // 2
    weights[SWAPPED] = torch.cat([weights[SWAPPED][:, half:], weights[SWAPPED][:, :half]], dim=1)
    peer.load_state_dict(dict(zip(peer.state_dict(), weights.values(), strict=True)))
    return peer


def main(tiny: bool = False) -> dict[str, Figure]:
    """Measure batches of 1 and of 8."""
    torch.manual_seed(0)
    network = ours()
    peer, served = theirs(network), folded(network, SHAPE)
    last = folded(network, SHAPE).to(memory_format=torch.channels_last)
    networks = {"trained": network, "folded": served, "folded, channels last": last}
    figures = {}
    for batch in (1,) if tiny else (1, 8):
        images = torch.randn(batch, *SHAPE)
        with torch.inference_mode():
            wanted = peer(images)
            for form in networks.values():
                torch.testing.assert_close(
                    form(images), wanted, rtol=0, atol=1e-5 * float(wanted.abs().max())
                )
        layouts = {name: torch.channels_last for name in networks if name.endswith("last")}
        calls = {
            name: partial(form, images.contiguous(memory_format=layouts.get(name, torch.contiguous_format)))
            for name, form in [*networks.items(), ("peer", peer)]
        }
        with torch.inference_mode():
            times = seconds(calls, False, 1 if tiny else TURNS, discarded=0)
        for name in networks:
            ratio = statistics.median(times[name]) / statistics.median(times["peer"])
            goal = AT_MOST if name == "folded" else None
            what = f"pelee: PeleeNet {name}, {batch} image{'s' * (batch > 1)} of 224x224"
            figures[f"{name} {batch}"] = Figure(
                ratio, "x its time", what, "PeleeNet of pytorchcv", at_most=goal
            )
    return figures


if __name__ == "__main__":
    command(main)
