"""Picture files to uint8 tensors: decoded by simplejpeg or Pillow, cropped and resized in one pass.

simplejpeg calls the decoder that Pillow calls too (libjpeg-turbo), gives the same pixels, and takes little
more than half of Pillow's time; Pillow reads all that is no JPEG in colour, or no faultless one.

Resizing is bilinear over the whole area that a pixel stands for (antialiased, as Pillow's own), rounded to
uint8; torch's kernel is two to three times as fast as Pillow's. Orientation marks (EXIF) are followed where
`upright` says so: pictures of the user's own are turned, those of sets whose boxes or masks count the stored
pixels are not.
"""

import io
import math
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from struct import error as StructError
from typing import NamedTuple

import numpy as np
import simplejpeg
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from common.data.shared.download import DamagedError

# by Pillow's names: of published sets, and of pictures of the user's own
Formats = tuple[str, ...]
FORMATS: Formats = ("JPEG", "PNG")
OWN_FORMATS: Formats = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM")
# what files of published sets are called
EXTENSIONS = (".jpg", ".jpeg", ".png")
# A JPEG is decoded at 1/2, 1/4 or 1/8 of its size where the result is still this many times as fine as
# wanted: the resize that follows then gives what it would have given, within a grey level or two.
DRAFT_GAP = 2.0
# random-resized-crop (Szegedy et al. 2015, as in ResNet training): fraction of the area, aspect ratio
CROP_AREA = (0.08, 1.0)
CROP_RATIO = (3 / 4, 4 / 3)
CROP_ATTEMPTS = 10

# the white of 16-bit grey
WHITE = 65_535
# what is done to pixels that are not RGB, by Pillow's name of their mode
REPAIRS = {
    "1": "images of one channel, made RGB",
    "L": "images of one channel, made RGB",
    "I": "images of one channel of 16 bits, made RGB of 8",
    "I;16": "images of one channel of 16 bits, made RGB of 8",
    "I;16B": "images of one channel of 16 bits, made RGB of 8",
    "I;16L": "images of one channel of 16 bits, made RGB of 8",
    "F": "images of one channel of 16 bits, made RGB of 8",
    "LA": "images with alpha, made RGB on white",
    "RGBA": "images with alpha, made RGB on white",
    "P": "images with a palette, made RGB",
    "CMYK": "CMYK images, made RGB",
}
WHITE_PAPER = (255, 255, 255, 255)
# EXIF's tag of how a picture is to be turned, what Pillow does for each of its values, and what stands in a
# file that has it
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# (of WebP: EXIF)
EXIF_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF", b"tiff:Orientation")
TURNED = "images turned upright by their orientation marks"


class Box(NamedTuple):
    """A window of an image in whole pixels, half-open: left <= x < right, top <= y < bottom."""

    left: int
    top: int
    right: int
    bottom: int


# (height, width) of an image -> the window that is cut out of it
Window = Callable[[int, int], Box]


@contextmanager
def reading(formats: str = "JPEG or PNG") -> Iterator[None]:
    """Turn all that Pillow raises for a bad file into DamagedError, and keep its warnings quiet.

    Errors of the file system (missing, no permission) go on as they are.

    Args:
        formats: what is read, for the message on a file of another one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.UnidentifiedImageError as error:
        raise DamagedError(f"not a {formats} image") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise DamagedError(_one_line(error)) from error
    except (
        SyntaxError,
        ValueError,
        TypeError,
        EOFError,
        IndexError,
        StructError,
        zlib.error,
        Image.DecompressionBombError,
    ) as error:
        raise DamagedError(_one_line(error)) from error


def names_of(formats: Formats) -> str:
    """`JPEG, PNG or WebP`, as people write them."""
    names = ["WebP" if name == "WEBP" else name for name in formats]
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _content(path: str) -> bytes:
    """The whole file, read at once; numpy does it with the fewest calls of the system."""
    return np.fromfile(path, np.uint8).tobytes()


def image_size(path: str, formats: Formats = FORMATS) -> tuple[int, int]:
    """(height, width) from the header alone.

    Raises:
        DamagedError: not an image of these formats.
        OSError: the file is missing or cannot be read.
    """
    with reading(names_of(formats)), Image.open(path, formats=formats) as image:
        return image.height, image.width


def sizes_of(path: str) -> tuple[tuple[int, int], tuple[int, int]]:
    """(height, width) of an image as it is stored, and once it is turned upright by its orientation mark.

    Raises:
        DamagedError: not a JPEG or PNG image.
        OSError: the file is missing or cannot be read.
    """
    with reading():
        content = _content(path)
        height, width = _header_size(content, FORMATS)
    on_its_side = _is_on_its_side(orientation_of(content))
    return (height, width), (width, height) if on_its_side else (height, width)


def decode_rgb(
    path: str,
    size: tuple[int, int],
    window: Window | None,
    note: Callable[[str], None],
    upright: bool = False,
    formats: Formats = FORMATS,
) -> Tensor:
    """A window of an image file, stretched to `size`.

    Args:
        path: a file of one of the formats, of any mode.
        size: (height, width) of the result.
        window: what to cut out, given the image's own (height, width); None for the whole image.
        note: told what was repaired, if the image is not RGB, or is turned.
        upright: turn the image as its orientation mark says, before the window is cut out.
        formats: by Pillow's names; of an animation or several pages the first is read.

    Returns:
        uint8 [3, height, width], not to be written to. An image or window that has this size already is not
        resampled.

    Raises:
        DamagedError: truncated, or not an image of these formats.
        OSError: the file is missing or cannot be read.
    """
    with reading(names_of(formats)):
        content = _content(path)
        turn = orientation_of(content, formats) if upright else 1
        if turn in TURNS:
            note(TURNED)
        colour_jpeg = colour_jpeg_size(content)
        height, width = colour_jpeg or _header_size(content, formats)
        whole = (width, height) if _is_on_its_side(turn) else (height, width)
        box = window(*whole) if window is not None else Box(0, 0, whole[1], whole[0])
        shrink = _shrink(box, size)
        image = colour_jpeg_pixels(content) if colour_jpeg and shrink < 2 and turn == 1 else None
        if image is not None:
            return resize(image[:, box.top : box.bottom, box.left : box.right], size)
        return _through_pillow(content, formats, whole, box, size, shrink, turn, note)


def decode_labels(
    path: str, whole: tuple[int, int], box: Box, size: tuple[int, int], classes: Tensor
) -> Tensor:
    """A window of an image of class labels, stretched to `size` by nearest neighbour.

    Args:
        path: a PNG file of one channel or with a palette, one byte a pixel.
        whole: (height, width) that it must have.
        box: what to cut out.
        size: (height, width) of the result.
        classes: int64 [256], the class of each value of a byte; negative for values that must not occur.

    Returns:
        The classes, uint8 [height, width].

    Raises:
        DamagedError: truncated, or not an image of such labels, wherever in it.
        OSError: the file is missing or cannot be read.
    """
    with reading(), Image.open(io.BytesIO(_content(path)), formats=FORMATS) as image:
        if image.mode not in ("L", "P"):
            raise DamagedError(f"pixels of mode {image.mode}; labels are one byte a pixel (mode L or P)")
        if (image.height, image.width) != whole:
            raise DamagedError(f"{image.width}x{image.height} pixels; its image has {whole[1]}x{whole[0]}")
        image.load()
        for value, count in enumerate(image.histogram()):
            if count > 0 and classes[value] < 0:
                raise DamagedError(f"{count} pixels of label {value}, which is no class of this set")
        labels = image.resize((size[1], size[0]), Image.Resampling.NEAREST, box=box).tobytes()
    values = torch.frombuffer(bytearray(labels), dtype=torch.uint8).view(size)
    return classes.to(torch.uint8)[values.int()]


def to_rgb(image: Image.Image, note: Callable[[str], None]) -> Image.Image:
    """The image itself if it is RGB; else a converted one, told to `note`.

    One channel is repeated (of 16 bits it is scaled, so that 65535 becomes 255; of floats that are 1 at most,
    so that 1 does), what is transparent is laid on white paper (as browsers show it), palettes are looked up,
    CMYK is converted by Pillow's formula, without colour profiles.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    note(REPAIRS.get(image.mode, f"images of mode {image.mode}, made RGB"))
    if image.mode == "F" or image.mode.startswith("I"):
        # Pillow's own conversion would cut all that is above 255 off
        grey = np.asarray(image).astype(np.float64)
        white = 1 if image.mode == "F" and grey.max() <= 1 else WHITE
        grey = grey.clip(0, white) * (255 / white)
        return Image.fromarray(np.rint(np.nan_to_num(grey)).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        picture = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", picture.size, WHITE_PAPER), picture)
    return image.convert("RGB")


def orientation_of(content: bytes, formats: Formats = OWN_FORMATS) -> int:
    """How the picture of a file is to be turned, by its mark: a key of `TURNS`, or 1 for not at all.

    A mark that cannot be read turns nothing, as in other programs. TIFF files are turned by Pillow itself.
    """
    if not any(mark in content for mark in EXIF_MARKS):
        return 1
    try:
        with Image.open(io.BytesIO(content), formats=formats) as image:
            turn = 1 if image.format == "TIFF" else image.getexif().get(ORIENTATION, 1)
    except Exception:
        # whatever is wrong with the picture itself is found where it is decoded
        return 1
    return turn if turn in TURNS else 1


def _is_on_its_side(turn: int) -> bool:
    """Whether height and width change places when a picture is turned upright."""
    return turn >= 5


def resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 [3, h, w] -> [3, *size], bilinear with antialiasing; itself where the size is right."""
    if image.shape[1:] == size:
        return image
    stretched: Tensor = functional.interpolate(
        packed(image), size, mode="bilinear", antialias=True, align_corners=False
    )
    return stretched.squeeze(0)


def packed(image: Tensor) -> Tensor:
    """An image as a batch of its own, all of its pixels side by side: [3, h, w] -> [1, 3, h, w].

    A window of a larger image would take torch's kernels twice as long as it takes with the copy.
    """
    return image.unsqueeze(0).contiguous(memory_format=torch.channels_last)


def mirrored(image: Tensor) -> Tensor:
    """Left and right exchanged: [..., W] -> [..., W]."""
    return image.flip(-1)


def centre_window(size: tuple[int, int], resized: int) -> Window:
    """What remains of an image whose shorter side is made `resized` and whose centre `size` is kept.

    With (224, 224) and 256: the usual evaluation of ImageNet networks, in one pass. Corners are rounded to
    whole pixels of the file. An image that is `size` already is kept whole.
    """

    def window(height: int, width: int) -> Box:
        if (height, width) == size:
            return Box(0, 0, width, height)
        scale = min(height, width) / resized
        return _centred(height, width, size[0] * scale, size[1] * scale)

    return window


def random_window(generator: np.random.Generator) -> Window:
    """A random part of the image: 8 to 100% of its area, aspect ratio 3/4 to 4/3 (log-uniform).

    After 10 draws that do not fit, the largest centred window of an allowed aspect ratio.
    """

    def window(height: int, width: int) -> Box:
        for _ in range(CROP_ATTEMPTS):
            area = height * width * generator.uniform(*CROP_AREA)
            ratio = math.exp(generator.uniform(math.log(CROP_RATIO[0]), math.log(CROP_RATIO[1])))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left = int(generator.integers(width - across + 1))
                top = int(generator.integers(height - down + 1))
                return Box(left, top, left + across, top + down)
        low, high = CROP_RATIO
        return _centred(height, width, min(height, width / low), min(width, height * high))

    return window


def _centred(height: int, width: int, down: float, across: float) -> Box:
    """The window of `down` x `across` pixels around the centre, in whole pixels, inside the image."""
    down, across = (max(1, min(round(a), b)) for a, b in ((down, height), (across, width)))
    top, left = (height - down) // 2, (width - across) // 2
    return Box(left, top, left + across, top + down)


def _shrink(box: Box, size: tuple[int, int]) -> float:
    """How many times finer than wanted a window may be without loss: over `DRAFT_GAP` times finer."""
    return min((box.right - box.left) / size[1], (box.bottom - box.top) / size[0]) / DRAFT_GAP


def colour_jpeg_pixels(content: bytes) -> Tensor | None:
    """A whole JPEG of `colour_jpeg_size`; None for a faulty one, of which Pillow tells or makes more."""
    try:
        return torch.from_numpy(simplejpeg.decode_jpeg(content)).permute(2, 0, 1)
    except ValueError:
        return None


def _through_pillow(
    content: bytes,
    formats: Formats,
    whole: tuple[int, int],
    box: Box,
    size: tuple[int, int],
    shrink: float,
    turn: int,
    note: Callable[[str], None],
) -> Tensor:
    """A window of any image as RGB; a JPEG is decoded at a fraction of its size, not below 1 / shrink."""
    with Image.open(io.BytesIO(content), formats=formats) as image:
        if shrink >= 2:
            image.draft(None, (int(image.width / shrink), int(image.height / shrink)))
        image.load()
        pixels = to_rgb(image, note)
    if turn in TURNS:
        pixels = pixels.transpose(TURNS[turn])
    if pixels.size != (whole[1], whole[0]):
        # the window's corners may lie between pixels now, which only Pillow's resize takes
        across, down = pixels.width / whole[1], pixels.height / whole[0]
        window = (box.left * across, box.top * down, box.right * across, box.bottom * down)
        return _tensor(pixels.resize((size[1], size[0]), Image.Resampling.BILINEAR, window))
    return resize(_tensor(pixels.crop(box)), size)


def _header_size(content: bytes, formats: Formats) -> tuple[int, int]:
    with Image.open(io.BytesIO(content), formats=formats) as image:
        return image.height, image.width


def colour_jpeg_size(content: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG in colour, without black; None for all else."""
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(content)
    except ValueError:
        return None
    plain = space in ("YCbCr", "RGB") and height * width <= (Image.MAX_IMAGE_PIXELS or 0)
    return (height, width) if plain else None


def _tensor(image: Image.Image) -> Tensor:
    """An RGB image as uint8 [3, H, W], the channels of a pixel together.

    It shares the memory of Python's bytes, which must not be written to: torch warns of that, `reading`
    keeps it quiet. A copy would cost as much as the packing.
    """
    flat = torch.frombuffer(image.tobytes(), dtype=torch.uint8)
    return flat.view(image.height, image.width, 3).permute(2, 0, 1)
