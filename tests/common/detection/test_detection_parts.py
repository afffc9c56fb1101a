import math

import pytest
import torch
from detection_toys import naive_iou, naive_loss, naive_match, naive_suppress, random_corners
from hypothesis import given, settings
from hypothesis import strategies as st
from other_device import DEVICE, Machine
from torch import Tensor

from common.data.detection.boxes import iou_matrix
from common.detection.boxes import counted, to_centres, to_corners
from common.detection.coding import decode, encode
from common.detection.loss import hardest, multibox_loss
from common.detection.matching import match
from common.detection.nms import detections, suppress
from common.detection.priors import prior_boxes, shapes_of_cell

VOC = [10, 20, 37, 54, 71, 88, 105]
MAPS = [(19, 19), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


def pelee_priors() -> Tensor:
    return prior_boxes(MAPS, (304, 304), VOC, [2, 3], whole_pixels=False)


def small_priors() -> Tensor:
    return prior_boxes([(4, 4), (2, 2)], (32, 32), [20, 45, 90], [2], whole_pixels=False)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_targets(boxes: Tensor, labels: Tensor, size: int) -> Tensor:
    return torch.cat([boxes * size, labels[..., None].float(), torch.zeros_like(labels)[..., None]], dim=-1)


def test_pelee_at_304_has_5142_priors_whose_corners_add_up_to_two_each() -> None:
    priors = pelee_priors()
    assert priors.shape == (5142, 4)
    assert float(to_corners(priors).double().sum()) == pytest.approx(5142 * 2, abs=1e-2)


def test_priors_are_those_of_the_loops_of_caffe() -> None:
    expected = []
    for number, (rows, columns) in enumerate(MAPS):
        low, high = (VOC[number + i] / 100 * 304 for i in (0, 1))
        for h in range(rows):
            for w in range(columns):
                x, y = (w + 0.5) * 304 / columns, (h + 0.5) * 304 / rows
                sides = [(low, low), (math.sqrt(low * high),) * 2]
                for ratio in (2, 1 / 2, 3, 1 / 3):
                    sides.append((low * math.sqrt(ratio), low / math.sqrt(ratio)))
                for a, b in sides:
                    expected.append(
                        [(x - a / 2) / 304, (y - b / 2) / 304, (x + a / 2) / 304, (y + b / 2) / 304]
                    )
    torch.testing.assert_close(to_corners(pelee_priors()), torch.tensor(expected), rtol=0, atol=2e-7)


def test_sizes_in_whole_pixels_are_cut_as_in_the_caffe_layer() -> None:
    priors = prior_boxes(MAPS, (304, 304), VOC, [2, 3], whole_pixels=True)
    assert float(priors[0, 2] * 304) == pytest.approx(30)
    assert float(priors[1, 2] * 304) == pytest.approx(math.sqrt(30 * 60), rel=1e-6)
    # 10 % of 300 is 30, whatever floats make of it
    assert float(prior_boxes([(1, 1)], (300, 300), [10, 20], [], True)[0, 2] * 300) == pytest.approx(30)


def test_priors_of_an_oblong_image_are_square_in_pixels() -> None:
    priors = prior_boxes([(3, 5)], (240, 320), [10, 20], [2], whole_pixels=False)
    assert priors.shape == (3 * 5 * 4, 4)
    torch.testing.assert_close(priors[0, 2:] * torch.tensor([320, 240]), torch.tensor([24.0, 24.0]))
    assert priors[4, 0] - priors[0, 0] == pytest.approx(1 / 5)


def test_a_turned_prior_has_the_area_of_the_square() -> None:
    for across, down in shapes_of_cell(30.4, 60.8, [2, 3])[2:]:
        assert across * down == pytest.approx(30.4**2)


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_decoding_undoes_encoding_in_any_unit(unit: float) -> None:
    boxes = to_centres(random_corners(generator(), 500)).double() * unit
    priors = to_centres(random_corners(generator(1), 500)).double() * unit
    torch.testing.assert_close(decode(encode(boxes, priors), priors), boxes, rtol=1e-12, atol=1e-12 * unit)


def test_offsets_are_those_of_the_formula_of_ssd() -> None:
    prior, box = torch.tensor([0.5, 0.5, 0.2, 0.4]), torch.tensor([0.52, 0.46, 0.4, 0.1])
    expected = [0.02 / 0.2 / 0.1, -0.04 / 0.4 / 0.1, math.log(2) / 0.2, math.log(1 / 4) / 0.2]
    torch.testing.assert_close(encode(box, prior), torch.tensor(expected))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.booleans())
def test_matching_is_that_of_the_loops_of_caffe(seed: int, count: int, on_grid: bool) -> None:
    boxes = random_corners(generator(seed), 3, count)
    # on a grid many overlaps are equal, and the order of pairs matters
    boxes = (boxes * 8).round() / 8 if on_grid else boxes
    there = torch.rand(3, count, generator=generator(seed + 1)) < 0.8
    priors = small_priors()
    found = match(boxes, there, priors)
    overlaps = iou_matrix(to_corners(priors).expand(3, -1, -1), boxes)
    for image in range(3):
        columns = there[image].nonzero().flatten()
        wanted = naive_match(overlaps[image][:, columns].tolist(), 0.5)
        assert found.objects[image].tolist() == [int(columns[j]) if j >= 0 else -1 for j in wanted]


def test_every_object_has_a_prior_of_its_own_even_if_it_is_small() -> None:
    corner = torch.rand(1, 20, 2, generator=generator())
    boxes = torch.cat([corner, corner + 0.001], dim=-1) / 1.001
    found = match(boxes, torch.ones(1, 20, dtype=torch.bool), pelee_priors())
    assert set(found.objects[0].tolist()) == {-1, *range(20)}


def test_more_objects_than_priors_leave_some_objects_unmatched_and_no_prior() -> None:
    priors = prior_boxes([(1, 1)], (32, 32), [50, 90], [], whole_pixels=False)
    found = match(random_corners(generator(), 1, 5), torch.ones(1, 5, dtype=torch.bool), priors)
    assert (found.objects >= 0).all()


@pytest.mark.parametrize("count", [0, 3])
def test_images_without_objects_match_nothing(count: int) -> None:
    found = match(torch.zeros(2, count, 4), torch.zeros(2, count, dtype=torch.bool), small_priors())
    assert not found.matched.any()
    assert (found.overlaps == 0).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_is_that_of_plain_loops(seed: int) -> None:
    priors, random = small_priors(), generator(seed)
    boxes, labels = random_corners(random, 3, 4), torch.randint(5, (3, 4), generator=random)
    offsets, logits = (torch.randn(3, len(priors), n, generator=random) for n in (4, 6))
    loss = multibox_loss(offsets, logits, priors, as_targets(boxes, labels, 32), (32, 32), True)
    assert float(loss) == pytest.approx(
        naive_loss(offsets, logits, priors, boxes.tolist(), labels.tolist()), rel=1e-5
    )


def test_the_loss_does_not_depend_on_the_order_of_priors_or_of_padding() -> None:
    priors, random = small_priors(), generator(3)
    targets = as_targets(random_corners(random, 2, 4), torch.randint(5, (2, 4), generator=random), 32)
    offsets, logits = (torch.randn(2, len(priors), n, generator=random) for n in (4, 6))
    order = torch.randperm(len(priors), generator=random)
    padded = torch.cat([torch.tensor([0.0, 0, 0, 0, -1, 0]).expand(2, 2, 6), targets], dim=1)
    loss = multibox_loss(offsets, logits, priors, targets, (32, 32), True)
    shuffled = multibox_loss(offsets[:, order], logits[:, order], priors[order], padded, (32, 32), True)
    torch.testing.assert_close(shuffled, loss)


def test_three_negatives_are_mined_for_each_match_as_far_as_there_are_so_many() -> None:
    losses = torch.rand(3, 20, generator=generator())
    matched = torch.zeros(3, 20, dtype=torch.bool)
    matched[0, :4] = matched[1, :8] = True
    overlaps = torch.zeros(3, 20)
    overlaps[0, 10] = 0.6
    chosen = hardest(losses, matched, overlaps)
    assert chosen.sum(1).tolist() == [12, 12, 3]
    assert not (chosen & matched).any()
    assert not chosen[0, 10]
    free = [i for i in range(20) if not matched[0, i] and i != 10]
    expected = sorted(free, key=lambda i: -float(losses[0, i]))[:12]
    assert sorted(expected) == chosen[0].nonzero().flatten().tolist()


@pytest.mark.parametrize("count", [0, 2])
def test_a_batch_without_objects_teaches_the_background(count: int) -> None:
    priors = small_priors()
    targets = torch.tensor([0.0, 0, 0, 0, -1, 0]).expand(4, count, 6)
    offsets = torch.zeros(4, len(priors), 4, requires_grad=True)
    logits = torch.zeros(4, len(priors), 3, requires_grad=True)
    loss = multibox_loss(offsets, logits, priors, targets, (32, 32), True)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(3 * math.log(3))
    assert logits.grad is not None
    assert (logits.grad[..., 0] < 0).sum() == 12
    assert not offsets.grad.any()  # type: ignore[union-attr]


def test_an_empty_image_beside_full_ones_adds_its_three_hardest_negatives() -> None:
    priors, random = small_priors(), generator(5)
    targets = as_targets(random_corners(random, 2, 3), torch.randint(2, (2, 3), generator=random), 32)
    targets[1, :, 4] = -1
    offsets, logits = (torch.randn(2, len(priors), n, generator=random) for n in (4, 3))
    matched = int(match(targets[:, :, :4] / 32, targets[..., 4] >= 0, priors).matched.sum())
    alone = multibox_loss(offsets[:1], logits[:1], priors, targets[:1], (32, 32), True) * matched
    hard = (-logits[1].log_softmax(-1)[:, 0]).topk(3).values.sum()
    both = multibox_loss(offsets, logits, priors, targets, (32, 32), True)
    torch.testing.assert_close(both, (alone + hard) / (matched + 1))


def test_difficult_objects_are_left_out_where_they_are_not_trained_on() -> None:
    priors, random = small_priors(), generator(6)
    targets = as_targets(random_corners(random, 1, 3), torch.randint(2, (1, 3), generator=random), 32)
    offsets, logits = (torch.randn(1, len(priors), n, generator=random) for n in (4, 3))
    fewer = multibox_loss(offsets, logits, priors, targets[:, :2], (32, 32), True)
    targets[0, 2, 5] = 1
    torch.testing.assert_close(multibox_loss(offsets, logits, priors, targets, (32, 32), False), fewer)
    assert not torch.allclose(multibox_loss(offsets, logits, priors, targets, (32, 32), True), fewer)


def test_boxes_without_area_are_not_trained_on() -> None:
    targets = torch.tensor([[[3.0, 3, 3, 9, 0, 0], [5, 5, 2, 9, 0, 0], [1, 1, 2, 2, 0, 0]]])
    assert counted(targets, True).tolist() == [[False, False, True]]


def as_the_loop(boxes: Tensor, there: Tensor, iou: float) -> None:
    """Suppression keeps of each group what the loop keeps, and no padding."""
    kept = suppress(boxes, there, iou)
    assert kept.shape == there.shape and kept.dtype == torch.bool and not kept[~there].any()
    groups = zip(boxes.flatten(0, -3), there.flatten(0, -2), kept.flatten(0, -2), strict=True)
    for some, present, stays in groups:
        assert stays[present].tolist() == naive_suppress(some[present].tolist(), iou)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 70),
    st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_suppression_is_that_of_a_loop(
    seed: int, count: int, iou: float, on_grid: bool, dtype: torch.dtype
) -> None:
    boxes = random_corners(generator(seed), 2, 3, count).to(dtype)
    boxes = (boxes * 8).round() / 8 if on_grid else boxes
    as_the_loop(boxes, torch.rand(2, 3, count, generator=generator(seed + 1)) < 0.9, iou)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_suppression_asks_for_no_unit(scale: float) -> None:
    boxes = random_corners(generator(11), 4, 60)
    there = torch.ones(4, 60, dtype=torch.bool)
    # powers of two change no rounding
    power = 2.0 ** round(math.log2(scale))
    assert torch.equal(suppress(power * boxes, there, 0.45), suppress(boxes, there, 0.45))
    as_the_loop(scale * boxes.double(), there, 0.45)


def test_suppression_reads_boxes_wherever_they_lie_and_of_any_type() -> None:
    boxes = (16 * random_corners(generator(12), 4, 3, 40)).round()
    there = torch.rand(4, 3, 40, generator=generator(13)) < 0.9
    wanted = suppress(boxes, there, 0.3)
    across = boxes.permute(3, 1, 2, 0).contiguous().permute(3, 1, 2, 0)
    flags = there.transpose(0, 2).contiguous().transpose(0, 2)
    assert not across.is_contiguous() and torch.equal(suppress(across, flags, 0.3), wanted)
    for dtype in (torch.bfloat16, torch.float16, torch.float64, torch.int64):
        assert torch.equal(suppress(boxes.to(dtype), there, 0.3), wanted)
    assert torch.equal(suppress(boxes.clone().requires_grad_(), there, 0.3), wanted)
    assert torch.equal(suppress(boxes[0, 0], there[0, 0], 0.3), wanted[0, 0])


def test_suppression_of_boxes_elsewhere_is_given_there() -> None:
    boxes, there = random_corners(generator(14), 2, 3, 40), torch.ones(2, 3, 40, dtype=torch.bool)
    with Machine():
        kept = suppress(boxes.to(DEVICE), there.to(DEVICE), 0.3)
    assert kept.device.type == torch.device(DEVICE).type
    assert kept.tolist() == suppress(boxes, there, 0.3).tolist()


def test_suppression_takes_no_boxes_and_boxes_without_area() -> None:
    for shape in ((2, 3, 0), (0, 3, 5), (0,)):
        assert suppress(torch.zeros(*shape, 4), torch.zeros(*shape, dtype=torch.bool), 0.5).shape == shape
    same = torch.zeros(1, 4, 4)
    assert suppress(same, torch.ones(1, 4, dtype=torch.bool), 0.5).all()
    inside_out = torch.tensor([[0.8, 0.8, 0.2, 0.2], [0.2, 0.2, 0.8, 0.8], [0.5, 0.1, 0.5, 0.9]])
    for iou in (0.0, 0.5):
        as_the_loop(inside_out[None], torch.ones(1, 3, dtype=torch.bool), iou)


def test_boxes_that_are_not_numbers_stay_and_suppress_none() -> None:
    boxes = random_corners(generator(15), 4, 60)
    for place, wrong in enumerate((math.nan, math.inf, -math.inf)):
        boxes[:, place::20, place % 4] = wrong
    as_the_loop(boxes, torch.ones(4, 60, dtype=torch.bool), 0.2)
    assert suppress(boxes, torch.ones(4, 60, dtype=torch.bool), 0.2)[:, 0::20].all()


def test_detections_are_those_of_plain_loops() -> None:
    priors, random = small_priors(), generator(8)
    offsets, logits = (
        torch.randn(2, len(priors), 4, generator=random),
        torch.randn(2, len(priors), 4, generator=random),
    )
    found = detections(offsets, logits, priors, score=0.2, top=30, iou=0.45, keep=12)
    boxes, scores = to_corners(decode(offsets, priors)), logits.softmax(-1)
    for image in range(2):
        rows = []
        for label in range(3):
            p = scores[image, :, label + 1]
            order = [i for i in p.argsort(descending=True).tolist() if float(p[i]) > 0.2][:30]
            kept = naive_suppress([boxes[image, i].tolist() for i in order], 0.45)
            rows += [(float(p[i]), label, i) for i, stays in zip(order, kept, strict=True) if stays]
        rows = sorted(rows, reverse=True)[:12]
        assert found[image].labels.tolist() == [label for _, label, _ in rows]
        torch.testing.assert_close(found[image].scores, torch.tensor([score for score, _, _ in rows]))
        expected = boxes[image, [i for _, _, i in rows]].clamp(0, 1)
        torch.testing.assert_close(found[image].boxes, expected)


def test_nothing_found_is_an_empty_list_of_boxes() -> None:
    priors = small_priors()
    logits = torch.zeros(2, len(priors), 3)
    logits[..., 0] = 20
    found = detections(torch.zeros(2, len(priors), 4), logits, priors, score=0.01, top=9, iou=0.5, keep=9)
    assert [tuple(one.boxes.shape) for one in found] == [(0, 4), (0, 4)]
    assert [len(one.labels) + len(one.scores) for one in found] == [0, 0]


def test_iou_is_that_of_the_formula() -> None:
    one, other = random_corners(generator(), 5), random_corners(generator(1), 6)
    expected = [[naive_iou(a, b) for b in other.tolist()] for a in one.tolist()]
    torch.testing.assert_close(iou_matrix(one, other), torch.tensor(expected))
