"""SSD's augmentation of photographs with boxes (Liu et al., ECCV 2016, section 2.2, and its Caffe code).

In order: colours are distorted, the image is put on a larger canvas, a window is cut out of that, and is
stretched with a random interpolation. Windows are found in the coordinates of the image before any pixel is
touched, and may reach outside it: pixels are made only once, at the size that is asked for.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

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
LEVELS = 256


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


def largest_overlaps(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The largest IoU of each window with a box, the very numbers of `boxes.iou_matrix`.

    It is written in NumPy as are all few numbers of one image here: torch takes many times as long to begin.

    Shapes: windows int64 [n, 4], boxes float32 [k, 4 or more], k at least 1 -> float32 [n].
    """
    corners = windows.astype(np.float32)[:, None]
    low = np.maximum(corners[..., :2], boxes[:, :2])
    sides_of_both = np.minimum(corners[..., 2:], boxes[:, 2:4])
    sides_of_both -= low
    np.maximum(sides_of_both, 0, out=sides_of_both)
    shared = sides_of_both[..., 0] * sides_of_both[..., 1]
    union = _areas(corners) + _areas(boxes) - shared
    overlaps = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    found: np.ndarray = overlaps.max(axis=1)
    return found


def _areas(boxes: np.ndarray) -> np.ndarray:
    """Of corners, 0 for boxes turned inside out: [..., 4 or more] -> [...]."""
    across, down = boxes[..., 2] - boxes[..., 0], boxes[..., 3] - boxes[..., 1]
    area: np.ndarray = np.maximum(across, 0) * np.maximum(down, 0)
    return area


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

    In NumPy, whole rows and then whole pixels at once, it takes a third of the time.
    """
    pixels = image.permute(1, 2, 0).numpy()
    # float32, as torch's: place * (old / new), rounded down
    rows, columns = (
        (np.arange(new, dtype=np.float32) * np.float32(old / new)).astype(np.int64).clip(max=old - 1)
        for old, new in zip(pixels.shape[:2], size, strict=True)
    )
    chosen = np.take(pixels, rows, axis=0)
    as_units = chosen.view(f"V{chosen.shape[2]}")[..., 0]
    found = np.take(as_units, columns, axis=1).view(np.uint8).reshape(*size, chosen.shape[2])
    return torch.from_numpy(found).permute(2, 0, 1)


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
    if saturation == 1 and not hue:
        return _mapped(_mapped(image, before, delta), after, 0.0)
    planes = _turn(_map(_planes(image), before, delta), saturation, hue)
    return _packed_levels(_map(planes, after, 0.0))


def turned(image: Tensor, saturation: float, hue: float) -> Tensor:
    """Saturation multiplied, and the hue turned by a part of its circle: uint8 [3, h, w] -> [3, h, w].

    In the hexcone form, with v the largest channel and c = v - smallest: v stays, the spread becomes
    c' = min(c saturation, v), and a channel is v - c' + c' times the brightness of the turned hue h in it,
    |h - 3| - 1 for red, 2 - |h - 2| for green, 2 - |h - 4| for blue, within 0 to 1 and with h in 0..6.
    """
    return _packed_levels(_turn(_planes(image), saturation, hue))


def _planes(image: Tensor) -> Tensor:
    """The levels as floats, each channel by itself: uint8 [3, h, w] -> float32 [3, h, w]."""
    return image.contiguous().float()


def _packed_levels(planes: Tensor) -> Tensor:
    """uint8 [3, h, w] with the channels of a pixel side by side, as decoded images have them."""
    found = torch.empty(*planes.shape[1:], len(planes), dtype=torch.uint8).permute(2, 0, 1)
    # one by one, as all at once take twice the time
    for channel, plane in zip(found, planes, strict=True):
        channel.copy_(plane)
    return found


def _turn(planes: Tensor, saturation: float, hue: float) -> Tensor:
    """`turned` of whole levels float32 [3, h, w], which are written over."""
    red, green, blue = planes.unbind(0)
    largest = torch.maximum(red, green)
    torch.maximum(largest, blue, out=largest)
    spread = torch.minimum(red, green)
    torch.sub(largest, torch.minimum(spread, blue, out=spread), out=spread)
    wanted = torch.minimum(spread * saturation, largest)
    if not hue:
        # grey has no spread, and stays
        return planes.sub_(largest).mul_(wanted.div_(spread.clamp_min_(1))).add_(largest).round_()
    angle = _hue(planes, largest, spread).add_(6 * hue)
    angle.sub_((angle / 6).floor_(), alpha=6)
    base = largest.sub_(wanted)
    for plane, middle, inward in zip(planes, (3, 2, 4), (False, True, True), strict=True):
        part = (angle - middle).abs_()
        part = part.neg_().add_(2) if inward else part.sub_(1)
        torch.addcmul(base, part.clamp_(0, 1), wanted, out=plane)
    return planes.round_()


def _hue(planes: Tensor, largest: Tensor, spread: Tensor) -> Tensor:
    """The hue of whole levels in sixths of the circle, -1 to 5; of grey 0: [3, h, w] -> [h, w]."""
    red, green, blue = planes.unbind(0)
    # 1 where a channel is the largest, else 0: sums weighted so, and differences of whole levels cut at 1,
    # take a fraction of the time that torch.where and comparisons take
    is_red = (largest - red).clamp_max_(1).neg_().add_(1)
    is_green = (largest - green).clamp_max_(1).neg_().add_(1).mul_(1 - is_red)
    hue = (green - blue).mul_(is_red)
    hue += (blue - red).add_(spread, alpha=2).mul_(is_green)
    hue += (red - green).add_(spread, alpha=4).mul_(1 - is_red - is_green)
    return hue.div_(spread.clamp_min(1))


def _drawn(between: tuple[float, float], unchanged: float, generator: np.random.Generator) -> float:
    return float(generator.uniform(*between)) if generator.random() < DISTORTED else unchanged


def _mapped(image: Tensor, factor: float, delta: float) -> Tensor:
    """factor * (level + delta), rounded and within 0 to 255, for each level of an image: uint8."""
    return image if factor == 1 and delta == 0 else _map(image.float(), factor, delta).byte()


def _map(levels: Tensor, factor: float, delta: float) -> Tensor:
    """The same of whole levels as floats, which are written over."""
    if factor == 1 and delta == 0:
        return levels
    return levels.add_(delta).mul_(factor).round_().clamp_(0, LEVELS - 1)


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
