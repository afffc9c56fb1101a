"""A picture of what a layer's pruned channels see, and of what the selected ones see (figures 2 and S5)."""

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# maps of each kind at most, side by side
SHOWN = 8


@torch.no_grad()
def input_maps(network: nn.Module, layer: str, image: Tensor) -> Tensor | None:
    """What a layer gets of one image: its input maps [c, h, w]; None where they have no width and height.

    Args:
        network: in evaluation mode.
        layer: its name; it runs once.
        image: as the network takes it, [channels, height, width].
    """
    seen: list[Tensor] = []
    hook = network.get_submodule(layer).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0]))
    try:
        network(image[None])
    finally:
        hook.remove()
    return seen[0].detach().clone() if seen[0].ndim == 3 and seen[0][0].numel() > 1 else None


def draw(image: Tensor, maps: Tensor, kept: Sequence[int], layer: str) -> str:
    """SVG: the image, and up to `SHOWN` maps of pruned and as many of selected channels.

    Of each kind those come first that are largest in the mean; each map has its own scale of grey.

    Args:
        image: [channels, h, w], of any scale.
        maps: [c, h, w], the layer's inputs.
        kept: the selected channels.
        layer: for the title.
    """
    import matplotlib
    from matplotlib.figure import Figure

    selected = sorted(kept)
    pruned = [channel for channel in range(len(maps)) if channel not in set(selected)]
    rows = [("pruned", _strongest(maps, pruned)), ("selected", _strongest(maps, selected))]
    columns = 1 + max(1, *(len(channels) for _, channels in rows))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 8}):
        canvas = Figure(figsize=(1.0 * columns, 2.6), facecolor="white")
        grid = canvas.subplots(2, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_axis_off()
        grid[0, 0].imshow(_picture(image), cmap="gray")
        grid[0, 0].set_title("input")
        for line, (kind, channels) in zip(grid, rows, strict=True):
            for axes, channel in zip(line[1:], channels, strict=False):
                axes.imshow(maps[channel].cpu().numpy(), cmap="gray")
                axes.set_title(f"{kind} {channel}")
        canvas.suptitle(
            f"{layer}: {len(pruned)} of {len(maps)} input channels pruned", fontsize=9, weight="bold"
        )
        file = io.StringIO()
        canvas.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    return file.getvalue()


def _strongest(maps: Tensor, channels: list[int]) -> list[int]:
    means = maps.flatten(1).abs().mean(dim=1)
    return sorted(channels, key=lambda channel: (-float(means[channel]), channel))[:SHOWN]


def _picture(image: Tensor) -> np.ndarray[Any, Any]:
    """An image between 0 and 1, [h, w, 3] or [h, w]."""
    low, high = image.amin(), image.amax()
    levels = ((image - low) / (high - low).clamp_min(torch.finfo(image.dtype).tiny)).cpu().numpy()
    return np.moveaxis(levels, 0, -1) if len(levels) == 3 else levels[0]
