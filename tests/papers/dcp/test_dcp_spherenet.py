"""SphereNet, angular softmax against its definition by angles, and LFW's accuracy against plain counting."""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from common.base.errors import UserError
from common.pruning.slicing import masked, sliced
from common.training.task_of import task_of
from papers.dcp.angular_softmax import AngularSoftmax, angular_margin
from papers.dcp.face_verification import FaceVerification, lfw_accuracy, mirrored_features
from papers.dcp.policy import prunable
from papers.dcp.spherenet import SphereNet


def angular(**keys: Any) -> AngularSoftmax:
    settings = {"margin": 4, "base": 1000.0, "gamma": 0.12, "least": 5.0} | keys
    return AngularSoftmax(6, 5, **settings).double()


def psi(theta: np.ndarray, margin: int) -> np.ndarray:
    """As the paper defines it, by angles."""
    turns = np.minimum(np.floor(margin * theta / np.pi), margin - 1)
    return (-1.0) ** turns * np.cos(margin * theta) - 2 * turns


@pytest.mark.parametrize("margin", [1, 2, 3, 4, 5])
def test_the_margin_is_its_definition_by_angles(margin: int) -> None:
    theta = np.linspace(0, np.pi, 1001)
    found = angular_margin(torch.tensor(np.cos(theta)), margin).numpy()
    assert np.allclose(found, psi(theta, margin), atol=1e-6)
    # it falls from 1 to 1 - 2 m, and nowhere jumps
    assert (np.diff(found) < 1e-9).all()
    assert np.abs(np.diff(found)).max() < 4e-3 * margin
    assert found[[0, -1]] == pytest.approx([1, 1 - 2 * margin])


def test_the_loss_is_that_of_the_papers_logits() -> None:
    torch.manual_seed(0)
    loss = angular(base=0.0, least=2.0).eval()
    x, y = torch.randn(7, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4, 0, 2])
    W = loss.weight.detach().numpy() / np.linalg.norm(loss.weight.detach().numpy(), axis=1, keepdims=True)
    lengths = np.linalg.norm(x.numpy(), axis=1)
    cosines = x.numpy() @ W.T / lengths[:, None]
    logits = lengths[:, None] * cosines
    rows = np.arange(7)
    true = cosines[rows, y]
    logits[rows, y] = lengths * (2 * true + psi(np.arccos(true), 4)) / 3
    expected = np.mean(np.log(np.exp(logits).sum(1)) - logits[rows, y])
    assert loss(x, y).item() == pytest.approx(expected, rel=1e-12)


def test_a_margin_of_1_is_the_softmax_of_normalised_weights() -> None:
    torch.manual_seed(0)
    loss = angular(margin=1)
    x, y = torch.randn(7, 6, dtype=torch.float64), torch.arange(7) % 5
    plain = functional.cross_entropy(functional.linear(x, functional.normalize(loss.weight)), y)
    assert loss(x, y).item() == pytest.approx(plain.item(), rel=1e-12)


def test_the_gradient_is_that_of_the_loss() -> None:
    torch.manual_seed(1)
    loss, y = angular(least=0.5, base=0.0).eval(), torch.arange(4)
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: loss(x, y), (x,))


@pytest.mark.parametrize("unit", [1e-8, 1.0, 1e8])
def test_cosines_do_not_depend_on_the_unit(unit: float) -> None:
    torch.manual_seed(0)
    loss = AngularSoftmax(6, 5, margin=4, base=1000.0, gamma=0.12, least=5.0)
    x = torch.randn(7, 6)
    assert torch.allclose(loss.cosines(unit * x), loss.cosines(x), atol=1e-6)
    assert torch.isfinite(loss(unit * x, torch.arange(7) % 5))


def test_the_margin_comes_in_by_steps_of_training_alone() -> None:
    loss = angular()
    x, y = torch.randn(2, 6, dtype=torch.float64), torch.tensor([0, 1])
    assert float(loss.softening()) == 1000
    loss(x, y)
    loss.eval()(x, y)
    assert float(loss.softening()) == pytest.approx(1000 / 1.12)
    loss.steps += 100_000
    assert float(loss.softening()) == 5
    other = angular()
    other.load_state_dict(loss.state_dict())
    assert float(other.softening()) == 5


def counted(similarity: list[float], same: list[bool], fold: list[int]) -> list[float]:
    """The accuracy of each fold by trying every threshold."""
    found = []
    for number in range(max(fold) + 1):
        inside = [i for i, one in enumerate(fold) if one == number]
        outside = [i for i in range(len(fold)) if i not in inside]
        known = sorted({similarity[i] for i in outside})
        middles = [(a + b) / 2 for a, b in pairwise(known)]
        tried = [known[0] - 1, *middles, known[-1] + 1]
        right = [sum((similarity[i] > t) == same[i] for i in outside) for t in tried]
        best = [t for t, count in zip(tried, right, strict=True) if count == max(right)]
        threshold = sum(best) / len(best)
        found.append(sum((similarity[i] > threshold) == same[i] for i in inside) / len(inside))
    return found


@pytest.mark.parametrize("seed", range(5))
def test_lfw_accuracy_is_what_counting_gives(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    same = torch.rand(60, generator=generator) < 0.5
    # few values, so that many are equal
    similarity = (torch.randn(60, generator=generator) + same).mul(3).round() / 8
    fold = torch.arange(60) % 4
    found = lfw_accuracy(similarity, same, fold)
    assert found.tolist() == pytest.approx(counted(similarity.tolist(), same.tolist(), fold.tolist()))


def test_a_fold_does_not_choose_its_own_threshold() -> None:
    # in fold 1 all similarities are lower by 10: with the threshold of fold 0 all its pairs are told apart
    similarity = torch.tensor([0.9, 0.8, 0.1, 0.2, -9.1, -9.2, -9.9, -9.8])
    same = torch.tensor([True, True, False, False] * 2)
    fold = torch.tensor([0] * 4 + [1] * 4)
    assert lfw_accuracy(similarity, same, fold).tolist() == [0.5, 0.5]
    assert lfw_accuracy(similarity[:4].repeat(2), same, fold).tolist() == [1, 1]


def small(classes: int = 5, **keys: Any) -> SphereNet:
    settings: dict[str, Any] = {"widths": [4, 8], "embedding": 6, "margin": 4}
    settings |= {"base": 1000.0, "gamma": 0.12, "least": 5.0} | keys
    return SphereNet(shape=(3, 14, 12), classes=classes, **settings)


def test_features_see_a_face_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    model = small().eval()
    face = torch.randn(2, 3, 14, 12)
    features = mirrored_features(model, face)
    assert features.shape == (2, 12)
    assert torch.allclose(features.norm(dim=1), torch.ones(2).double())
    swapped = mirrored_features(model, face.flip(-1))
    assert torch.allclose(features, swapped.roll(6, dims=1))


def test_identities_are_learned_and_lfw_is_judged(make: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    data = make("faces", source="synthetic", limit=8, classes=4, size=[14, 12], batch_size=8, workers=0)
    data.setup()
    model = small(classes=4, gamma=10.0)
    task = task_of(model, data, "mean")
    assert isinstance(task, FaceVerification)
    before = task.evaluate(model, data, "train")
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    inputs, targets = data.batch("train", slice(None), augment=False)
    for _ in range(60):
        optimizer.zero_grad()
        task.loss(model, inputs, targets).backward()
        optimizer.step()
    after = task.evaluate(model, data, "train")
    assert after["train_loss"] < before["train_loss"]
    assert (after["train_accuracy"], after["train_error"]) == (1, 0)
    steps = int(model.identities.steps)
    judged = task.evaluate(model, data, "test")
    assert int(model.identities.steps) == steps == 60
    assert judged["test_error"] == pytest.approx(100 - judged["test_lfw_accuracy"])
    assert 0 < judged["test_lfw_accuracy"] < 100
    assert model.training


def test_a_network_that_puts_people_apart_is_perfect_on_pairs(make: Callable[..., Any]) -> None:
    data = make("faces", source="synthetic", classes=4, size=[14, 12], workers=0)
    data.setup()
    same = data.pairs.same

    class Oracle(torch.nn.Module):
        """Gives the pair (2 k, 2 k + 1) one embedding, and neighbouring pairs opposite ones."""

        def __init__(self) -> None:
            super().__init__()
            self.nothing = torch.nn.Parameter(torch.zeros(1))
            self.seen = 0

        def forward(self, inputs: Tensor) -> Tensor:
            numbers = (self.seen // 2 + torch.arange(len(inputs))) // 2
            self.seen += len(inputs)
            return torch.stack([(numbers * math.pi).cos(), 0 * numbers], dim=1)

    assert same[:4].tolist() == [True, False, True, False]
    assert data.evaluation_batch % 2 == 0
    judged = FaceVerification().evaluate(Oracle(), data, "test")
    assert (judged["test_lfw_accuracy"], judged["test_lfw_deviation"]) == (100, 0)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"margin": 0}, r"model\.margin=0"),
        ({"gamma": -1.0}, "gamma=-1"),
        ({"widths": []}, r"model\.widths=\[\]"),
        ({"embedding": 0}, r"model\.embedding=0"),
        ({"widths": [2] * 5}, "at least 32 pixels"),
    ],
)
def test_what_no_network_can_be_made_of_is_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        small(**keys)


def test_the_channels_that_the_embedding_takes_are_pruned_too() -> None:
    torch.manual_seed(0)
    model = small().eval()
    groups = prunable(model, (3, 14, 12))
    assert {layer: group.channels for layer, group in groups.items()} == {"stages.1.0": 4, "embedding": 8}
    keep = {"stages.0.0": [0, 2, 3], "stages.1.0": [1, 4, 5]}
    faces = torch.randn(5, 3, 14, 12)
    smaller = sliced(model, (3, 14, 12), keep)
    assert torch.allclose(smaller(faces), masked(model, (3, 14, 12), keep)(faces), atol=1e-5)
    # it trains on, with the margin that it had
    assert smaller.identities.weight.shape == (5, 6)
    loss = FaceVerification().loss(smaller.train(), faces, torch.arange(5))
    loss.backward()
    assert smaller.embedding.weight.grad.shape == (6, 3 * 4 * 3)


def test_in_mixed_precision_the_loss_is_that_of_the_rounded_embeddings() -> None:
    torch.manual_seed(0)
    loss = AngularSoftmax(6, 5, margin=4, base=1000.0, gamma=0.12, least=5.0).eval()
    embeddings, targets = torch.randn(4, 6).bfloat16(), torch.tensor([0, 4, 2, 0])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = loss(embeddings, targets)
    torch.testing.assert_close(mixed, loss(embeddings.float(), targets))
