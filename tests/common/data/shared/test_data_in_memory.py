"""What all sets share: facts, subsets, splits, normalisation, binary labels, and what is refused."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from common.base.errors import UserError
from common.data.shared.in_memory import Split, TensorData

Make = Callable[..., TensorData]

FACTS = {
    "digits": ((1, 8, 8), 10),
    "breast_cancer": ((30,), 2),
    "wine": ((13,), 3),
    "diabetes": ((10,), None),
    "mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "a9a": ((123,), 2),
    "w8a": ((300,), 2),
    "mushrooms": ((112,), 2),
    "curves": ((1, 28, 28), None),
    "fashion_mnist": ((1, 28, 28), 10),
    "cifar100": ((3, 32, 32), 100),
    "svhn": ((3, 32, 32), 10),
    "ijcnn1": ((22,), 2),
    "covtype": ((54,), 2),
    "rcv1": ((47_236,), 2),
}


def rows(split: Split | None) -> set[bytes]:
    assert split is not None
    return {example.numpy().tobytes() for example in split.inputs}


@pytest.mark.parametrize("name", FACTS)
def test_shape_and_classes_are_known_before_anything_is_read(make: Make, name: str) -> None:
    data = make(name, data_dir="/nonexistent")
    assert (data.shape, data.classes) == FACTS[name]


@pytest.mark.parametrize("name", FACTS)
def test_synthetic_source_gives_the_real_shapes_and_types_without_files(make: Make, name: str) -> None:
    data = make(name, source="synthetic", data_dir="/nonexistent", batch_size=16)
    data.setup()
    for split in ("train", "test"):
        # as many as the most classes, or all that the set has
        inputs, targets = data.batch(split, slice(0, 100), augment=True)
        assert inputs.shape == (min(100, data.size(split)), *data.shape) and inputs.dtype == torch.float32
        assert inputs.isfinite().all()
        if data.classes is not None:
            assert targets is not None and targets.dtype == torch.int64
            assert sorted(set(targets.tolist())) == list(range(data.classes))
        elif data.KIND == "regression":
            assert targets is not None and targets.dtype == torch.float32
        else:
            assert targets is None
        assert data.size(split) <= 512


def test_synthetic_source_has_as_many_examples_as_limit_asks_for(make: Make) -> None:
    data = make("mnist", source="synthetic", limit=700)
    data.setup()
    assert data.size("train") == 700


def test_limit_takes_each_class_in_its_share_and_leaves_the_test_set(make: Make) -> None:
    whole, part = make("digits"), make("digits", limit=200)
    whole.setup()
    part.setup()
    assert whole.train.targets is not None and part.train.targets is not None
    share = whole.train.targets.bincount() * 200 / 1400
    assert (part.train.targets.bincount() - share).abs().max() < 1
    assert len(part.train) == 200 and rows(part.train) <= rows(whole.train)
    assert whole.test is not None and part.test is not None
    assert torch.equal(part.test.inputs, whole.test.inputs)


def test_the_seed_chooses_the_subset_and_never_the_test_set(make: Make) -> None:
    first, again, other = (make("breast_cancer", limit=100, seed=seed) for seed in (0, 0, 1))
    for data in (first, again, other):
        data.setup()
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert first.test is not None and other.test is not None
    assert torch.equal(first.test.inputs, other.test.inputs)


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "wine", "diabetes"])
def test_validation_comes_from_the_limited_training_part_and_overlaps_nothing(make: Make, name: str) -> None:
    whole, data = make(name), make(name, limit=120, validation=0.25)
    whole.setup()
    data.setup()
    assert (data.size("train"), data.size("validation")) == (90, 30)
    assert not rows(data.train) & rows(data.validation)
    assert rows(data.train) | rows(data.validation) <= rows(whole.train)
    assert not (rows(data.train) | rows(data.validation)) & rows(data.test)
    assert rows(data.test) == rows(whole.test)


def test_validation_is_stratified(make: Make) -> None:
    data = make("wine", validation=0.5)
    data.setup()
    assert data.validation is not None
    assert data.validation.targets is not None and data.train.targets is not None
    assert (data.validation.targets.bincount() - data.train.targets.bincount()).abs().max() <= 1


def test_setup_twice_reads_once(make: Make) -> None:
    data = make("wine", limit=50)
    data.setup("fit")
    train = data.train
    data.setup("test")
    assert data.train is train


@pytest.mark.parametrize("name", ["breast_cancer", "wine", "diabetes"])
def test_standard_columns_have_mean_0_and_deviation_1_over_the_training_split(make: Make, name: str) -> None:
    data = make(name, limit=100, validation=0.2)
    data.setup()
    inputs, targets = data.batch("train", slice(None), augment=False)
    standardised = inputs if data.classes else torch.cat([inputs, targets[:, None]], dim=1)  # type: ignore[index]
    assert standardised.mean(0).abs().max() < 1e-5
    assert (standardised.std(0, correction=0) - 1).abs().max() < 1e-5


def test_unit_interval_columns_span_0_to_1_over_the_training_split(make: Make) -> None:
    data = make("wine", normalise="unit_interval")
    data.setup()
    inputs, _ = data.batch("train", slice(None), augment=False)
    assert inputs.amin(0).abs().max() == 0 and (inputs.amax(0) - 1).abs().max() < 1e-6


@pytest.mark.parametrize("name", ["wine", "digits"])
def test_unit_rows_have_norm_1(make: Make, name: str) -> None:
    data = make(name, normalise="unit_rows")
    data.setup()
    inputs, _ = data.batch("train", slice(None), augment=False)
    assert (inputs.flatten(1).norm(dim=1) - 1).abs().max() < 1e-5
    raw = data.train.inputs.float()
    assert torch.allclose(
        inputs * raw.flatten(1).norm(dim=1).view(-1, *[1] * len(data.shape)), raw, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["wine", "digits", "diabetes"])
def test_none_gives_the_stored_values(make: Make, name: str) -> None:
    data = make(name, normalise="none")
    data.setup()
    inputs, targets = data.batch("train", slice(None), augment=False)
    assert torch.equal(inputs, data.train.inputs.float())
    assert targets is not None and data.train.targets is not None and torch.equal(targets, data.train.targets)


def test_constant_columns_and_zero_rows_become_zero_not_nan(make: Make) -> None:
    examples = Split(
        torch.tensor([[1.0, 5.0], [0.0, 5.0], [0.0, 5.0], [3.0, 5.0]]), torch.tensor([0, 1, 0, 1])
    )
    for normalise in ("standard", "unit_interval"):
        data = make("wine", normalise=normalise)
        data.read = lambda part: examples  # type: ignore[method-assign]
        data.setup()
        inputs, _ = data.batch("train", slice(None), augment=False)
        assert inputs.isfinite().all() and inputs[:, 1].abs().max() == 0
    data = make("wine", normalise="unit_rows")
    data.read = lambda part: Split(torch.zeros(4, 2), examples.targets)  # type: ignore[method-assign]
    data.setup()
    assert data.batch("train", slice(None), augment=False)[0].abs().max() == 0


def test_image_channels_are_normalised_by_the_sets_constants(make: Make) -> None:
    data = make("cifar10", source="synthetic", augment="none")
    data.setup()
    inputs, _ = data.batch("train", torch.tensor([3, 1]), augment=True)
    mean = torch.tensor([0.49139968, 0.48215841, 0.44653091]).view(3, 1, 1)
    std = torch.tensor([0.24703223, 0.24348513, 0.26158784]).view(3, 1, 1)
    expected = (data.train.inputs[[3, 1]].float() / 255 - mean) / std
    assert torch.allclose(inputs, expected, atol=1e-5)


def test_batches_do_not_change_the_stored_examples(make: Make) -> None:
    data = make("wine")
    data.setup()
    before = data.train.inputs.clone()
    data.batch("train", slice(0, 10), augment=False)
    assert torch.equal(data.train.inputs, before)


def is_augmented(data: TensorData, augment: bool) -> bool:
    plain, _ = data.batch("train", slice(0, 64), augment=False)
    return not torch.equal(data.batch("train", slice(0, 64), augment=augment)[0], plain)


@pytest.mark.parametrize(("configured", "asked"), [(True, True), (True, False), (False, True)])
def test_batches_are_augmented_only_where_configured_and_asked(
    make: Make, configured: bool, asked: bool
) -> None:
    data = make("cifar10", source="synthetic", augment="crop_flip" if configured else "none")
    data.setup()
    assert is_augmented(data, asked) == (configured and asked)


def test_positive_makes_the_labels_binary(make: Make) -> None:
    data, whole = make("digits", positive=[5, 6, 7, 8, 9]), make("digits")
    data.setup()
    whole.setup()
    assert data.classes == 2
    for ours, original in ((data.train, whole.train), (data.test, whole.test)):
        assert ours is not None and original is not None
        assert ours.targets is not None and original.targets is not None
        assert torch.equal(ours.targets, (original.targets >= 5).long())


def test_move_puts_all_splits_and_later_reads_on_the_device(make: Make) -> None:
    data = make("curves", source="synthetic", validation=0.1)
    data.setup()
    data.move("meta")
    held: list[Tensor] = [
        split.inputs for split in (data.train, data.validation, data.test) if split is not None
    ]
    assert [tensor.device.type for tensor in held] == ["meta"] * 3


REFUSED = [
    ("digits", {"limit": 1401}, "dataset.limit=1401", "1400"),
    ("digits", {"limit": 1401, "source": "synthetic"}, "dataset.limit=1401", "1400"),
    ("digits", {"limit": 0}, "dataset.limit=0", "at least 1"),
    ("digits", {"validation": 1.0}, "dataset.validation=1.0", "below 1"),
    ("digits", {"validation": -0.1}, "dataset.validation=-0.1", "below 1"),
    ("digits", {"limit": 3, "validation": 0.1}, "dataset.validation=0.1", "3 training examples"),
    ("digits", {"batch_size": 0}, "dataset.batch_size=0", "at least 1"),
    ("digits", {"kind": "regression"}, "dataset.kind=regression", "image_classification"),
    ("digits", {"positive": [10]}, "dataset.positive=[10]", "0 to 9"),
    ("digits", {"positive": []}, "dataset.positive=[]", "0 to 9"),
    ("digits", {"positive": list(range(10))}, "dataset.positive=[0, 1", "not all"),
    ("diabetes", {"positive": [1]}, "dataset.positive=[1]", "no classes"),
]


@pytest.mark.parametrize(("name", "overrides", "key", "valid"), REFUSED)
def test_a_value_out_of_range_is_refused_in_one_line_naming_key_value_and_what_is_valid(
    make: Make, name: str, overrides: dict[str, object], key: str, valid: str
) -> None:
    with pytest.raises(UserError) as refusal:
        make(name, **overrides).setup()
    message = str(refusal.value)
    assert message.startswith(key) and valid in message and "\n" not in message


def test_asking_for_a_missing_validation_split_is_refused(make: Make) -> None:
    data = make("wine")
    data.setup()
    assert data.validation is None
    with pytest.raises(UserError, match=r"dataset\.validation=0\.0"):
        data.batch("validation", slice(None), augment=False)
