"""Pictures of every mode and orientation, as `predict.py` and the folders of one's own see them."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.data.images.decoding import decode_frames, decode_picture, frame_count
from common.data.shared.decode import ORIENTATION, OWN_FORMATS, TURNS, decode_rgb, image_size
from common.data.shared.download import DamagedError

# red, green / blue, white, and an end that no turn maps to itself
CORNERS = np.array(
    [
        [[255, 0, 0], [0, 255, 0], [9, 9, 9]],
        [[0, 0, 255], [255, 255, 255], [90, 90, 90]],
    ],
    np.uint8,
)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def smooth(height: int = 40, width: int = 56) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    planes = [rows * 255 // height, columns * 255 // width, (rows + columns) * 255 // (height + width)]
    return Image.fromarray(np.stack(planes, -1).astype(np.uint8))


def test_a_plain_picture_is_given_as_it_is() -> None:
    picture = decode_picture(encoded(Image.fromarray(CORNERS)))
    assert picture.dtype == np.uint8
    assert np.array_equal(picture, CORNERS)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_every_orientation_mark_is_turned_upright(tmp_path: Path, form: str, turn: int) -> None:
    upright = Image.fromarray(CORNERS).resize((24, 16), Image.Resampling.NEAREST)
    undo = {6: TURNS[8], 8: TURNS[6]} | {key: value for key, value in TURNS.items() if key not in (6, 8)}
    stored = upright.transpose(undo[turn]) if turn in undo else upright
    exif = Image.Exif()
    exif[ORIENTATION] = turn
    options = (
        {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0} if form == "JPEG" else {}
    )
    content = encoded(stored, form, exif=exif, **options)
    found = decode_picture(content)
    assert found.shape == (16, 24, 3)
    assert np.abs(found.astype(int) - np.asarray(upright)).max() <= (6 if form == "JPEG" else 0)
    path = tmp_path / "x"
    path.write_bytes(content)
    # the data sets' decoder turns as the public one does, or leaves the stored pixels
    read = decode_rgb(str(path), (16, 24), None, lambda what: None, upright=True, formats=OWN_FORMATS)
    assert np.array_equal(read.permute(1, 2, 0).numpy(), found)
    assert image_size(str(path), OWN_FORMATS) == ((16, 24) if form == "TIFF" else stored.size[::-1])
    if form in ("JPEG", "PNG"):
        bare = decode_rgb(str(path), (stored.height, stored.width), None, lambda what: None)
        assert tuple(bare.shape[1:]) == (stored.height, stored.width)


def test_a_large_jpeg_on_its_side_is_cut_and_reduced_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    smooth(1200, 900).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.jpg", exif=exif, quality=95)
    found = decode_rgb(str(tmp_path / "x.jpg"), (80, 60), None, lambda what: None, upright=True)
    expected = np.asarray(smooth(1200, 900).resize((60, 80), Image.Resampling.BILINEAR))
    assert np.abs(found.permute(1, 2, 0).numpy().astype(int) - expected).max() <= 4


@pytest.mark.parametrize("mark", [b"\xff\xff\xff", b"MM\x00*\x00\x00\xff\xff", b""])
def test_a_damaged_orientation_mark_turns_nothing(mark: bytes) -> None:
    content = encoded(smooth(), "JPEG", quality=95, exif=b"Exif\0\0" + mark)
    assert decode_picture(content).shape == (40, 56, 3)


@pytest.mark.parametrize("mode", ["1", "L"])
def test_one_channel_is_repeated(mode: str) -> None:
    image = smooth().convert(mode)
    found = decode_picture(encoded(image))
    for channel in range(3):
        assert np.array_equal(found[..., channel], np.asarray(image.convert("L")))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_grey_of_16_bits_is_scaled_from_black_to_white(form: str) -> None:
    values = np.linspace(0, 65_535, 64).round().astype(np.uint16).reshape(8, 8)
    found = decode_picture(encoded(Image.fromarray(values), form))
    assert np.abs(found - (values / 257)[..., None]).max() <= 0.5 + 1e-9


@pytest.mark.parametrize("white", [1.0, 65_535.0])
def test_floats_are_scaled_by_their_white(white: float) -> None:
    values = np.linspace(0, white, 64, dtype=np.float32).reshape(8, 8)
    found = decode_picture(encoded(Image.fromarray(values), "TIFF"))
    assert np.abs(found[..., 0] - values / white * 255).max() <= 0.5 + 1e-3


def test_what_is_transparent_is_laid_on_white() -> None:
    picture = np.zeros((1, 3, 4), np.uint8)
    picture[0] = [[200, 40, 0, 255], [200, 40, 0, 0], [200, 40, 0, 51]]
    found = decode_picture(encoded(Image.fromarray(picture)))
    # alpha 51 is a fifth
    assert found[0].tolist() == [[200, 40, 0], [255, 255, 255], [244, 212, 204]]
    grey = Image.fromarray(np.array([[[9, 255], [9, 0]]], np.uint8), "LA")
    assert decode_picture(encoded(grey))[0].tolist() == [[9, 9, 9], [255, 255, 255]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0])
    palette.putpixel((1, 0), 1)
    assert decode_picture(encoded(palette, transparency=0))[0].tolist() == [[255, 255, 255], [0, 255, 0]]
    key = decode_picture(encoded(Image.fromarray(CORNERS), transparency=(255, 0, 0)))
    assert key[0].tolist() == [[255, 255, 255], [0, 255, 0], [9, 9, 9]]


def test_palettes_and_cmyk_become_rgb() -> None:
    palette = Image.fromarray(CORNERS).convert("P", palette=Image.Palette.ADAPTIVE)
    assert np.array_equal(decode_picture(encoded(palette, "GIF")), CORNERS)
    found = decode_picture(encoded(smooth().convert("CMYK"), "JPEG", quality=95)).astype(int)
    assert np.abs(found - np.asarray(smooth())).mean() < 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "WEBP", "PPM", "TIFF"])
def test_a_picture_of_one_pixel_is_one(form: str) -> None:
    assert decode_picture(encoded(Image.new("RGB", (1, 1), (0, 0, 0)), form)).tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no picture",
        b"<svg/>",
        encoded(smooth(), "JPEG")[:200],
        encoded(smooth())[:100],
        b"\xff\xd8\xff\xe0",
    ],
)
def test_what_is_no_picture_is_damaged_in_one_line(content: bytes) -> None:
    with pytest.raises(DamagedError) as error:
        decode_picture(content)
    assert str(error.value) and "\n" not in str(error.value)


def test_animations_give_their_frames_in_order_and_single_pictures_one(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 6), (0, 80 * k, 0)) for k in range(3)]
    for form, options in {"gif": {}, "webp": {"lossless": True}, "png": {}, "tiff": {}}.items():
        path = tmp_path / f"x.{form}"
        frames[0].save(path, save_all=True, append_images=frames[1:], **options)
        assert frame_count(path) == 3
        greens = [int(frame[0, 0, 1]) for frame in decode_frames(path)]
        assert greens == [0, 80, 160], form
        assert decode_picture(path)[0, 0, 1] == 0
    frames[0].save(tmp_path / "one.png")
    assert frame_count(tmp_path / "one.png") == 1
