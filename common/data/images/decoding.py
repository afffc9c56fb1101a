"""Pictures from files, as `predict.py` and the data sets see them: `decode_picture` is the one decoder.

Whatever a file holds comes out as uint8 [H, W, 3] in RGB:

- turned upright by its orientation mark (EXIF, or XMP where there is none);
- one channel is repeated; of 16 bits (or more, or floats) it is scaled to 8, white to white;
- what is transparent is laid on white paper, as browsers show it;
- palettes are looked up; CMYK is converted by Pillow's formula, without colour profiles.

The data sets of folders decode by the same rules in `common.data.shared.decode`, which also cuts and resizes
on the way; there sets whose boxes or masks count the stored pixels leave orientation marks alone.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from common.data.shared.decode import (
    OWN_FORMATS,
    colour_jpeg_pixels,
    colour_jpeg_size,
    names_of,
    orientation_of,
    reading,
    to_rgb,
)

# uint8 [H, W, 3], RGB
Picture = NDArray[np.uint8]

FORMATS = OWN_FORMATS
# what files of these formats are called
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib",
    ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm",
)  # fmt: skip
# of these, the pictures of one file follow one another in time, or as pages
ANIMATED = ("PNG", "WEBP", "GIF", "TIFF")
NAMES = names_of(FORMATS)


def decode_picture(source: str | Path | bytes) -> Picture:
    """The picture of a file, the first one where it holds several.

    Args:
        source: a path, or what the file holds.

    Returns:
        uint8 [H, W, 3], RGB, upright; see the module.

    Raises:
        DamagedError: truncated, or of none of `FORMATS`; one line.
        OSError: the file is missing or cannot be read.
    """
    content = source if isinstance(source, bytes) else Path(source).read_bytes()
    with reading(NAMES):
        if colour_jpeg_size(content) and orientation_of(content) == 1:
            pixels = colour_jpeg_pixels(content)
            if pixels is not None:
                return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return _upright(image)


def frame_count(path: Path) -> int:
    """How many pictures an animation (GIF, WebP, PNG) or a TIFF file of several pages holds, from its header.

    Raises:
        DamagedError, OSError: as `decode_picture`.
    """
    with reading(NAMES), Image.open(path, formats=FORMATS) as image:
        return int(getattr(image, "n_frames", 1)) if image.format in ANIMATED else 1


def decode_frames(path: Path) -> Iterator[Picture]:
    """The pictures of an animation or of a TIFF file of several pages, in their order.

    Raises:
        DamagedError, OSError: as `decode_picture`, after the pictures before it.
    """
    with reading(NAMES), Image.open(path, formats=FORMATS) as image:
        for frame in ImageSequence.Iterator(image):
            yield _upright(frame)


def _upright(image: Image.Image) -> Picture:
    image.load()
    try:
        turned = ImageOps.exif_transpose(image)
    except Exception:
        # a mark that cannot be read turns nothing
        turned = image
    # a copy: what Pillow shows of its own memory cannot be written to, of which torch warns
    return np.array(to_rgb(turned, lambda what: None))
