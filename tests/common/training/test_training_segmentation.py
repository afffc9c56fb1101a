import importlib
import math
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from common.base.dataset import DataSet, SplitName
from common.base.errors import UserError
from common.data.shared.streamed import StreamedData
from common.training import segmentation
from common.training.segmentation import Confusion, Segmentation, Views, mean_iou, nearest, pixel_accuracy

CONF = Path(__file__).resolve().parents[3] / "conf" / "dataset"
VOID = 255
CPU = torch.device("cpu")


class Net(nn.Module):
    """Normalisation, dropout and one convolution, whose stride is the coarseness of the logits."""

    task: ClassVar = "segmentation"

    def __init__(self, channels: int, logits: int, stride: int = 1) -> None:
        super().__init__()
        convolution = nn.Conv2d(channels, logits, stride, stride)
        self.layers = nn.Sequential(nn.BatchNorm2d(channels), nn.Dropout(0.5), convolution)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Penalised(Net):
    def penalty(self) -> Tensor:
        return torch.tensor(3.0)


@pytest.fixture(autouse=True)
def uneven_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 10: every split used here ends in a smaller one."""
    monkeypatch.setattr(DataSet, "EVALUATION_BATCH", 10)
    monkeypatch.setattr(StreamedData, "EVALUATION_BATCH", 10)
    torch.manual_seed(0)


def dataset(name: str, **overrides: Any) -> DataSet:
    """A set up data set from its YAML file."""
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    config |= {"data_dir": "unused", "seed": 0} | overrides
    module, _, cls = config.pop("_target_").rpartition(".")
    data: DataSet = getattr(importlib.import_module(module), cls)(**config)
    data.setup()
    return data


def holey(limit: int = 23) -> DataSet:
    """Random images of 16x24 pixels with squares of 11 classes and of void."""
    return dataset("camvid", source="synthetic", limit=limit, size=[16, 24], augment="none", workers=0)


def whole(model: nn.Module, data: DataSet, split: SplitName) -> tuple[Tensor, Tensor]:
    """Logits in evaluation mode and targets of a whole split at once."""
    inputs, targets = data.batch(split, slice(None), augment=False)
    assert targets is not None
    with torch.no_grad():
        logits = model.eval()(inputs)
    model.train()
    return logits, targets


# --- the loss


@pytest.mark.parametrize("constant", [None, 1.02, 1.2])
def test_the_loss_is_weighted_cross_entropy_without_void(constant: float | None) -> None:
    data = holey()
    task = Segmentation(data, constant)
    logits = torch.randn(4, 11, 16, 24, requires_grad=True)
    inputs, targets = data.batch("train", slice(0, 4), augment=False)
    assert targets is not None
    loss = task.loss_of(nn.Identity(), logits, inputs, targets)
    expected = F.cross_entropy(logits, targets, task.weights()[:11], ignore_index=VOID)
    torch.testing.assert_close(loss, expected)
    own, wanted = (torch.autograd.grad(value, logits)[0] for value in (loss, expected))
    torch.testing.assert_close(own, wanted)


def test_weights_follow_enets_rule_from_shares_of_all_pixels() -> None:
    data = holey()
    _, targets = data.batch("train", slice(None), augment=False)
    assert targets is not None
    pixels = targets.numpy()
    assert (pixels == VOID).any()
    shares = np.array([(pixels == label).mean() for label in range(11)])
    weights = Segmentation(data, 1.1).weights()
    np.testing.assert_allclose(weights[:11], 1 / np.log(1.1 + shares), rtol=1e-6)
    assert not weights[11:].any()
    assert Segmentation(data, None).weights()[:11].tolist() == [1.0] * 11


def test_the_weights_take_no_random_numbers() -> None:
    state = torch.get_rng_state()
    Segmentation(holey(), 1.1).weights()
    assert torch.equal(state, torch.get_rng_state())


def test_a_class_that_does_not_occur_weighs_most() -> None:
    weights = segmentation.class_weights(torch.tensor([0.5, 0.0, 0.1]), 1.1)
    assert weights.argmax() == 1
    assert weights[1].item() == pytest.approx(1 / math.log(1.1))


@pytest.mark.parametrize("extra", [0, 1])
def test_void_pixels_change_nothing(extra: int) -> None:
    data = holey()
    task, generator = Segmentation(data, 1.1), torch.Generator().manual_seed(3)
    inputs, targets = data.batch("train", slice(0, 5), augment=False)
    assert targets is not None
    void = targets == VOID
    assert void.any()
    logits = torch.randn(5, 11 + extra, 16, 24, generator=generator)
    other = torch.where(void[:, None], 100 * torch.randn(logits.shape, generator=generator), logits)
    found = []
    for given_logits in (logits, other):
        given_logits.requires_grad_(True)
        loss = task.loss_of(nn.Identity(), given_logits, inputs, targets)
        (gradient,) = torch.autograd.grad(loss, given_logits)
        assert not gradient.movedim(1, -1)[void].any()
        confusion = Confusion(11, CPU)
        confusion.update(given_logits.argmax(1), targets)
        found.append((loss.item(), confusion.counts))
        assert confusion.counts.sum() == (~void).sum()
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.equal(found[0][1], found[1][1])


def test_a_minibatch_of_void_alone_has_no_loss_and_no_gradient() -> None:
    logits = torch.randn(2, 11, 16, 24, requires_grad=True)
    targets = torch.full((2, 16, 24), VOID)
    loss = Segmentation(holey(), 1.1).loss_of(nn.Identity(), logits, logits, targets)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == 0.0
    assert not gradient.any()


def test_the_models_own_penalty_is_added_once() -> None:
    data = holey()
    model = Penalised(3, 11)
    plain = Net(3, 11)
    plain.load_state_dict(model.state_dict())
    task = Segmentation.of(model, data)
    inputs, targets = data.batch("train", slice(0, 5), augment=False)
    with_it, without = (task.loss(m.eval(), inputs, targets).item() for m in (model, plain))
    assert with_it - without == pytest.approx(3.0, abs=1e-5)
    with_it, without = (task.evaluate(m, data, "train")["train_loss"] for m in (model, plain))
    assert with_it - without == pytest.approx(3.0, abs=1e-5)


# --- coarse logits


@given(
    cells=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    factors=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    seed=st.integers(0, 2**31),
)
def test_targets_are_subsampled_as_pytorch_and_pillow_do(
    cells: tuple[int, int], factors: tuple[int, int], seed: int
) -> None:
    # whole factors alone: with others both round the middle of a cell to the left at times
    sizes = cells[0] * factors[0], cells[1] * factors[1]
    targets = torch.randint(0, 256, (2, *sizes), generator=torch.Generator().manual_seed(seed))
    found = nearest(targets, cells)
    exact = F.interpolate(targets[:, None].double(), cells, mode="nearest-exact")[:, 0]
    assert torch.equal(found, exact.long())
    image = Image.fromarray(targets[0].byte().numpy())
    resized = image.resize(cells[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(found[0].numpy(), np.array(resized))


@given(have=st.integers(1, 60), want=st.integers(1, 20))
def test_a_subsampled_pixel_holds_the_middle_of_its_cell(have: int, want: int) -> None:
    targets = torch.arange(have).view(1, 1, have)
    middles = [math.floor(Fraction(2 * cell + 1, 2) * Fraction(have, want)) for cell in range(want)]
    assert nearest(targets, (1, want)).flatten().tolist() == middles


def test_coarse_logits_are_compared_with_subsampled_targets() -> None:
    data = holey()
    model = Net(3, 11, stride=8)
    task = Segmentation.of(model, data)
    logits, targets = whole(model, data, "train")
    assert logits.shape == (23, 11, 2, 3)
    coarse = targets[:, 4::8, 4::8]
    found = task.evaluate(model, data, "train")
    assert found["train_loss"] == pytest.approx(
        F.cross_entropy(logits, coarse, ignore_index=VOID).item(), rel=1e-5
    )
    hits = (logits.argmax(1) == coarse).sum() / (coarse != VOID).sum()
    assert found["train_pixel_accuracy"] == pytest.approx(hits.item(), rel=1e-6)


# --- the measures


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("constant", [None, 1.1])
def test_measures_of_a_split_are_those_of_torchmetrics_over_all_its_pixels(
    split: SplitName, constant: float | None
) -> None:
    data = holey()
    model = Net(3, 11)
    task = Segmentation(data, constant)
    logits, targets = whole(model, data, split)
    iou = MulticlassJaccardIndex(11, average="macro", ignore_index=VOID)(logits, targets).item()
    accuracy = MulticlassAccuracy(11, average="micro", ignore_index=VOID)(logits, targets).item()
    loss = F.cross_entropy(logits, targets, task.weights()[:11], ignore_index=VOID).item()
    assert task.evaluate(model, data, split) == {
        f"{split}_loss": pytest.approx(loss, rel=1e-5),
        f"{split}_mean_iou": pytest.approx(iou, rel=1e-5),
        f"{split}_pixel_accuracy": pytest.approx(accuracy, rel=1e-5),
        f"{split}_class_iou": pytest.approx(100 * iou, rel=1e-5),
    }
    assert model.training


@given(
    classes=st.integers(2, 6),
    pixels=st.integers(1, 40),
    present=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_measures_are_torchmetrics_where_classes_are_absent(
    classes: int, pixels: int, present: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    given_to = torch.randint(0, min(present, classes), (1, pixels), generator=generator)
    wanted = torch.randint(0, classes, (1, pixels), generator=generator)
    wanted[:, ::3] = VOID
    wanted[:, -1] = 0
    confusion = Confusion(classes, CPU)
    confusion.update(given_to, wanted)
    jaccard = MulticlassJaccardIndex(classes, average="macro", ignore_index=VOID)
    accuracy = MulticlassAccuracy(classes, average="micro", ignore_index=VOID)
    assert mean_iou(confusion.counts) == pytest.approx(jaccard(given_to, wanted).item(), rel=1e-5)
    assert pixel_accuracy(confusion.counts) == pytest.approx(accuracy(given_to, wanted).item(), rel=1e-5)


def test_measures_by_hand() -> None:
    wanted = torch.tensor([[0, 0, 0, 1], [1, 2, VOID, VOID]])
    # 4 is a logit of no class; class 3 neither occurs nor is given
    given_to = torch.tensor([[0, 0, 1, 1], [4, 1, 2, 0]])
    confusion = Confusion(4, CPU)
    confusion.update(given_to, wanted)
    assert confusion.counts.tolist() == [[2, 1, 0, 0, 0], [0, 1, 0, 0, 1], [0, 1, 0, 0, 0], [0] * 5]
    # class 0: 2 of 3; class 1: 1 of (2 wanted + 3 given - 1); class 2: 0 of 1
    assert mean_iou(confusion.counts) == pytest.approx((2 / 3 + 1 / 4 + 0) / 3)
    assert pixel_accuracy(confusion.counts) == 3 / 6


def test_nothing_but_void_has_no_measures() -> None:
    confusion = Confusion(3, CPU)
    confusion.update(torch.zeros(2, 2, dtype=torch.int64), torch.full((2, 2), VOID))
    assert math.isnan(mean_iou(confusion.counts))
    assert math.isnan(pixel_accuracy(confusion.counts))


def test_a_split_may_go_through_the_network_image_by_image(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = holey(), Net(3, 12)
    task = Segmentation(data, 1.1)
    at_once = task.evaluate(model, data, "train")
    monkeypatch.setattr(segmentation, "PIXELS", 1)
    assert task.evaluate(model, data, "train") == pytest.approx(at_once, rel=1e-5)


def test_grey_scenes_in_memory_are_judged_alike() -> None:
    data = dataset("digit_masks", limit=35)
    model = Net(1, 11)
    logits, targets = whole(model, data, "train")
    found = Segmentation(data, None).evaluate(model, data, "train")
    assert found["train_loss"] == pytest.approx(F.cross_entropy(logits, targets).item(), rel=1e-5)
    hits = (logits.argmax(1) == targets).float().mean().item()
    assert found["train_pixel_accuracy"] == pytest.approx(hits, rel=1e-5)


# --- several views of an image


class Uneven(nn.Module):
    """Logits that depend on the place, so that a mirrored image is seen otherwise."""

    def forward(self, images: Tensor) -> Tensor:
        ramp = torch.linspace(0, 1, images.shape[3]) * images.mean(1, keepdim=True)
        return torch.cat([ramp, 0.3 - ramp, images[:, :1]], 1)


@pytest.mark.parametrize("scales", [(1.0,), (0.5, 1.0, 1.75)])
def test_views_are_the_mean_of_the_probabilities(scales: tuple[float, ...]) -> None:
    torch.manual_seed(0)
    images, model = torch.randn(2, 3, 17, 25), Uneven()
    wanted = torch.zeros(2, 3, 17, 25)
    for scale in scales:
        size = (1 + int(16 * scale), 1 + int(24 * scale))
        scaled = F.interpolate(images, size=size, mode="bilinear", align_corners=True)
        for seen, back in ((scaled, lambda t: t), (scaled.flip(3), lambda t: t.flip(3))):
            logits = F.interpolate(back(model(seen)), size=(17, 25), mode="bilinear", align_corners=True)
            wanted += logits.softmax(1) / (2 * len(scales))
    torch.testing.assert_close(Views(scales, True).logits(model, images).exp(), wanted)


def test_one_view_is_the_networks_own_logits() -> None:
    images, model = torch.randn(2, 3, 17, 25), Uneven()
    assert torch.equal(Views().logits(model, images), model(images))


def test_a_model_says_how_it_is_judged() -> None:
    model = Net(1, 11)
    model.test_scales, model.test_flip = (0.5, 1.0), True  # type: ignore[assignment]
    task = Segmentation.of(model, dataset("digit_masks", limit=35))
    assert (task.views.scales, task.views.flip) == ((0.5, 1.0), True)


@pytest.mark.parametrize("scales", [[], [0.0], [1.0, -1.0], [float("nan")], [float("inf")]])
def test_scales_that_mean_nothing_are_refused(scales: list[float]) -> None:
    with pytest.raises(UserError, match=r"model\.test_scales"):
        Views(scales)


def test_a_class_that_is_missing_from_a_split_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    data = holey()
    task, model = Segmentation(data, None), Net(3, 11)
    confusion = Confusion(11, CPU)
    confusion.update(torch.zeros(10, dtype=torch.int64), torch.tensor([0, 1, 2, 3, 4, 6, 7, 8, 9, 10]))
    task._confusion = confusion
    for _ in range(2):
        task._tell_missing("test")
    assert capsys.readouterr().err == "[camvid] no pixel of the test split is tree\n"
    task.evaluate(model, data, "train")
    assert capsys.readouterr().err == ""


# --- what is refused


@pytest.mark.parametrize("constant", [1.0, 0.0, -2.0])
def test_weights_without_end_are_refused(constant: float) -> None:
    model = Net(3, 11)
    model.class_weights = constant  # type: ignore[assignment]
    with pytest.raises(UserError, match=rf"^model\.class_weights={constant}: give a number above 1"):
        Segmentation.of(model, holey())


def test_the_gradient_of_the_whole_split_is_refused() -> None:
    data, model = holey(), Net(3, 11)
    with pytest.raises(UserError, match=r"^paper\.measure_gradient=true"):
        Segmentation.of(model, data).full_gradient_norm_sq(model, data)
