import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from common.data.shared import decode
from common.data.shared.decode import (
    Box,
    centre_window,
    decode_labels,
    decode_rgb,
    image_size,
    random_window,
    to_rgb,
)
from common.data.shared.download import DamagedError

ALL_LABELS = torch.arange(256)


def no_repair(what: str) -> None:
    raise AssertionError(f"repaired: {what}")


def smooth(height: int, width: int, wave: int = 16) -> Image.Image:
    """Random waves of so many pixels: what photographs look like to a resize."""
    coarse = np.random.default_rng(0).integers(0, 256, (height // wave, width // wave, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def pixels(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Write an image; its path."""

    def write(image: Image.Image, name: str = "x.png", **options: Any) -> str:
        image.save(tmp_path / name, **options)
        return str(tmp_path / name)

    return write


def test_an_image_of_the_wanted_size_is_given_bit_for_bit(save: Callable[..., str]) -> None:
    image = smooth(64, 48)
    found = decode_rgb(save(image), (64, 48), None, no_repair)
    assert found.dtype == torch.uint8
    assert torch.equal(found, pixels(image))


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_crop_and_resize_agree_with_pillows(save: Callable[..., str], suffix: str) -> None:
    path = save(smooth(240, 320), f"x{suffix}")
    box = Box(40, 30, 240, 190)
    found = decode_rgb(path, (100, 120), lambda height, width: box, no_repair)
    with Image.open(path) as image:
        expected = pixels(image.convert("RGB").crop(box).resize((120, 100), Image.Resampling.BILINEAR))
    assert (found.int() - expected.int()).abs().max() <= 2


def test_large_jpegs_are_decoded_at_reduced_size_to_nearly_the_same(
    save: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(smooth(960, 1280), "x.jpg", quality=95)
    box = Box(100, 50, 1001, 951)
    reduced = decode_rgb(path, (64, 64), lambda height, width: box, no_repair)
    monkeypatch.setattr(decode, "DRAFT_GAP", 1e9)
    whole = decode_rgb(path, (64, 64), lambda height, width: box, no_repair)
    difference = (reduced.int() - whole.int()).abs().float()
    assert 0 < difference.mean() < 1.5


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"subsampling": 0},
        {"keep_rgb": True},
        {"comment": b"x" * 70},
        {"quality": 5},
    ],
)
def test_jpegs_of_every_kind_are_decoded_bit_for_bit_as_by_pillow(
    save: Callable[..., str], options: dict[str, Any]
) -> None:
    path = save(smooth(64, 49), "x.jpg", **options)
    with Image.open(path) as image:
        expected = pixels(image)
    assert torch.equal(decode_rgb(path, (64, 49), None, no_repair), expected)


@pytest.mark.parametrize("prefix", [b"\xff\xd8\xff\xff", b"\xff\xd8\xff\xe0\x00\x00", b"\xff\xd8\x00"])
def test_jpegs_with_odd_headers_are_left_to_pillow(tmp_path: Path, prefix: bytes) -> None:
    content = encoded(smooth(64, 48), "JPEG")
    path = tmp_path / "x.jpg"
    path.write_bytes(prefix + content[3:])
    try:
        with Image.open(path) as image:
            expected = pixels(image)
    except (OSError, SyntaxError):
        with pytest.raises(DamagedError):
            decode_rgb(str(path), (64, 48), None, no_repair)
    else:
        assert torch.equal(decode_rgb(str(path), (64, 48), None, no_repair), expected)


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        ("1", "one channel"),
        ("L", "one channel"),
        ("LA", "alpha"),
        ("RGBA", "alpha"),
        ("P", "palette"),
        ("CMYK", "CMYK"),
    ],
)
def test_other_modes_become_rgb_and_are_told(save: Callable[..., str], mode: str, what: str) -> None:
    image = smooth(32, 48).convert(mode)
    notes: list[str] = []
    path = save(image, "x.jpg" if mode == "CMYK" else "x.png")
    found = decode_rgb(path, (32, 48), None, notes.append)
    with Image.open(path) as stored:
        assert torch.equal(found, pixels(stored.convert("RGB")))
    assert len(notes) == 1
    assert what in notes[0]


def png_of_16_bits(values: np.ndarray, colour_type: int) -> bytes:
    """A PNG of big-endian 16-bit samples, [H, W, channels], written from the format's definition."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    height, width, _ = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("colour_type", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_16_bits_a_channel_are_scaled_to_8_and_saturate_nowhere(
    tmp_path: Path, colour_type: int, channels: int
) -> None:
    values = np.linspace(0, 65_535, 4096).round().astype(np.uint16).reshape(64, 64)
    path = tmp_path / "x.png"
    planes = [values] * channels
    if colour_type >= 4:
        planes[-1] = np.full_like(values, 65_535)
    path.write_bytes(png_of_16_bits(np.stack(planes, -1), colour_type))
    found = decode_rgb(str(path), (64, 64), None, lambda what: None)
    # of colours Pillow takes the higher byte, so up to one level less
    slack = 0.5 if channels == 1 else 1.0
    for channel in found.double().numpy():
        assert np.abs(channel - values / 257).max() <= slack + 1e-9
        assert (channel.min(), channel.max()) == (0, 255)


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_grey_of_every_number_type_is_scaled_by_its_white(mode: str) -> None:
    kinds = {"I;16": np.uint16, "I": np.int32, "F": np.float32}
    values = (np.arange(256).reshape(16, 16) * 257).astype(kinds[mode])
    image = Image.fromarray(values)
    assert image.mode == mode
    notes: list[str] = []
    found = to_rgb(image, notes.append)
    assert np.array_equal(np.asarray(found)[..., 0].ravel(), np.arange(256))
    assert found.mode == "RGB"
    assert notes == ["images of one channel of 16 bits, made RGB of 8"]


def test_a_palette_with_transparency_keeps_its_colours_and_is_laid_on_white(save: Callable[..., str]) -> None:
    image = Image.new("P", (4, 4))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 2), 1)
    path = save(image, transparency=0)
    found = decode_rgb(path, (4, 4), None, lambda what: None)
    assert found[:, 0, 0].tolist() == [255, 255, 255]
    assert found[:, 2, 1].tolist() == [0, 255, 0]


def encoded(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.0, 0.02, 0.5, 0.9])
def test_truncated_images_are_damaged_in_one_line(tmp_path: Path, form: str, part: float) -> None:
    content = encoded(smooth(96, 96), form)
    path = tmp_path / "x"
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DamagedError) as error:
        decode_rgb(str(path), (96, 96), None, no_repair)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"no image", b"<html>" * 100, encoded(smooth(32, 32), "BMP")])
def test_foreign_files_are_damaged(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(content)
    with pytest.raises(DamagedError, match="not a JPEG or PNG image"):
        decode_rgb(str(path), (8, 8), None, no_repair)
    with pytest.raises(DamagedError, match="not a JPEG or PNG image"):
        image_size(str(path))


def test_flipped_bytes_in_a_png_are_noticed(tmp_path: Path) -> None:
    content = bytearray(encoded(smooth(96, 96), "PNG"))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DamagedError):
        decode_rgb(str(tmp_path / "x.png"), (96, 96), None, no_repair)


def test_an_image_that_is_too_large_to_be_true_is_damaged(tmp_path: Path) -> None:
    content = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    # the width in the header, and the checksum of the header
    content[16:20] = (2_000_000).to_bytes(4, "big")
    content[20:24] = (2_000_000).to_bytes(4, "big")
    content[29:33] = zlib.crc32(bytes(content[12:29])).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DamagedError, match="pixels"):
        decode_rgb(str(tmp_path / "x.png"), (8, 8), None, no_repair)


def test_a_missing_image_stays_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        decode_rgb(str(tmp_path / "x.png"), (8, 8), None, no_repair)


sides = st.integers(1, 700)


@given(sides, sides, st.integers(0, 2**32))
def test_random_windows_lie_inside_and_keep_their_bounds(height: int, width: int, seed: int) -> None:
    box = random_window(np.random.default_rng(seed))(height, width)
    across, down = box.right - box.left, box.bottom - box.top
    assert 0 <= box.left < box.right <= width
    assert 0 <= box.top < box.bottom <= height
    if min(height, width) > 100 and max(height, width) < 3 * min(height, width):
        assert across * down >= 0.079 * height * width
        assert 0.73 < across / down < 1.36


def test_random_windows_cover_areas_and_places_evenly() -> None:
    generator = np.random.default_rng(0)
    boxes = np.array([random_window(generator)(400, 400) for _ in range(4000)])
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / 400**2
    middle = (boxes[:, 0] + boxes[:, 2]) / 800
    # windows of up to 3/4 of the area always fit, so that none of them is drawn anew
    assert area[area < 0.75].mean() == pytest.approx((0.08 + 0.75) / 2, abs=0.015)
    assert area.min() < 0.1
    assert area.max() > 0.95
    assert middle.mean() == pytest.approx(0.5, abs=0.01)


def test_thin_images_give_their_largest_centred_window_of_an_allowed_shape() -> None:
    assert random_window(np.random.default_rng(0))(30, 3000) == Box(1480, 0, 1520, 30)
    assert random_window(np.random.default_rng(0))(3000, 30) == Box(0, 1480, 30, 1520)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (375, 500, Box(86, 23, 414, 351)),
        (500, 375, Box(23, 86, 351, 414)),
        (256, 256, Box(16, 16, 240, 240)),
        (224, 224, Box(0, 0, 224, 224)),
        (1, 1, Box(0, 0, 1, 1)),
    ],
)
def test_the_centre_window_is_that_of_resize_256_and_crop_224(height: int, width: int, box: Box) -> None:
    assert centre_window((224, 224), 256)(height, width) == box


def test_the_centre_agrees_with_resizing_whole_and_cropping(save: Callable[..., str]) -> None:
    path = save(smooth(375, 500, wave=60))
    found = decode_rgb(path, (224, 224), centre_window((224, 224), 256), no_repair)
    with Image.open(path) as image:
        # 340 of the 500 * 256 / 375 = 341.3 pixels across, so that the centre is between two
        side = 340 * 375 / 256
        around = (250 - side / 2, 0, 250 + side / 2, 375)
        resized = image.resize((340, 256), Image.Resampling.BILINEAR, around)
    expected = pixels(resized.crop((58, 16, 282, 240)))
    assert (found.int() - expected.int()).abs().float().mean() < 1


def test_labels_are_stretched_by_nearest_neighbour_and_translated(save: Callable[..., str]) -> None:
    labels = np.array([[0, 0, 7, 7], [0, 0, 7, 7], [9, 9, 3, 3], [9, 9, 3, 3]], dtype=np.uint8)
    path = save(Image.fromarray(labels))
    classes = torch.full((256,), -1)
    classes[[0, 3, 7, 9]] = torch.tensor([5, 255, 1, 2])
    small = decode_labels(path, (4, 4), Box(0, 0, 4, 4), (2, 2), classes)
    assert small.tolist() == [[5, 1], [2, 255]]
    assert small.dtype == torch.uint8
    window = decode_labels(path, (4, 4), Box(1, 1, 3, 3), (4, 4), classes)
    assert window.tolist() == [[5, 5, 1, 1], [5, 5, 1, 1], [2, 2, 255, 255], [2, 2, 255, 255]]


def test_a_label_out_of_range_is_found_wherever_it_is(save: Callable[..., str]) -> None:
    labels = np.zeros((16, 16), dtype=np.uint8)
    labels[15, 15] = 12
    classes = torch.full((256,), -1)
    classes[:12] = torch.arange(12)
    with pytest.raises(DamagedError, match="1 pixels of label 12"):
        decode_labels(save(Image.fromarray(labels)), (16, 16), Box(0, 0, 4, 4), (4, 4), classes)


def test_masks_of_another_size_or_of_colours_are_damaged(save: Callable[..., str]) -> None:
    box = Box(0, 0, 8, 8)
    with pytest.raises(DamagedError, match=r"48x32 pixels; its image has 64x32"):
        decode_labels(save(Image.new("L", (48, 32))), (32, 64), box, (8, 8), ALL_LABELS)
    with pytest.raises(DamagedError, match="one byte a pixel"):
        decode_labels(save(Image.new("RGB", (48, 32))), (32, 48), box, (8, 8), ALL_LABELS)
