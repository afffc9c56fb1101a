import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.data.detection.scenes import DigitScenes
from common.detection.loss import multibox_loss
from common.detection.priors import prior_boxes
from common.training.detection import Detection, check_labels
from common.training.task_of import task_of

PRIORS = prior_boxes([(16, 16), (8, 8)], (32, 32), [16, 22, 30], [1.5, 2], whole_pixels=False)


def scenes(**overrides: Any) -> DigitScenes:
    options: dict[str, Any] = {
        "kind": "detection", "data_dir": "unused", "seed": 0, "source": "real", "limit": 12,
        "validation": 0.0, "normalise": "standard", "verify": True,
        "batch_size": 4, "positive": None, "augment": "none",
        "side": 32, "digits": 3, "overlap": 0.0,
    }  # fmt: skip
    data = DigitScenes(**options | overrides)
    data.setup()
    return data


class Told(nn.Module):
    """A detector that is told the answers: its outputs are those of the targets it was given."""

    task = "detection"

    def __init__(self, offsets: Tensor, logits: Tensor) -> None:
        super().__init__()
        self.register_buffer("priors", PRIORS)
        self.outputs = offsets, logits
        self.weight = nn.Parameter(torch.zeros(()))
        self.at = 0

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        part = slice(self.at, self.at + len(images))
        self.at = part.stop % len(self.outputs[0])
        return self.outputs[0][part] + self.weight, self.outputs[1][part]


def perfect(targets: Tensor, classes: int = 10) -> Told:
    """Finds every object of the targets by the prior that is matched to it first, and nothing else."""
    from common.detection.boxes import to_centres
    from common.detection.coding import encode
    from common.detection.matching import match

    there = targets[..., 4] >= 0
    matches = match(targets[..., :4] / 32, there, PRIORS, threshold=1.1)
    offsets, logits = torch.zeros(len(targets), len(PRIORS), 4), torch.zeros(len(targets), len(PRIORS), 11)
    logits[..., 0] = 15
    for image, prior in matches.matched.nonzero().tolist():
        row = targets[image, matches.objects[image, prior]]
        offsets[image, prior] = encode(to_centres(row[:4] / 32), PRIORS[prior])
        logits[image, prior, 0], logits[image, prior, int(row[4]) + 1] = 0, 15
    return Told(offsets, logits)


def test_a_network_that_knows_the_answers_has_a_hundred_percent() -> None:
    data = scenes()
    _, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    found = Detection(data).evaluate(perfect(targets), data, "train")
    measures = {"train_map", "train_map50", "train_map75", "train_voc_map", "train_voc_area_map"}
    assert found.keys() == measures | {"train_loss"}
    assert [found[name] for name in measures] == [pytest.approx(100.0)] * 5
    # priors beside the first one overlap the objects too, and were told nothing of them
    assert 0 < found["train_loss"] < math.inf


def test_what_is_found_beside_the_objects_costs_precision() -> None:
    data = scenes()
    _, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    model = perfect(targets)
    # a false alarm of each class in each image, surer than all that is right
    model.outputs[1][:, -10:, 0] = 0
    model.outputs[1][:, -10:, 1:] = 20 * torch.eye(10)
    found = Detection(data).evaluate(model, data, "train")
    assert found["train_map50"] < 70


def test_the_loss_of_a_batch_is_that_of_ssd_in_pixels() -> None:
    data = scenes()
    inputs, targets = data.batch("train", slice(0, 4), augment=False)
    assert targets is not None
    random = torch.Generator().manual_seed(0)
    outputs = tuple(torch.randn(4, len(PRIORS), n, generator=random) for n in (4, 11))
    model = Told(*outputs)
    loss = Detection(data).loss(model, inputs, targets)
    torch.testing.assert_close(loss, multibox_loss(*outputs, PRIORS, targets, (32, 32), True))
    loss.backward()
    assert model.weight.grad is not None and model.weight.grad != 0


def test_the_loss_of_a_split_does_not_depend_on_its_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    data = scenes()
    random = torch.Generator().manual_seed(0)
    outputs = tuple(torch.randn(12, len(PRIORS), n, generator=random) for n in (4, 11))
    losses = []
    for batch in (12, 5):
        monkeypatch.setattr(DigitScenes, "EVALUATION_BATCH", batch)
        losses.append(Detection(data).evaluate(Told(*outputs), data, "train")["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_objects_without_area_are_neither_learned_nor_looked_for() -> None:
    task = Detection(scenes())
    targets = torch.tensor([[[3.0, 3, 3, 9, 0, 0], [1, 1, 9, 9, 2, 1], [0, 0, 0, 0, -1, 0]]])
    ((boxes, labels, ignored),) = task._objects(targets)
    assert boxes.tolist() == [[1 / 32, 1 / 32, 9 / 32, 9 / 32]]
    assert labels.tolist() == [2] and ignored.tolist() == [True]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([[1.0, 1, 9, 9, 10, 0]], "the label 10, and there are 10 classes .valid: 0 to 9; labels begin at 0"),
        ([[1.0, 1, 9, 9, -1, 0], [1, 1, 9, 9, 3, 0]], "the label -1, and there are 10 classes"),
        ([[1.0, 1, 9, 9, -2, 0]], "the label -2"),
    ],
)
def test_labels_that_begin_elsewhere_are_refused(rows: list[list[float]], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        check_labels(torch.tensor([rows]), 10)
    assert "\n" not in str(error.value)


def test_labels_from_0_and_padding_are_taken() -> None:
    check_labels(torch.tensor([[[1.0, 1, 9, 9, 0, 0], [1, 1, 9, 9, 9, 0], [0, 0, 0, 0, -1, 0]]]), 10)
    check_labels(torch.zeros(2, 0, 6), 10)


def test_a_detector_has_the_task_of_detection() -> None:
    assert isinstance(task_of(perfect(torch.zeros(1, 0, 6)), scenes(), "mean"), Detection)


def test_a_gradient_over_the_split_is_refused() -> None:
    with pytest.raises(UserError, match="no such measure for detection"):
        Detection(scenes()).full_gradient_norm_sq(nn.Identity(), scenes())


def test_an_untrained_detector_has_a_finite_loss_on_scenes_without_objects() -> None:
    data = scenes()
    inputs, targets = data.batch("train", slice(0, 4), augment=False)
    assert targets is not None
    empty = torch.zeros_like(targets)
    empty[..., 4] = -1
    outputs = torch.zeros(4, len(PRIORS), 4), torch.zeros(4, len(PRIORS), 11)
    assert float(Detection(data).loss(Told(*outputs), inputs, empty).detach()) == pytest.approx(
        3 * math.log(11)
    )
