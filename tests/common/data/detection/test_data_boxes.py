"""Boxes: clipping, mirroring, cutting and overlaps against simple references, and their padded batches."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from common.data.detection.boxes import (
    area,
    clip_boxes,
    crop_boxes,
    flip_boxes,
    iou_matrix,
    is_box,
    pad_boxes,
    random_patch,
    resize_boxes,
    to_metric,
)
from common.data.shared.decode import Box

WIDTH, HEIGHT = 40, 30
PADDING = [0.0, 0.0, 0.0, 0.0, -1.0, 0.0]


def rows(low: int, high: int) -> st.SearchStrategy[Tensor]:
    """Up to six boxes [k, 6] whose corners are quarters of pixels (exact in float32), in any order."""
    coordinate = st.integers(4 * low, 4 * high).map(lambda quarter: quarter / 4)
    row = st.tuples(*[coordinate] * 4, st.integers(0, 9).map(float), st.integers(0, 1).map(float))
    return st.lists(row, max_size=6).map(lambda listed: torch.tensor(listed).reshape(-1, 6))


@given(rows(-20, 60))
def test_clipping_keeps_what_lies_inside_and_counts_what_it_does(boxes: Tensor) -> None:
    kept, clipped, dropped = clip_boxes(boxes, HEIGHT, WIDTH)
    expected, changed = [], 0
    for x0, y0, x1, y1, *rest in boxes.tolist():
        inside = [min(max(x0, 0), WIDTH), min(max(y0, 0), HEIGHT)]
        inside += [min(max(x1, 0), WIDTH), min(max(y1, 0), HEIGHT)]
        if inside[0] < inside[2] and inside[1] < inside[3]:
            expected.append([*inside, *rest])
            changed += inside != [x0, y0, x1, y1]
    assert kept.tolist() == expected
    assert (clipped, dropped) == (changed, len(boxes) - len(expected))


@given(rows(-20, 60))
def test_clipping_twice_is_clipping_once(boxes: Tensor) -> None:
    once, _, _ = clip_boxes(boxes, HEIGHT, WIDTH)
    twice, clipped, dropped = clip_boxes(once, HEIGHT, WIDTH)
    assert torch.equal(twice, once) and clipped == 0 and dropped == 0


@given(rows(0, 30))
def test_mirroring_twice_changes_nothing_and_once_keeps_area(boxes: Tensor) -> None:
    padded = pad_boxes([boxes, boxes[:1]])
    flipped = flip_boxes(padded, WIDTH)
    assert torch.equal(flip_boxes(flipped, WIDTH), padded)
    assert torch.equal(area(flipped), area(padded))
    assert torch.equal(is_box(flipped), is_box(padded))


def test_a_mirrored_box_is_as_far_from_the_other_edge() -> None:
    box = torch.tensor([[3.0, 5.0, 10.0, 7.0, 2.0, 1.0]])
    assert flip_boxes(box, WIDTH).tolist() == [[30.0, 5.0, 37.0, 7.0, 2.0, 1.0]]


def reference_iou(one: list[float], other: list[float]) -> float:
    """Of integer boxes, by counting unit squares."""

    def squares(box: list[float]) -> set[tuple[int, int]]:
        x0, y0, x1, y1 = (int(value) for value in box[:4])
        return {(x, y) for x in range(x0, x1) for y in range(y0, y1)}

    union = squares(one) | squares(other)
    return len(squares(one) & squares(other)) / len(union) if union else 0.0


whole_boxes = st.lists(st.tuples(*[st.integers(0, 8)] * 4), min_size=1, max_size=4).map(
    lambda listed: torch.tensor(listed, dtype=torch.float32)
)


@given(whole_boxes, whole_boxes)
def test_overlaps_are_symmetric_fractions_and_those_of_counted_pixels(first: Tensor, second: Tensor) -> None:
    overlaps = iou_matrix(first, second)
    assert torch.equal(overlaps, iou_matrix(second, first).T)
    assert overlaps.min() >= 0 and overlaps.max() <= 1
    expected = [[reference_iou(one, other) for other in second.tolist()] for one in first.tolist()]
    assert torch.allclose(overlaps, torch.tensor(expected), atol=1e-7)


def test_overlaps_of_a_batch_are_those_of_its_images() -> None:
    first, second = torch.rand(3, 4, 6), torch.rand(3, 5, 6)
    first[..., 2:4] += 1
    second[..., 2:4] += 1
    each = [iou_matrix(one, other) for one, other in zip(first, second, strict=True)]
    assert torch.equal(iou_matrix(first, second), torch.stack(each))


def test_a_batch_is_padded_to_its_longest_list() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0, 3.0, 0.0], [1.0, 1.0, 2.0, 2.0, 0.0, 1.0]])
    padded = pad_boxes([one, one[:0], one[1:]])
    assert padded.dtype == torch.float32
    expected = [one.tolist(), [PADDING] * 2, [one[1].tolist(), PADDING]]
    assert padded.tolist() == expected
    assert is_box(padded).tolist() == [[True, True], [False, False], [True, False]]


def test_images_without_boxes_give_a_target_without_rows() -> None:
    assert pad_boxes([torch.zeros(0, 6)] * 3).shape == (3, 0, 6)
    assert [len(image["labels"]) for image in to_metric(torch.zeros(3, 0, 6))] == [0, 0, 0]


@given(rows(0, 30))
def test_stretching_there_and_back_changes_nothing(boxes: Tensor) -> None:
    stretched = resize_boxes(boxes, (HEIGHT, WIDTH), (2 * HEIGHT, 4 * WIDTH))
    assert torch.equal(stretched[:, :4], boxes[:, :4] * torch.tensor([4, 2, 4, 2]))
    assert torch.equal(resize_boxes(stretched, (2 * HEIGHT, 4 * WIDTH), (HEIGHT, WIDTH)), boxes)


def test_a_cut_keeps_the_boxes_whose_centre_it_holds() -> None:
    boxes = torch.tensor(
        [
            [8.0, 8.0, 14.0, 14.0, 1.0, 1.0],
            [0.0, 0.0, 11.0, 30.0, 2.0, 0.0],
            [4.0, 12.0, 18.0, 16.0, 3.0, 0.0],
            PADDING,
        ]
    )
    cut = crop_boxes(boxes, torch.tensor([10.0, 10.0, 20.0, 20.0]))
    # the second one's centre (5.5, 15) is left of the window
    assert cut.tolist() == [[0, 0, 4, 4, 1, 1], PADDING, [0, 2, 8, 6, 3, 0], PADDING]


def patches(boxes: Tensor, count: int) -> list[Box]:
    generator = np.random.default_rng(0)
    return [random_patch(boxes, HEIGHT, WIDTH, generator) for _ in range(count)]


WHOLE = Box(0, 0, WIDTH, HEIGHT)


def test_a_random_patch_lies_inside_and_is_neither_too_small_nor_too_narrow() -> None:
    box = torch.tensor([[10.0, 10.0, 30.0, 20.0, 1.0, 0.0]])
    scales, aspects = [], []
    for x0, y0, x1, y1 in patches(box, 300):
        assert 0 <= x0 < x1 <= WIDTH and 0 <= y0 < y1 <= HEIGHT
        across, down = (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT
        scales.append((across * down) ** 0.5)
        aspects.append(across / down)
    assert 0.28 < min(scales) < 0.4 and 0.95 < max(scales) <= 1
    assert 0.45 < min(aspects) < 0.65 and 1.5 < max(aspects) < 2.2


def test_a_random_patch_holds_the_centre_of_a_box_or_is_the_whole_image() -> None:
    corner = torch.tensor([[0.0, 0.0, 2.0, 2.0, 1.0, 0.0]])
    drawn = patches(corner, 100)
    assert all(is_box(crop_boxes(corner, torch.tensor(window).float())).all() for window in drawn)
    assert len(set(drawn)) > 50
    outside = torch.tensor([[50.0, 50.0, 52.0, 52.0, 1.0, 0.0]])
    assert set(patches(outside, 3)) == {WHOLE} == set(patches(corner[:0], 3))


def test_targets_are_those_that_the_metric_takes() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0, 3.0, 0.0], [5.0, 5.0, 9.0, 9.0, 0.0, 1.0]])
    given_targets = to_metric(pad_boxes([one, one[:1]]))
    assert [image["boxes"].tolist() for image in given_targets] == [one[:, :4].tolist(), one[:1, :4].tolist()]
    assert [image["labels"].tolist() for image in given_targets] == [[3, 0], [3]]
    assert [image["iscrowd"].tolist() for image in given_targets] == [[0, 1], [0]]
