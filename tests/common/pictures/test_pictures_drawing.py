"""Annotated pictures: what is drawn stands where it belongs, at any size of the picture."""

import numpy as np
import pytest
from PIL import Image

from common.pictures.answers import NO_CLASS, Classes, Mask, Objects
from common.pictures.drawing import LEAST_SIDE, TINT, colour_of, drawn, ink_on, ranked, shares

GREY = 128
NAMES = [
    "background",
    "a name that is far too long for any picture, and goes on and on and on and on",
    "Ünïcödé €",
]
SIZES = [(1, 1), (8, 8), (30, 400), (400, 30), (600, 800)]


def grey(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), GREY, np.uint8)


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def objects(*boxes: tuple[float, float, float, float]) -> Objects:
    count = len(boxes)
    corners = np.array(boxes, np.float32).reshape(count, 4)
    return Objects(corners, np.linspace(0.9, 0.5, count, dtype=np.float32), np.arange(count) % 3)


@pytest.mark.parametrize("size", SIZES)
def test_every_answer_is_drawn_at_every_size(size: tuple[int, int]) -> None:
    height, width = size
    answers = [
        Classes(np.array([0.1, 0.7, 0.2], np.float32)),
        Mask(np.ones(size, np.uint8)),
        Mask(np.full(size, NO_CLASS, np.uint8)),
        objects((0, 0, width, height), (0, 0, 0, 0), (width, height, width, height)),
        objects(),
    ]
    for answer in answers:
        image = drawn(grey(height, width), answer, NAMES, top=5)
        assert max(image.size) >= LEAST_SIDE
        assert image.width >= width and image.height >= height


def test_a_small_picture_is_enlarged_in_whole_pixels_and_a_large_one_stays() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8)
    image = pixels(drawn(picture, objects(), NAMES, top=5))
    times = image.shape[0] // 8
    assert image.shape == (8 * times, 6 * times, 3) and times == 48
    assert np.array_equal(image[::times, ::times], picture)
    large = grey(700, 900)
    assert np.array_equal(pixels(drawn(large, objects(), NAMES, top=5)), large)


def test_the_bars_are_as_long_as_classes_are_likely_and_the_picture_is_untouched() -> None:
    picture = grey(400, 400)
    image = pixels(drawn(picture, Classes(np.array([0.25, 0.5, 0.25], np.float32)), ["a", "b", "c"], top=2))
    assert np.array_equal(image[:400, :400], picture)
    # the colour of a bar, along the middle of each line
    bar = (image[400:] == image[415, 12]).all(-1).sum(1)
    lengths = [int(length) for length in np.unique(bar[bar > 20])]
    longest, shorter = max(lengths), [length for length in lengths if length < 0.6 * max(lengths)]
    assert shorter and shorter[-1] == pytest.approx(longest / 2, abs=3)


def test_pixels_are_tinted_by_their_class_and_the_background_stays() -> None:
    mask = np.zeros((400, 400), np.uint8)
    mask[:, 100:200], mask[:, 200:] = 2, NO_CLASS
    image = pixels(drawn(grey(400, 400), Mask(mask), NAMES, top=5))
    assert (image[:400, :100] == GREY).all() and (image[:400, 200:400] == GREY).all()
    wanted = GREY + TINT * (np.array(colour_of(2)) - GREY)
    assert np.abs(image[:400, 100:200] - wanted).max() <= 1
    # the legend has the colour itself
    assert (image[400:] == colour_of(2)).all(-1).any()


def test_boxes_have_their_outline_in_the_colour_of_their_class_and_lines_follow_the_picture() -> None:
    for side, least in ((400, 2), (3000, 10)):
        low, high = side // 4, side // 2
        image = pixels(drawn(grey(side, side), objects((low, low, high, high)), NAMES, top=5))
        column = (image[:, (low + high) // 2] == colour_of(0)).all(-1)
        assert column[low : low + least].all() and column[high - least : high].all()
        inside = image[low + 2 * least : high - 2 * least, low + 2 * least : high - 2 * least]
        assert (inside == GREY).all()
        assert not (image[high:] == colour_of(0)).all(-1).any()


def test_a_label_stays_within_the_picture() -> None:
    side = 400
    for box in ((380, 0, 400, 20), (0, 0, 5, 5), (390, 390, 400, 400)):
        answer = Objects(np.array([box], np.float32), np.array([0.5], np.float32), np.array([2]))
        image = pixels(drawn(grey(side, side), answer, NAMES, top=5))
        assert image.shape == (side, side, 3)
        # a field of the class's colour as wide as its text, or nearly
        assert (image == colour_of(2)).all(-1).sum() > 600


def test_texts_of_crowded_objects_leave_out_those_that_would_cover_surer_ones() -> None:
    same = (100.0, 100.0, 200.0, 200.0)
    # above, within and below the same box there is room for three texts
    few, many = (pixels(drawn(grey(400, 400), objects(*[same] * count), NAMES, top=5)) for count in (3, 30))
    assert (few[:, 130:170] == many[:, 130:170]).all()
    alone = pixels(drawn(grey(400, 400), objects(same), NAMES, top=5))
    first = slice(100 - 15, 99)
    assert (alone[first] == few[first]).all()


def test_the_surest_are_named_first_and_equal_ones_in_order() -> None:
    assert ranked([0.2, 0.5, 0.2, 0.1], 3) == [1, 0, 2]
    mask = Mask(np.array([[2, 2, 1], [NO_CLASS, 1, 2]], np.uint8))
    assert shares(mask) == {2: 3, 1: 2}


def test_colours_of_classes_differ_and_their_ink_can_be_read() -> None:
    colours = [colour_of(label) for label in range(21)]
    distances = [np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colours) for b in colours[:i]]
    assert min(distances) > 25
    assert ink_on((255, 255, 0)) == (0, 0, 0) and ink_on((0, 0, 120)) == (255, 255, 255)
