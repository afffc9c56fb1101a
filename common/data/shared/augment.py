"""Random crop and flip of a whole batch of images, on the device where it lives."""

import torch
from torch import Tensor
from torch.nn import functional

PADDING = 4


def crop_flip(images: Tensor) -> Tensor:
    """Pad by 4 zeros, cut a random window of the old size, mirror half of the images.

    The standard CIFAR augmentation, drawn anew for each image from torch's global generator of the
    images' device. Shapes: [b, C, H, W] -> [b, C, H, W], any dtype (uint8 is the fastest).
    """
    count, device = len(images), images.device
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count), device=device)
    mirror = torch.randint(0, 2, (count,), device=device)
    return crop_flip_at(images, top, left, mirror)


def crop_flip_at(images: Tensor, top: Tensor, left: Tensor, mirror: Tensor) -> Tensor:
    """Image i becomes its padded self at rows top[i].., columns left[i].., mirrored where mirror[i] is 1.

    Each row of a window is one contiguous run of the padded batch, so all windows are one
    `index_select` over the (overlapping) runs of length W: a copy of b*C*H short runs, not of
    b*C*H*W single elements.

    Shapes: images [b, C, H, W]; top, left int64 [b] in 0..8; mirror int64 [b] in {0, 1}.
    """
    count, channels, height, width = images.shape
    padded = functional.pad(images, (PADDING,) * 4)
    rows, columns = padded.shape[-2:]
    device = images.device

    corner = (top * columns + left).view(count, 1, 1)
    plane = torch.arange(count * channels, device=device).view(count, channels, 1) * (rows * columns)
    line = torch.arange(height, device=device) * columns
    starts = (plane + corner + line).flatten()

    runs = padded.as_strided((padded.numel() - width + 1, width), (1, 1))
    windows = runs.index_select(0, starts).view_as(images)
    both = torch.cat([windows, windows.flip(-1)])
    return both.index_select(0, torch.arange(count, device=device) + count * mirror)
