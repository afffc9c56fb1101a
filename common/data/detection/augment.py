"""SSD's augmentation of photographs with boxes (Liu et al., ECCV 2016, section 2.2, and its Caffe code).

In order: colours are distorted, the image is put on a larger canvas, a window is cut out of that, and is
stretched with a random interpolation. Windows are found in the coordinates of the image before any pixel is
touched, and may reach outside it: pixels are made only once, at the size that is asked for.

This module is imported where images are augmented so, as it imports Numba.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from common.data.detection.augment_loops import distort, largest_overlaps, take_nearest
from common.data.detection.boxes import LABEL
from common.data.shared.decode import Box, packed

# of a window, as parts of the canvas' sides, its width over its height, and how often each kind is tried
SCALE, ASPECT, TRIES = (0.3, 1.0), (0.5, 2.0), 50
# the kinds of windows: the least IoU with some object; None asks for none, and `WHOLE` is the whole canvas
WHOLE = -1.0
KINDS = (WHOLE, 0.1, 0.3, 0.5, 0.7, 0.9, None)
# how many times larger the canvas is, and how often there is one
EXPANSION, EXPANDED = (1.0, 4.0), 0.5
# how often each distortion is made, and its extent: grey levels, factors, a part of the circle of hues
DISTORTED, BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.5, 32.0, (0.5, 1.5), (0.5, 1.5), 18 / 180
# (mode of torch, whether a pixel stands for the whole area that it covers): nearest, linear, area, cubic, and
# in the place of Lanczos, which torch has not, cubic over the whole area
INTERPOLATIONS = (
    ("nearest", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
)


def sides(window: Box) -> tuple[int, int]:
    """(height, width)."""
    return window.bottom - window.top, window.right - window.left


def canvas(height: int, width: int, generator: np.random.Generator) -> Box:
    """The canvas that an image of this size is put on, in the image's pixels: half of the time itself.

    Else its sides are r times the image's, r uniform in 1 to 4, and the image lies anywhere on it.
    """
    if generator.random() >= EXPANDED:
        return Box(0, 0, width, height)
    ratio = generator.uniform(*EXPANSION)
    across, down = round(ratio * width), round(ratio * height)
    left, top = -int(generator.integers(across - width + 1)), -int(generator.integers(down - height + 1))
    return Box(left, top, left + across, top + down)


def sampled_window(boxes: np.ndarray, frame: Box, generator: np.random.Generator) -> Box:
    """A window of a canvas as SSD's batch sampler draws it.

    One of seven kinds: the whole canvas; a window that overlaps some object by an IoU of at least 0.1, 0.3,
    0.5, 0.7 or 0.9; any window. Each has 50 tries, and those that find one are equally likely. Without
    objects it is the whole canvas.

    Shapes: boxes float32 [k, 6], without padding, in the coordinates of `frame`.
    """
    if not len(boxes):
        return frame
    # the first that succeeds of a random order is each of those that would, equally often
    for kind in generator.permutation(len(KINDS)):
        least = KINDS[kind]
        if least == WHOLE:
            return frame
        found = drawn_windows(frame, TRIES if least else 1, generator)
        if least is not None:
            found = found[largest_overlaps(found, boxes) >= np.float32(least)]
        if len(found):
            return Box(*map(int, found[0]))
    return frame


def boxes_seen(boxes: np.ndarray, window: Box, size: tuple[int, int], mirror: bool) -> np.ndarray:
    """The boxes in a window of their image that is stretched, and mirrored where asked, in its pixels.

    Those whose centre lies inside the window, clipped to it; what `boxes.crop_boxes`, `resize_boxes` and
    `flip_boxes` give one after the other, without padding.

    Shapes: float32 [k, 6] -> [k', 6], k' <= k, in the same order.
    """
    low, high = (np.array(corner, np.float32) for corner in (window[:2], window[2:]))
    centre = (boxes[:, :2] + boxes[:, 2:4]) / 2
    seen = boxes[((centre >= low) & (centre < high)).all(axis=1)]
    for corner in (seen[:, :2], seen[:, 2:4]):
        np.minimum(np.maximum(corner, low, out=corner), high, out=corner)
        corner -= low
    down, across = (new / old for new, old in zip(size, sides(window), strict=True))
    seen[:, :LABEL] *= np.array((across, down, across, down), np.float32)
    if mirror:
        seen[:, [0, 2]] = size[1] - seen[:, [2, 0]]
    return seen


def drawn_windows(frame: Box, count: int, generator: np.random.Generator) -> np.ndarray:
    """Random windows of a canvas in whole pixels: int64 [count, 4], rows (left, top, right, bottom).

    Sides are s √a and s / √a of the canvas', s uniform in 0.3 to 1, a uniform in 1/2 to 2 as far as that
    fits; the place is uniform.
    """
    height, width = sides(frame)
    scale = generator.uniform(*SCALE, count)
    root = np.sqrt(generator.uniform(np.maximum(ASPECT[0], scale**2), np.minimum(ASPECT[1], scale**-2)))
    across = np.clip(np.rint(scale * root * width), 1, width).astype(np.int64)
    down = np.clip(np.rint(scale / root * height), 1, height).astype(np.int64)
    left = frame.left + generator.integers(0, width - across + 1)
    top = frame.top + generator.integers(0, height - down + 1)
    return np.stack([left, top, left + across, top + down], axis=1)


class Placed(NamedTuple):
    """What of an image a window shows, and where that lies in the stretched window; both may be empty."""

    seen: Box
    place: Box


def placed(window: Box, height: int, width: int, size: tuple[int, int]) -> Placed:
    """Where the image of this size lies in a window that is stretched to `size`, in whole pixels."""
    seen = Box(
        *(
            min(max(edge, 0), limit)
            for edge, limit in zip(window, (width, height, width, height), strict=True)
        )
    )
    down, across = (new / old for new, old in zip(size, sides(window), strict=True))
    left, right = (round((edge - window.left) * across) for edge in (seen.left, seen.right))
    top, bottom = (round((edge - window.top) * down) for edge in (seen.top, seen.bottom))
    return Placed(seen, Box(left, top, right, bottom))


def stretched(image: Tensor, size: tuple[int, int], generator: np.random.Generator) -> Tensor:
    """uint8 [3, h, w] brought to (height, width) `size` by one of five interpolations: [3, *size]."""
    mode, whole_area = INTERPOLATIONS[generator.integers(len(INTERPOLATIONS))]
    if image.shape[1:] == size:
        return image
    if mode == "nearest":
        return nearest(image, size)
    found: Tensor = functional.interpolate(packed(image), size, mode=mode, antialias=whole_area)
    return found.squeeze(0)


def nearest(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, h, w] to [3, *size], from each place the pixel that covers it, as torch has it.

    That is floor(place * (old / new)) in each direction, in float32.
    """
    found = torch.empty(*size, len(image), dtype=torch.uint8)
    take_nearest(_pixels(image), found.numpy())
    return found.permute(2, 0, 1)


def distorted(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Brightness, contrast, saturation and hue changed, each half of the time: uint8 [3, h, w] -> [3, h, w].

    Brightness adds up to 32 grey levels, contrast multiplies all of them and saturation those of the HSV form
    by 0.5 to 1.5, the hue turns by up to 36 degrees. Contrast comes before saturation and hue or after them.
    """
    first = generator.random() < 0.5
    delta = _drawn((-BRIGHTNESS, BRIGHTNESS), 0.0, generator)
    contrast = _drawn(CONTRAST, 1.0, generator)
    saturation = _drawn(SATURATION, 1.0, generator)
    hue = _drawn((-HUE, HUE), 0.0, generator)
    before, after = (contrast, 1.0) if first else (1.0, contrast)
    return recoloured(image, delta=delta, before=before, saturation=saturation, hue=hue, after=after)


def recoloured(
    image: Tensor,
    *,
    delta: float = 0.0,
    before: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
    after: float = 1.0,
) -> Tensor:
    """Levels changed, saturation multiplied, the hue turned, and levels changed again.

    Levels first become `before` (level + delta) and in the end `after` level, each time rounded (to the even
    one of two that are as near) and within 0 to 255. In between, in the hexcone form, with v the largest
    channel and c = v - smallest: v stays, the spread becomes c' = min(c saturation, v), and a channel is
    v - c' + c' times the brightness of the turned hue h in it, |h - 3| - 1 for red, 2 - |h - 2| for green,
    2 - |h - 4| for blue, within 0 to 1 and with h in 0..6, rounded too.

    Args:
        image: uint8 [3, h, w].
        hue: the part of its circle that it turns by.

    Returns:
        uint8 [3, h, w]: the image itself where nothing is to be changed; else one with the channels of a
        pixel side by side, as decoded images have them.
    """
    if (delta, before, saturation, hue, after) == (0, 1, 1, 0, 1):
        return image
    channels, height, width = image.shape
    found = torch.empty(height, width, channels, dtype=torch.uint8)
    rows = (height, width * channels)
    numbers = map(np.float32, (delta, before, saturation, 6 * hue, after))
    distort(_pixels(image).reshape(rows), found.numpy().reshape(rows), *numbers)
    return found.permute(2, 0, 1)


def _pixels(image: Tensor) -> np.ndarray:
    """[3, h, w] -> [h, w, 3], all numbers side by side; a copy only where they were not."""
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def _drawn(between: tuple[float, float], unchanged: float, generator: np.random.Generator) -> float:
    return float(generator.uniform(*between)) if generator.random() < DISTORTED else unchanged


def pasted(image: Tensor | None, place: Box, size: tuple[int, int], fill: tuple[int, ...]) -> Tensor:
    """An image on a ground of one colour: uint8 [3, *size]."""
    if image is not None and sides(place) == size:
        return image
    ground = np.empty((size[0], size[1] * len(fill)), np.uint8)
    # row by row, as pixels of three bytes are written slowly
    ground[:] = np.tile(np.array(fill, np.uint8), size[1])
    result = torch.from_numpy(ground).view(*size, len(fill)).permute(2, 0, 1)
    if image is not None:
        result[:, place.top : place.bottom, place.left : place.right] = image
    return result
