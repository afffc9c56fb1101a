"""SSD's augmentation: where windows lie, what becomes of pixels and boxes, and that both agree."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from common.data.detection import augment
from common.data.detection.augment import (
    INTERPOLATIONS,
    boxes_seen,
    canvas,
    distorted,
    drawn_windows,
    nearest,
    pasted,
    placed,
    recoloured,
    sampled_window,
    sides,
    stretched,
)
from common.data.detection.augment_loops import largest_overlaps
from common.data.detection.boxes import crop_boxes, flip_boxes, iou_matrix, is_box, resize_boxes
from common.data.shared.decode import Box, resize

BOXES = np.array([[20, 10, 60, 50, 0, 0], [70, 60, 90, 75, 1, 0]], np.float32)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(1, 200))
def test_windows_lie_in_the_canvas_and_have_the_scales_and_shapes_of_ssd(
    seed: int, height: int, width: int
) -> None:
    frame = Box(-30, -20, width - 30, height - 20)
    found = drawn_windows(frame, 40, np.random.default_rng(seed))
    left, top, right, bottom = found.T
    assert (left >= frame.left).all() and (right <= frame.right).all() and (right > left).all()
    assert (top >= frame.top).all() and (bottom <= frame.bottom).all() and (bottom > top).all()
    if min(height, width) >= 50:
        across, down = (right - left) / width, (bottom - top) / height
        slack = 1.5 / min(height, width) / 0.2
        assert np.sqrt(across * down).min() > 0.3 - slack
        assert (across / down).max() < 2 + 4 * slack and (across / down).min() > 0.5 - slack


def test_each_kind_that_finds_a_window_comes_as_often(monkeypatch: pytest.MonkeyPatch) -> None:
    # no window overlaps the small box by 0.9, so that two of the three are left
    monkeypatch.setattr(augment, "KINDS", (augment.WHOLE, 0.9, None))
    frame, random = Box(0, 0, 100, 80), np.random.default_rng(0)
    whole = sum(sampled_window(BOXES[1:], frame, random) == frame for _ in range(600))
    assert 240 < whole < 360


def test_windows_overlap_an_object_as_their_kind_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    for least in (0.1, 0.5):
        monkeypatch.setattr(augment, "KINDS", (least,))
        for _ in range(50):
            window = sampled_window(BOXES, Box(0, 0, 100, 80), random)
            overlap = float(iou_matrix(torch.tensor([window]).float(), torch.from_numpy(BOXES)).max())
            assert overlap >= least or window == Box(0, 0, 100, 80)


def test_an_image_without_objects_is_kept_whole() -> None:
    frame = Box(-5, -5, 50, 50)
    assert sampled_window(np.zeros((0, 6), np.float32), frame, np.random.default_rng(0)) == frame


def test_the_canvas_holds_the_image_and_is_up_to_four_times_as_large() -> None:
    random = np.random.default_rng(0)
    frames = [canvas(30, 40, random) for _ in range(400)]
    assert all(f.left <= 0 and f.top <= 0 and f.right >= 40 and f.bottom >= 30 for f in frames)
    ratios = np.array([(f.right - f.left) / 40 for f in frames])
    assert 0.4 < (ratios == 1).mean() < 0.6
    assert ratios.max() <= 4 and ratios.max() > 3.8
    assert all(abs((f.bottom - f.top) / 30 - r) < 0.03 for f, r in zip(frames, ratios, strict=True))


def test_an_image_lies_in_a_window_where_its_boxes_do() -> None:
    # a white object on black, in a window that reaches beyond the image on the left
    pixels = torch.zeros(3, 80, 100, dtype=torch.uint8)
    pixels[:, 10:50, 20:60] = 255
    window, size = Box(-60, -40, 140, 120), (160, 200)
    seen, place = placed(window, 80, 100, size)
    assert seen == Box(0, 0, 100, 80) and place == Box(60, 40, 160, 120)
    part = pixels[:, seen.top : seen.bottom, seen.left : seen.right]
    image = stretched(part, sides(place), np.random.default_rng(0))
    result = pasted(image, place, size, (9, 9, 9))
    assert (result[:, :40] == 9).all() and (result[:, :, 160:] == 9).all()
    assert (result[:, 50:90, 80:120] == 255).all()


def test_a_window_without_any_of_the_image_is_the_ground() -> None:
    seen, place = placed(Box(-50, -50, -10, -10), 80, 100, (20, 20))
    assert min(sides(seen)) == 0 == min(sides(place))
    assert (pasted(None, place, (20, 20), (1, 2, 3)) == torch.tensor([1, 2, 3])[:, None, None]).all()


def test_distortions_are_those_of_the_formulas(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(3)
    colours = torch.from_numpy(random.integers(0, 256, (3, 16, 16), dtype=np.uint8))
    monkeypatch.setattr(augment, "DISTORTED", 0.0)
    assert torch.equal(distorted(colours, random), colours)
    monkeypatch.setattr(augment, "DISTORTED", 1.0)
    monkeypatch.setattr(augment, "SATURATION", (1.0, 1.0))
    monkeypatch.setattr(augment, "HUE", 0.0)
    monkeypatch.setattr(augment, "BRIGHTNESS", 0.0)
    monkeypatch.setattr(augment, "CONTRAST", (1.5, 1.5))
    assert torch.equal(distorted(colours, random), (1.5 * colours.double()).round().clamp(0, 255).byte())


def test_levels_between_two_become_the_even_one_and_stay_within_bytes() -> None:
    levels = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    assert torch.equal(recoloured(levels, before=0.5), (0.5 * levels.double()).round().byte())
    assert torch.equal(recoloured(levels, after=0.5), (0.5 * levels.double()).round().byte())
    assert torch.equal(recoloured(levels, delta=-40.5), (levels.double() - 40.5).round().clamp(0, 255).byte())
    assert torch.equal(recoloured(levels, before=1e8), (255 * levels.sign()))


def test_colours_are_read_wherever_they_lie_and_left_as_they_were() -> None:
    whole = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8))
    window, before = whole[3:20, 5:30].permute(2, 0, 1), whole.clone()
    change = {"delta": 9.0, "before": 1.2, "saturation": 1.4, "hue": 0.05, "after": 0.8}
    found = recoloured(window, **change)
    assert torch.equal(found, recoloured(window.contiguous(), **change))
    assert torch.equal(found[:, 4:5, 6:7], recoloured(window[:, 4:5, 6:7], **change))
    assert torch.equal(whole, before)
    assert recoloured(window) is window


def test_grey_stays_grey_whatever_saturation_and_hue() -> None:
    grey = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    for saturation, hue in ((0.5, 0.1), (1.5, -0.1), (1.0, 0.05)):
        assert torch.equal(recoloured(grey, saturation=saturation, hue=hue), grey)


@pytest.mark.parametrize(("saturation", "hue"), [(1.0, 0.0), (0.5, 0.0), (1.5, 0.1), (0.7, -0.1), (1.0, 0.5)])
def test_saturation_and_hue_are_those_of_the_standard_library(saturation: float, hue: float) -> None:
    colours = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 25), dtype=np.uint8))
    expected = torch.empty(3, 200)
    for place, (red, green, blue) in enumerate(colours.flatten(1).T.tolist()):
        h, s, v = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        rgb = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), v)
        expected[:, place] = 255 * torch.tensor(rgb)
    assert (recoloured(colours, saturation=saturation, hue=hue).flatten(1) - expected).abs().max() <= 0.51


@pytest.mark.parametrize("mode", ["ssd", "ssd_distort"])
def test_images_of_one_pixel_and_boxes_below_a_pixel_pass(mode: str) -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        boxes = np.array([[0, 0, 1, 0.25, 0, 0]], np.float32)
        frame = canvas(1, 1, random) if mode == "ssd_distort" else Box(0, 0, 1, 1)
        window = sampled_window(boxes, frame, random)
        seen, place = placed(window, 1, 1, (16, 16))
        image = None
        if min(sides(seen)) > 0 and min(sides(place)) > 0:
            image = stretched(torch.zeros(3, *sides(seen), dtype=torch.uint8), sides(place), random)
        assert pasted(image, place, (16, 16), (0, 0, 0)).shape == (3, 16, 16)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 6), st.booleans())
def test_boxes_of_one_image_are_cut_stretched_and_mirrored_as_those_of_batches(
    seed: int, count: int, mirror: bool
) -> None:
    random, size = np.random.default_rng(seed), (30, 44)
    corners = random.uniform(-5, 105, (count, 4)).astype(np.float32)
    boxes = np.hstack([corners, random.integers(0, 3, (count, 2))]).astype(np.float32)
    window = Box(*map(int, drawn_windows(Box(-10, -20, 110, 90), 1, random)[0]))
    given = torch.from_numpy(boxes.copy())
    expected = crop_boxes(given, given.new_tensor(window))
    expected = resize_boxes(expected[is_box(expected)], sides(window), size)
    expected = flip_boxes(expected, size[1]) if mirror else expected
    assert torch.equal(torch.from_numpy(boxes_seen(boxes, window, size, mirror)), expected)
    # what was given is as it was
    assert torch.equal(torch.from_numpy(boxes), given)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.booleans())
def test_overlaps_of_windows_are_the_numbers_of_those_of_batches(seed: int, count: int, flat: bool) -> None:
    random = np.random.default_rng(seed)
    windows = drawn_windows(Box(0, 0, 90, 70), 20, random)
    boxes = random.uniform(0, 90, (count, 6)).astype(np.float32)
    boxes[:, 2:4] = boxes[:, :2] if flat else boxes[:, 2:4]
    expected = iou_matrix(torch.from_numpy(windows).float(), torch.from_numpy(boxes)).amax(1)
    assert torch.equal(torch.from_numpy(largest_overlaps(windows, boxes)), expected)


@pytest.mark.parametrize(("mode", "whole_area"), INTERPOLATIONS)
def test_a_window_is_resized_as_a_copy_of_it_in_planes(mode: str, whole_area: bool) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8))
    window = pixels[7:50, 3:71].permute(2, 0, 1)
    found = functional.interpolate(augment.packed(window), (31, 90), mode=mode, antialias=whole_area)
    planes = window.contiguous().unsqueeze(0)
    expected = functional.interpolate(planes, (31, 90), mode=mode, antialias=whole_area)
    assert torch.equal(found, expected)
    if (mode, whole_area) == ("bilinear", True):
        assert torch.equal(resize(window, (31, 90)), expected[0])


@settings(max_examples=60, deadline=None)
@given(st.tuples(*[st.integers(1, 130)] * 4), st.integers(0, 1000))
def test_the_nearest_pixels_are_those_of_torch(sides: tuple[int, int, int, int], seed: int) -> None:
    height, width, *size = sides
    pixels = np.random.default_rng(seed).integers(0, 256, (height + 2, width + 3, 3), dtype=np.uint8)
    window = torch.from_numpy(pixels)[1:-1, 2:-1].permute(2, 0, 1)
    expected = functional.interpolate(window.contiguous()[None], size, mode="nearest")[0]
    assert torch.equal(nearest(window, (size[0], size[1])), expected)


def hexcone(levels: np.ndarray, saturation: float, hue: float) -> np.ndarray:
    """v - c' max(0, min(k, 4 - k, 1)), k = n + hue in sixths modulo 6, n = 5, 3, 1: float64 [3, ...]."""
    red, green, blue = levels
    v, c = levels.max(0), np.ptp(levels, axis=0)
    sixth = np.select([v == red, v == green], [green - blue, 2 * c + blue - red], 4 * c + red - green)
    sixth = sixth / np.maximum(c, 1) + 6 * hue
    k = np.mod(np.array([5, 3, 1])[:, None, None] + sixth, 6)
    found: np.ndarray = v - np.minimum(c * saturation, v) * np.clip(np.minimum(k, 4 - k), 0, 1)
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.5, 1.5), st.floats(-0.1, 0.1), st.booleans())
def test_turned_colours_are_those_of_the_hexcone_in_float64(
    seed: int, saturation: float, hue: float, only_saturation: bool
) -> None:
    levels = np.random.default_rng(seed).integers(0, 256, (3, 30, 40), dtype=np.uint8)
    # equal channels, black and white among them
    levels[0, :10], levels[:, 10, :20], levels[:, 10, 20:] = levels[1, :10], 0, 255
    hue = 0.0 if only_saturation else hue
    found = recoloured(torch.from_numpy(levels), saturation=saturation, hue=hue).numpy()
    assert np.abs(found - hexcone(levels.astype(np.float64), saturation, hue)).max() <= 0.5 + 1e-3


def test_all_distortions_together_are_those_of_their_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "DISTORTED", 1.0)
    image = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)).permute(
        2, 0, 1
    )
    for seed in range(20):
        drawn = np.random.default_rng(seed)
        first, numbers = drawn.random() < 0.5, []
        for low, high in ((-32, 32), (0.5, 1.5), (0.5, 1.5), (-0.1, 0.1)):
            drawn.random()
            numbers.append(drawn.uniform(low, high))
        delta, contrast, saturation, hue = numbers

        def mapped(levels: torch.Tensor, factor: float, more: float) -> torch.Tensor:
            return (factor * (levels.double() + more)).round().clamp(0, 255).byte()

        wanted = mapped(image, contrast if first else 1.0, delta)
        wanted = recoloured(wanted, saturation=saturation, hue=hue)
        wanted = wanted if first else mapped(wanted, contrast, 0.0)
        found = distorted(image, np.random.default_rng(seed))
        assert ((found.int() - wanted.int()).abs() > 0).float().mean() < 1e-3
        assert found.stride() == image.stride()
