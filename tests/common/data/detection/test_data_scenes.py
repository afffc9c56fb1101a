"""Composed scenes: what images show is what pairs, boxes and masks say; parts share no digit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from common.base.errors import UserError
from common.data.detection import scenes
from common.data.detection.boxes import is_box
from common.data.detection.scenes import Composed

Make = Callable[..., Any]
NAMES = ["multi_digits", "digit_scenes", "digit_masks"]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 training and 100 test examples."""
    monkeypatch.setattr(Composed, "TRAIN_SIZE", 200)
    monkeypatch.setattr(Composed, "TEST_SIZE", 100)


def composed(make: Make, name: str, **overrides: Any) -> Any:
    data = make(name, **overrides)
    data.setup()
    return data


def test_the_training_and_test_pools_are_all_digits_and_share_none() -> None:
    train, test = scenes.pool("train"), scenes.pool("test")
    assert (len(train.labels), len(test.labels)) == (1300, 497)
    digits = load_digits()
    assert torch.cat([train.labels, test.labels]).tolist() == digits.target.tolist()
    assert torch.equal(torch.cat([train.images, test.images]), torch.from_numpy(digits.images).byte())


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_pair_is_the_larger_of_two_digits_of_its_labels(make: Make, few: None, part: str) -> None:
    data = composed(make, "multi_digits")
    split, pool = getattr(data, part), scenes.pool(part)  # type: ignore[arg-type]
    assert split.inputs.shape[1:] == (1, 11, 11) and split.targets.shape == (len(split), 2)
    for image, (left, right) in list(zip(split.inputs[:, 0], split.targets.tolist(), strict=True))[:30]:
        ones, others = pool.images[pool.labels == left], pool.images[pool.labels == right]
        # outside the other's cell a pixel is the digit's own; there are few that fit, one is the digit
        ones = ones[(ones[:, :3] == image[:3, :8]).flatten(1).all(1)]
        others = others[(others[:, 5:] == image[8:, 3:]).flatten(1).all(1)]
        assert any(torch.equal(overlaid(one, other), image) for one in ones for other in others)


def overlaid(left: Tensor, right: Tensor) -> Tensor:
    canvas = torch.zeros(2, 11, 11, dtype=torch.uint8)
    canvas[0, :8, :8], canvas[1, 3:, 3:] = left, right
    return canvas.amax(0)


def test_pairs_number_6000_and_3000_with_every_digit_on_both_sides(make: Make) -> None:
    data = composed(make, "multi_digits")
    assert (data.size("train"), data.size("test")) == (6000, 3000)
    for task in range(2):
        assert data.train.targets[:, task].bincount(minlength=10).min() > 450
    assert abs(data.train.inputs.float().mean() / 16 - data.MEAN[0]) < 1e-4
    assert abs(data.train.inputs.float().std() / 16 - data.STD[0]) < 1e-4


def test_each_number_of_digits_is_as_frequent(make: Make) -> None:
    counts = is_box(composed(make, "digit_scenes").train.targets).sum(1).bincount(minlength=6)
    # 1,200 each, less the few that found no place
    assert counts[0] == 0 and counts[1:].min() > 1050 and counts[1:].max() < 1350


def test_boxes_are_tight_around_all_ink_and_masks_name_it(make: Make, few: None) -> None:
    found, named = composed(make, "digit_scenes"), composed(make, "digit_masks")
    assert torch.equal(found.train.inputs, named.train.inputs)
    examples = zip(found.train.inputs[:, 0], found.train.targets, named.train.targets, strict=True)
    for image, target, mask in examples:
        assert torch.equal(mask > 0, image > 0)
        rows = target[is_box(target)]
        covered = torch.zeros_like(mask, dtype=torch.bool)
        for x0, y0, x1, y1, _, difficult in rows.int().tolist():
            inside = image[y0:y1, x0:x1]
            assert difficult == 0 and inside.shape == (y1 - y0, x1 - x0)
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert (edge > 0).any()
            covered[y0:y1, x0:x1] = True
        assert (mask[~covered] == 0).all()
        assert set(mask.unique().tolist()) - {0} == {int(label) + 1 for label in rows[:, 4]}


def test_a_lone_digit_is_drawn_with_its_own_pixels_label_and_box(make: Make, few: None) -> None:
    data = composed(make, "digit_scenes", digits=1)
    pool = scenes.pool("train")
    for image, (row,) in zip(data.train.inputs[:20, 0], data.train.targets[:20], strict=True):
        x0, y0, x1, y1, label, _ = row.int().tolist()
        assert image.count_nonzero() == image[y0:y1, x0:x1].count_nonzero()
        same = [
            torch.equal(digit[rows][:, columns], image[y0:y1, x0:x1])
            for digit in pool.images[pool.labels == label]
            for rows, columns in [ink_lines(digit)]
        ]
        assert any(same)


def ink_lines(digit: Tensor) -> tuple[Tensor, Tensor]:
    """The rows and columns from the first to the last with ink."""
    lines = [(digit > 0).any(dim).nonzero().flatten() for dim in (1, 0)]
    rows, columns = (torch.arange(int(line[0]), int(line[-1]) + 1) for line in lines)
    return rows, columns


def test_where_digits_overlap_the_mask_names_the_one_that_shows() -> None:
    one = torch.zeros(2, 8, 8, dtype=torch.uint8)
    one[0, :, 2:6], one[1, :, 3:5] = 5, 9
    made = scenes.compose(
        scenes.Pool(one, torch.tensor([4, 7])), 200, 8, 2, 0.999, torch.Generator().manual_seed(0)
    )
    # on a canvas of one cell only one digit finds a place; on 9 pixels both do, overlapping
    assert (is_box(made.boxes).sum(1) == 1).all()
    made = scenes.compose(
        scenes.Pool(one, torch.tensor([4, 7])), 200, 9, 2, 0.999, torch.Generator().manual_seed(0)
    )
    assert (is_box(made.boxes).sum(1) == 2).any()
    expected = torch.tensor([0] * 5 + [5] + [0] * 3 + [8])[made.images[:, 0].long()]
    assert torch.equal(made.masks, expected)


@pytest.mark.parametrize("overlap", [0.0, 0.25])
def test_cells_share_no_more_than_the_limit(overlap: float) -> None:
    corners, fits = scenes.place(500, 5, 32, overlap, torch.Generator().manual_seed(0))
    assert fits[:, 0].all() and fits.float().mean() > 0.9
    assert corners.min() == 0 and corners.max() == 24
    apart = (corners[:, :, None] - corners[:, None]).abs()
    shared = (8 - apart).clamp_min(0).prod(-1)
    both = fits[:, :, None] & fits[:, None] & ~torch.eye(5, dtype=torch.bool)
    assert shared[both].max() <= overlap * 64
    assert overlap == 0 or shared[both].max() > 0


@pytest.mark.parametrize("name", NAMES)
def test_the_sets_are_the_same_whatever_the_seed_of_the_run(make: Make, few: None, name: str) -> None:
    first, second = composed(make, name, seed=0), composed(make, name, seed=1)
    for part in ("train", "test"):
        one, other = getattr(first, part), getattr(second, part)
        assert torch.equal(one.inputs, other.inputs) and torch.equal(one.targets, other.targets)
    assert not torch.equal(first.train.inputs[:100], first.test.inputs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("source", ["real", "synthetic"])
def test_a_batch_has_normalised_images_and_targets_as_they_are(
    make: Make, few: None, name: str, source: str
) -> None:
    data = composed(make, name, source=source, batch_size=32)
    inputs, targets = data.batch("train", torch.arange(7), augment=True)
    stored = data.train.targets[:7]
    assert inputs.shape == (7, *data.shape) and inputs.dtype == torch.float32
    assert torch.equal(targets, stored) and targets.dtype == stored.dtype
    everything, _ = data.batch("train", slice(None), augment=False)
    if source == "real":
        assert abs(everything.mean()) < 0.1 and abs(everything.std() - 1) < 0.1
    check_targets(name, data)


def check_targets(name: str, data: Any) -> None:
    targets = data.train.targets
    if name == "digit_scenes":
        rows = targets[is_box(targets)]
        assert targets.dtype == torch.float32 and targets.shape[1:] == (5, 6)
        assert (rows[:, :2] >= 0).all() and (rows[:, 2:4] <= 32).all() and (rows[:, 2:4] > rows[:, :2]).all()
        assert set(rows[:, 4].tolist()) == set(range(10))
    else:
        assert targets.dtype == torch.int64
        assert targets.shape[1:] == ((2,) if name == "multi_digits" else (32, 32))
        assert targets.min() == 0 and targets.max() == data.classes - 1


@pytest.mark.parametrize("name", NAMES)
def test_a_subset_and_a_validation_split_keep_inputs_with_their_targets(
    make: Make, few: None, name: str
) -> None:
    whole, part = composed(make, name), composed(make, name, limit=50, validation=0.2)
    assert (part.size("train"), part.size("validation")) == (40, 10)
    where = {image.numpy().tobytes(): i for i, image in enumerate(whole.train.inputs)}
    for image, target in zip(part.train.inputs, part.train.targets, strict=True):
        assert torch.equal(whole.train.targets[where[image.numpy().tobytes()]], target)


def test_other_canvases_have_their_shape_before_anything_is_read(make: Make, few: None) -> None:
    data = make("digit_masks", side=20, digits=2)
    assert data.shape == (1, 20, 20)
    data.setup()
    assert data.train.inputs.shape == (200, 1, 20, 20) and data.train.targets.shape == (200, 20, 20)


BAD = [("side", 7, "at least 8"), ("digits", 0, "at least 1"), ("overlap", 1.0, "below 1")]


@pytest.mark.parametrize(("key", "value", "advice"), BAD)
def test_a_value_out_of_range_is_refused_in_one_line(make: Make, key: str, value: Any, advice: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.{key}={value}: .*{advice}[^\n]*$"):
        make("digit_scenes", **{key: value})


@pytest.mark.parametrize("name", NAMES)
def test_two_classes_cannot_be_asked_of_many_labels(make: Make, name: str) -> None:
    with pytest.raises(UserError, match=rf"^dataset\.positive=\[1\]: {name} has many labels"):
        make(name, positive=[1])
