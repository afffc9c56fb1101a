"""SSD's augmentation: where windows lie, what becomes of pixels and boxes, and that both agree."""

import colorsys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.data.detection import augment
from common.data.detection.augment import (
    canvas,
    distorted,
    drawn_windows,
    pasted,
    placed,
    sampled_window,
    sides,
    stretched,
    turned,
)
from common.data.detection.boxes import iou_matrix
from common.data.shared.decode import Box

BOXES = torch.tensor([[20.0, 10, 60, 50, 0, 0], [70, 60, 90, 75, 1, 0]])


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
            overlap = float(iou_matrix(torch.tensor([window]).float(), BOXES).max())
            assert overlap >= least or window == Box(0, 0, 100, 80)


def test_an_image_without_objects_is_kept_whole() -> None:
    frame = Box(-5, -5, 50, 50)
    assert sampled_window(torch.zeros(0, 6), frame, np.random.default_rng(0)) == frame


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


def test_grey_stays_grey_whatever_saturation_and_hue() -> None:
    grey = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    for saturation, hue in ((0.5, 0.1), (1.5, -0.1), (1.0, 0.05)):
        assert torch.equal(turned(grey, saturation, hue), grey)


@pytest.mark.parametrize(("saturation", "hue"), [(1.0, 0.0), (0.5, 0.0), (1.5, 0.1), (0.7, -0.1), (1.0, 0.5)])
def test_saturation_and_hue_are_those_of_the_standard_library(saturation: float, hue: float) -> None:
    colours = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 8, 25), dtype=np.uint8))
    expected = torch.empty(3, 200)
    for place, (red, green, blue) in enumerate(colours.flatten(1).T.tolist()):
        h, s, v = colorsys.rgb_to_hsv(red / 255, green / 255, blue / 255)
        rgb = colorsys.hsv_to_rgb((h + hue) % 1, min(1, s * saturation), v)
        expected[:, place] = 255 * torch.tensor(rgb)
    assert (turned(colours, saturation, hue).flatten(1) - expected).abs().max() <= 0.51


@pytest.mark.parametrize("mode", ["ssd", "ssd_distort"])
def test_images_of_one_pixel_and_boxes_below_a_pixel_pass(mode: str) -> None:
    for seed in range(30):
        random = np.random.default_rng(seed)
        boxes = torch.tensor([[0.0, 0.0, 1.0, 0.25, 0, 0]])
        frame = canvas(1, 1, random) if mode == "ssd_distort" else Box(0, 0, 1, 1)
        window = sampled_window(boxes, frame, random)
        seen, place = placed(window, 1, 1, (16, 16))
        image = None
        if min(sides(seen)) > 0 and min(sides(place)) > 0:
            image = stretched(torch.zeros(3, *sides(seen), dtype=torch.uint8), sides(place), random)
        assert pasted(image, place, (16, 16), (0, 0, 0)).shape == (3, 16, 16)
