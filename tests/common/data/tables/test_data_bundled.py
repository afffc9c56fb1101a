"""The bundled sets are scikit-learn's own numbers, split once and for all."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import datasets

from common.data.shared.in_memory import TensorData

Make = Callable[..., TensorData]


def test_digits_are_the_exact_pixels_first_1400_and_last_397(make: Make) -> None:
    data = make("digits")
    data.setup()
    original = datasets.load_digits()
    assert data.test is not None
    assert np.array_equal(torch.cat([data.train.inputs, data.test.inputs])[:, 0].numpy(), original.images)
    assert (len(data.train), len(data.test)) == (1400, 397)


def test_digits_constants_are_those_of_the_training_images(make: Make) -> None:
    data = make("digits")
    data.setup()
    inputs, _ = data.batch("train", slice(None), augment=False)
    assert abs(inputs.mean()) < 1e-3 and abs(inputs.std() - 1) < 1e-3


def test_digits_in_the_unit_interval_are_sixteenths(make: Make) -> None:
    data = make("digits", normalise="unit_interval")
    data.setup()
    inputs, _ = data.batch("test", slice(None), augment=False)
    assert data.test is not None and torch.equal(inputs * 16, data.test.inputs.float())
    assert inputs.max() == 1


@pytest.mark.parametrize(
    ("name", "load", "sizes"),
    [
        ("breast_cancer", datasets.load_breast_cancer, (455, 114)),
        ("wine", datasets.load_wine, (142, 36)),
        ("diabetes", lambda **keywords: datasets.load_diabetes(scaled=False, **keywords), (354, 88)),
    ],
)
def test_tables_are_partitioned_without_loss(
    make: Make, name: str, load: Callable[..., tuple[np.ndarray, np.ndarray]], sizes: tuple[int, int]
) -> None:
    data = make(name)
    data.setup()
    inputs, targets = load(return_X_y=True)
    assert data.test is not None and data.test.targets is not None and data.train.targets is not None
    assert (len(data.train), len(data.test)) == sizes
    targets_of_both = torch.cat([data.train.targets, data.test.targets])
    ours = torch.cat([torch.cat([data.train.inputs, data.test.inputs]), targets_of_both[:, None]], dim=1)
    original = np.concatenate([inputs, targets[:, None]], axis=1).astype(np.float32)
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, original.tolist()))


def test_the_holdout_is_stratified(make: Make) -> None:
    data = make("wine")
    data.setup()
    assert data.test is not None and data.test.targets is not None and data.train.targets is not None
    counts = data.test.targets.bincount()
    share = (counts + data.train.targets.bincount()) * 36 / 178
    assert (counts - share).abs().max() < 1
