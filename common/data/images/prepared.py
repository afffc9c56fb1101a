"""A decoded picture as the input of a network: `Preparation` in torch. `export.py` writes it as ONNX."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from common.base.preparation import GREY, PICTURE_WHITE, Preparation
from common.data.shared.decode import centre_window


class Prepared(NamedTuple):
    """An input float32 [C, h, w], as stored, and the (height, width) of it that the picture fills."""

    stored: Tensor
    filled: tuple[int, int]


def prepared(picture: Tensor, preparation: Preparation) -> Prepared:
    """See `Preparation`.

    Args:
        picture: uint8 [H, W, 3] of any size, RGB.
        preparation: how.
    """
    height, width = picture.shape[:2]
    filled = preparation.size
    if preparation.frame == "centre":
        box = centre_window(preparation.size, preparation.resize)(height, width)
        picture = picture[box.top : box.bottom, box.left : box.right]
    elif preparation.frame == "fit":
        filled = fitted_size((height, width), preparation.size)
    pixels = resized(picture.permute(2, 0, 1).float(), filled)
    if preparation.channels == 1:
        pixels = (pixels * torch.tensor(GREY, device=pixels.device).view(3, 1, 1)).sum(0, keepdim=True)
    if preparation.white != PICTURE_WHITE:
        pixels = pixels * (preparation.white / PICTURE_WHITE)
    if filled == preparation.size:
        return Prepared(pixels, filled)
    canvas = torch.tensor(preparation.fill, device=pixels.device).view(-1, 1, 1).repeat(1, *preparation.size)
    canvas[:, : filled[0], : filled[1]] = pixels
    return Prepared(canvas, filled)


def fitted_size(whole: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """The (height, width) at which an image of `whole` fits into `size`, at least one pixel each."""
    scale = min(size[0] / whole[0], size[1] / whole[1])
    height, width = (max(1, min(want, round(have * scale))) for have, want in zip(whole, size, strict=True))
    return height, width


def resized(planes: Tensor, size: tuple[int, int]) -> Tensor:
    """float32 [C, h, w] -> [C, *size], bilinear and antialiased; itself where the size is right."""
    if tuple(planes.shape[1:]) == size:
        return planes
    stretched: Tensor = functional.interpolate(
        planes[None], size, mode="bilinear", antialias=True, align_corners=False
    )
    return stretched[0]
