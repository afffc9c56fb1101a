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

from common.data.detection.boxes import iou_matrix
from common.data.shared.decode import Box

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


def sampled_window(boxes: Tensor, frame: Box, generator: np.random.Generator) -> Box:
    """A window of a canvas as SSD's batch sampler draws it.

    One of seven kinds: the whole canvas; a window that overlaps some object by an IoU of at least 0.1, 0.3,
    0.5, 0.7 or 0.9; any window. Each has 50 tries, and those that find one are equally likely. Without
    objects it is the whole canvas.

    Shapes: boxes [k, 6], without padding, in the coordinates of `frame`.
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
            overlaps = iou_matrix(torch.from_numpy(found).float(), boxes).amax(1)
            found = found[(overlaps >= least).numpy()]
        if len(found):
            return Box(*map(int, found[0]))
    return frame


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
    found: Tensor = functional.interpolate(image.unsqueeze(0), size, mode=mode, antialias=whole_area)
    return found.squeeze(0)


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
    image = _mapped(image, contrast if first else 1.0, delta)
    if saturation != 1 or hue:
        image = turned(image, saturation, hue)
    return image if first else _mapped(image, contrast, 0.0)


def turned(image: Tensor, saturation: float, hue: float) -> Tensor:
    """Saturation multiplied, and the hue turned by a part of its circle: uint8 [3, h, w] -> [3, h, w].

    In the hexcone form: the largest channel v stays, the spread c = v - smallest becomes min(c saturation,
    v), and a channel of offset n = 5, 3, 1 is v - c max(0, min(k, 4 - k, 1)) with k = n + 6 hue modulo 6.
    """
    red, green, blue = image.contiguous().float().unbind(0)
    largest = torch.maximum(torch.maximum(red, green), blue)
    spread = largest - torch.minimum(torch.minimum(red, green), blue)
    # in sixths of the circle; grey has none, and its spread of 0 stays 0. Sums weighted by 0 and 1 take a
    # fraction of the time that torch.where takes, and k - 6 floor(k / 6) one of that of torch.remainder
    is_red = (largest == red).float()
    is_green = (largest == green).float().mul_(1 - is_red)
    sixth = (green - blue).mul_(is_red)
    sixth += (blue - red).add_(spread, alpha=2).mul_(is_green)
    sixth += (red - green).add_(spread, alpha=4).mul_(1 - is_red - is_green)
    sixth.div_(spread.clamp_min(1)).add_(6 * hue)
    spread = torch.minimum(spread * saturation, largest)
    # with the channels of a pixel side by side, as decoded images have them
    found = torch.empty(*image.shape[1:], 3, dtype=torch.uint8).permute(2, 0, 1)
    for channel, offset in enumerate((5, 3, 1)):
        k = sixth + offset
        k.sub_((k / 6).floor_(), alpha=6)
        part = torch.minimum(k, 4 - k).clamp_(0, 1)
        found[channel] = (largest - spread * part).round_()
    return found


def _drawn(between: tuple[float, float], unchanged: float, generator: np.random.Generator) -> float:
    return float(generator.uniform(*between)) if generator.random() < DISTORTED else unchanged


def _mapped(image: Tensor, factor: float, delta: float) -> Tensor:
    """factor * (level + delta), rounded and within 0 to 255, for each level of an image: uint8."""
    if factor == 1 and delta == 0:
        return image
    return image.float().add_(delta).mul_(factor).round_().clamp_(0, LEVELS - 1).byte()


def pasted(image: Tensor | None, place: Box, size: tuple[int, int], fill: tuple[int, ...]) -> Tensor:
    """An image on a ground of one colour: uint8 [3, *size]."""
    if image is not None and sides(place) == size:
        return image
    ground = torch.tensor(fill, dtype=torch.uint8).expand(*size, 3).contiguous().permute(2, 0, 1)
    if image is not None:
        ground[:, place.top : place.bottom, place.left : place.right] = image
    return ground
