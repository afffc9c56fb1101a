import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from common.metrics.average_precision import (
    AveragePrecision,
    Found,
    Objects,
    coco_ap,
    voc_ap,
)
from common.metrics.coco_api import coco_api_ap

needs_coco = pytest.mark.skipif(
    importlib.util.find_spec("pycocotools") is None,
    reason="needs pycocotools, whose code is the definition (pip install pycocotools)",
)


def found(*rows: tuple[int, int, float, float, float]) -> Found:
    """Rows (image, label, score, left edge, side): squares on the line y = 0."""
    image, label, score, left, side = zip(*rows, strict=True) if rows else ((),) * 5
    corners = [[x, 0.0, x + s, s] for x, s in zip(left, side, strict=True)]
    boxes = torch.tensor(corners, dtype=torch.float64).reshape(-1, 4)
    labels = torch.tensor(label, dtype=torch.int64), torch.tensor(image, dtype=torch.int64)
    return Found(labels[1], labels[0], boxes, torch.tensor(score, dtype=torch.float64))


def objects(*rows: tuple[int, int, float, float, bool]) -> Objects:
    """Rows (image, label, left edge, side, whether ignored)."""
    one = found(*((image, label, 0.0, left, side) for image, label, left, side, _ in rows))
    return Objects(one.image, one.label, one.boxes, torch.tensor([bool(row[4]) for row in rows]).bool())


# two images and one class: five objects, one of them difficult, and the list by hand:
# 0.9 right, 0.8 right, 0.7 wrong (twice the same object), 0.6 the difficult one, 0.5 wrong, 0.4 right
TRUTH = objects(
    (0, 0, 0, 10, False),
    (0, 0, 20, 10, False),
    (0, 0, 40, 10, True),
    (1, 0, 0, 10, False),
    (1, 0, 30, 10, False),
)
LIST = found(
    (0, 0, 0.9, 0, 10), (1, 0, 0.8, 1, 10), (0, 0, 0.7, 0.5, 10), (0, 0, 0.6, 41, 10), (1, 0, 0.5, 60, 10),
    (0, 0, 0.4, 20, 9),
)  # fmt: skip


def test_eleven_points_of_a_list_by_hand() -> None:
    # precisions 1, 1, 2/3, 2/4, 3/5 at recalls 1/4, 2/4, 2/4, 2/4, 3/4 of the four objects that count
    expected = (6 * 1.0 + 2 * 3 / 5) / 11
    assert float(voc_ap(LIST, TRUTH, 1, "eleven")[0]) == pytest.approx(expected)


def test_the_area_of_a_list_by_hand() -> None:
    assert float(voc_ap(LIST, TRUTH, 1, "area")[0]) == pytest.approx(0.25 + 0.25 + 0.25 * 3 / 5)


def test_an_iou_of_one_half_is_enough() -> None:
    truth = objects((0, 0, 0, 10, False))
    half = Found(
        torch.tensor([0]), torch.tensor([0]), torch.tensor([[0.0, 0, 5, 10]]).double(), torch.ones(1)
    )
    assert float(voc_ap(half, truth, 1, "area")[0]) == 1
    assert float(coco_ap(half, truth, 1)[0, 0]) == 1


def test_a_recall_of_three_tenths_reaches_the_point_of_three_tenths() -> None:
    truth = objects(*((0, 0, 20.0 * i, 10.0, False) for i in range(10)))
    some = found(*((0, 0, 0.9 - 0.1 * i, 20.0 * i, 10.0) for i in range(3)))
    assert float(voc_ap(some, truth, 1, "eleven")[0]) == pytest.approx(4 / 11)


def test_difficult_objects_need_not_be_found_and_finding_them_counts_neither_way() -> None:
    truth = objects((0, 0, 0, 10, False), (0, 0, 40, 10, True))
    without = found((0, 0, 0.9, 0, 10))
    twice = found((0, 0, 0.99, 40, 10), (0, 0, 0.98, 40, 10), (0, 0, 0.9, 0, 10))
    for points in ("eleven", "area"):
        assert float(voc_ap(without, truth, 1, points)[0]) == 1
        assert float(voc_ap(twice, truth, 1, points)[0]) == 1
    assert (coco_ap(twice, truth, 1) == coco_ap(without, truth, 1)).all()


def test_a_crowd_takes_every_detection_within_it() -> None:
    truth = objects((0, 0, 0, 10, False), (0, 0, 40, 100, True))
    small = found((0, 0, 0.9, 0, 10), *((0, 0, 0.95, 45 + 6 * i, 5) for i in range(3)))
    assert coco_ap(small, truth, 1).min() == 1
    # by VOC's rule they overlap it too little, and are wrong
    assert float(voc_ap(small, truth, 1, "area")[0]) == pytest.approx(1 / 4)


def test_classes_without_objects_that_count_are_left_out_of_the_mean() -> None:
    collected = AveragePrecision(3)
    boxes = torch.tensor([[0.0, 0, 1, 1]])
    collected.update(
        [(boxes, torch.ones(1), torch.tensor([0]))],
        [(boxes.repeat(2, 1), torch.tensor([0, 1]), torch.tensor([False, True]))],
    )
    assert collected.compute() == dict.fromkeys(
        ("map", "map50", "map75", "voc_map", "voc_area_map"), pytest.approx(100)
    )


def test_no_images_no_objects_and_nothing_found_have_a_measure_each() -> None:
    assert all(np.isnan(value) for value in AveragePrecision(2).compute().values())
    nothing = AveragePrecision(2)
    box, none = torch.tensor([[0.0, 0, 1, 1]]), torch.empty(0)
    nothing.update([(torch.empty(0, 4), none, none.long())], [(torch.empty(0, 4), none.long(), none.bool())])
    assert all(np.isnan(value) for value in nothing.compute().values())
    nothing.update(
        [(torch.empty(0, 4), none, none.long())], [(box, torch.tensor([1]), torch.tensor([False]))]
    )
    assert set(nothing.compute().values()) == {0.0}


def scene(seed: int, on_grid: bool, crowds: float = 0.15) -> tuple[Found, Objects]:
    """12 images, 3 classes; on a grid many overlaps, scores and recalls are equal."""
    random = torch.Generator().manual_seed(seed)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=random).double()

    low, count = 100 * uniform(70, 2), 200
    truth = torch.cat([low, low + 10 + 60 * uniform(70, 2)], dim=1)
    image, label = (torch.randint(n, (70,), generator=random) for n in (12, 3))
    chosen = torch.randint(70, (count,), generator=random)
    boxes = truth[chosen] + (9 * uniform(count, 4) - 4.5) * uniform(count, 1)
    labels = torch.where(uniform(count) < 0.8, label[chosen], torch.randint(3, (count,), generator=random))
    scores = uniform(count)
    if on_grid:
        truth, boxes, scores = (truth / 8).round() * 8, (boxes / 8).round() * 8, (10 * scores).round() / 10
    return Found(image[chosen], labels, boxes, scores), Objects(image, label, truth, uniform(70) < crowds)


@needs_coco
@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 0.15, 0.6]))
def test_coco_average_precision_is_that_of_cocos_own_code(seed: int, on_grid: bool, crowds: float) -> None:
    given_, truth = scene(seed, on_grid, crowds)
    torch.testing.assert_close(
        coco_ap(given_, truth, 3), coco_api_ap(given_, truth, 3), rtol=0, atol=1e-12, equal_nan=True
    )


@needs_coco
def test_more_than_a_hundred_of_a_class_in_an_image_are_cut_as_coco_cuts_them() -> None:
    given_, truth = scene(5, on_grid=False)
    given_, truth = (type(one)(one.image * 0, one.label * 0, *one[2:]) for one in (given_, truth))
    torch.testing.assert_close(
        coco_ap(given_, truth, 1), coco_api_ap(given_, truth, 1), rtol=0, atol=1e-12, equal_nan=True
    )


def naive_voc(given_: Found, truth: Objects, label: int) -> list[tuple[float, float]]:
    """(recall, precision) after each detection of a class that counts, by a loop over a sorted list."""
    order = sorted(range(len(given_.label)), key=lambda i: -float(given_.scores[i]))
    taken: set[int] = set()
    wanted = int(((truth.label == label) & ~truth.ignored).sum())
    right = made = 0
    curve = []
    for i in order:
        if given_.label[i] != label:
            continue
        best, which = -1.0, -1
        for j in range(len(truth.label)):
            if truth.label[j] == label and truth.image[j] == given_.image[i]:
                a, b = given_.boxes[i].tolist(), truth.boxes[j].tolist()
                shared = max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))
                union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
                if shared / union > best:
                    best, which = shared / union, j
        if best >= 0.5 and truth.ignored[which]:
            continue
        made += 1
        if best >= 0.5 and which not in taken:
            taken.add(which)
            right += 1
        curve.append((right / wanted, right / made))
    return curve


@pytest.mark.parametrize("on_grid", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_voc_average_precision_is_that_of_a_loop(seed: int, on_grid: bool) -> None:
    given_, truth = scene(seed, on_grid)
    for label in range(3):
        curve = naive_voc(given_, truth, label)
        points = [max((p for r, p in curve if r >= t / 10 - 1e-12), default=0.0) for t in range(11)]
        assert float(voc_ap(given_, truth, 3, "eleven")[label]) == pytest.approx(np.mean(points), abs=1e-12)
        area, before = 0.0, 0.0
        for recall, _ in curve:
            area += (recall - before) * max(p for r, p in curve if r >= recall)
            before = recall
        assert float(voc_ap(given_, truth, 3, "area")[label]) == pytest.approx(area, abs=1e-12)


@pytest.mark.parametrize("unit", [1e-8, 1e8])
def test_the_unit_of_boxes_does_not_matter(unit: float) -> None:
    given_, truth = scene(1, on_grid=False)
    scaled = given_._replace(boxes=given_.boxes * unit), truth._replace(boxes=truth.boxes * unit)
    torch.testing.assert_close(coco_ap(*scaled, 3), coco_ap(given_, truth, 3))
    torch.testing.assert_close(voc_ap(*scaled, 3, "area"), voc_ap(given_, truth, 3, "area"))
