"""Prior boxes (default boxes, anchors) of SSD, as Caffe's PriorBox layer has them (Liu et al., ECCV 2016)."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor


def shapes_of_cell(smallest: float, largest: float, ratios: Sequence[float]) -> list[tuple[float, float]]:
    """(width, height) of a cell's priors in pixels, in Caffe's order.

    The square of side `smallest`; the square of side sqrt(smallest * largest); then for each aspect ratio r
    the box smallest * sqrt(r) wide and smallest / sqrt(r) high, and the same box turned ("flip").
    """
    middle = sqrt(smallest * largest)
    found = [(smallest, smallest), (middle, middle)]
    for ratio in ratios:
        across, down = smallest * sqrt(ratio), smallest / sqrt(ratio)
        found += [(across, down), (down, across)]
    return found


def priors_of_map(
    cells: tuple[int, int],
    image: tuple[int, int],
    smallest: float,
    largest: float,
    ratios: Sequence[float],
) -> Tensor:
    """The priors of one map, (cx, cy, w, h) in parts of the image.

    Shapes: float64 [rows * columns * (2 + 2 ratios), 4].

    Cell (i, j) has its centre at ((j + 1/2) W / columns, (i + 1/2) H / rows) (offset 0.5, the step is the
    image's side over the map's). Cells come row by row, the priors of a cell together; none is clipped.

    Args:
        cells: (rows, columns) of the map.
        image: (height, width) in pixels.
        smallest, largest: sizes in pixels, see `shapes_of_cell`.
        ratios: aspect ratios above 1.
    """
    (rows, columns), (height, width) = cells, image
    y = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    x = (torch.arange(columns, dtype=torch.float64) + 0.5) / columns
    sides = torch.tensor(shapes_of_cell(smallest, largest, ratios), dtype=torch.float64)
    sides = sides / torch.tensor([width, height], dtype=torch.float64)
    centres = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)
    grid = (rows, columns, len(sides), 2)
    return torch.cat([centres[:, :, None].expand(grid), sides.expand(grid)], dim=-1).reshape(-1, 4)


def prior_boxes(
    maps: Sequence[tuple[int, int]],
    image: tuple[int, int],
    scales: Sequence[float],
    ratios: Sequence[float],
    whole_pixels: bool,
) -> Tensor:
    """All priors of a detector, map after map: float32 [P, 4], (cx, cy, w, h) in parts of the image.

    SSD at 304x304 with maps 19, 19, 10, 5, 3, 1 and ratios 2 and 3 has 5,142.

    Args:
        maps: (rows, columns) of the map that each pair of heads sees.
        image: (height, width) in pixels.
        scales: percent of the image's shorter side, one more than maps: map i has the sizes scales[i] (the
            smallest) and scales[i + 1] (the largest).
        ratios: aspect ratios above 1.
        whole_pixels: cut sizes to whole pixels, as the Caffe layer does with those of its configuration
            (30.4 becomes 30 there); the papers' tables have the sizes as they are.
    """
    sizes = [scale / 100 * min(image) for scale in scales]
    if whole_pixels:
        # a float a hair below a whole number is that number
        sizes = [float(int(size + 1e-6)) for size in sizes]
    pairs = zip(maps, sizes[:-1], sizes[1:], strict=True)
    found = [priors_of_map(cells, image, low, high, ratios) for cells, low, high in pairs]
    return torch.cat(found).float()
