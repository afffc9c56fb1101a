"""Streams of tokens: cut, batched and numbered exactly, whatever the set; what is refused in one line."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from common.base.errors import UserError
from common.data.text.text_data import PositionLoader, TextData

Make = Callable[..., Any]
NAMES = ["ptb", "wikitext2", "python_docs"]


@pytest.fixture
def data(make: Make) -> TextData:
    """1,000 synthetic tokens in 4 streams, 7 at a time: 249 = 35 * 7 + 4 predictions a stream."""
    data = make("ptb", source="synthetic", limit=1_003, batch_size=4, bptt=7)
    data.setup()
    return data


def test_streams_are_contiguous_and_drop_only_the_tail(data: TextData) -> None:
    tokens = data.tokens("train")
    streams = data.streams("train", 4)
    assert streams.shape == (4, 250) and tokens.dtype == torch.int64
    assert torch.equal(torch.cat(list(streams)), tokens[:1000])


def test_an_epoch_predicts_each_token_of_each_stream_once_and_in_order(data: TextData) -> None:
    loader = data.loader(seed=0)
    blocks = itertools.islice(loader, loader.steps_per_epoch)
    batches = [data.ready(item) for block in blocks for item in block]
    assert loader.at_epoch_end and len(batches) == 36
    assert all(inputs.shape == (4, 7) for inputs, _ in batches[:-1]) and batches[-1][0].shape == (4, 4)
    streams = data.streams("train", 4)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches], dim=1), streams[:, :-1])
    assert torch.equal(
        torch.cat([targets for _, targets in batches if targets is not None], 1), streams[:, 1:]
    )


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_evaluation_batches_predict_each_token_once_too(data: TextData, split: Any) -> None:
    streams = data.streams(split, 3)
    inputs, targets = zip(*data.batches(split, 3), strict=True)
    assert torch.equal(torch.cat(inputs, dim=1), streams[:, :-1])
    assert torch.equal(torch.cat(targets, dim=1), streams[:, 1:])


def test_a_loader_restored_within_an_epoch_goes_on_at_the_same_position() -> None:
    loader = PositionLoader(length=30, bptt=7)
    assert list(itertools.islice(loader, 7)) == [[0], [7], [14], [21], [28], [0], [7]]
    resumed = PositionLoader(length=30, bptt=7)
    resumed.load_state_dict(loader.state_dict())
    assert list(itertools.islice(resumed, 3)) == [[14], [21], [28]]


@pytest.mark.parametrize("length", [2, 7, 8, 9, 15])
def test_steps_per_epoch_are_as_many_as_are_yielded(length: int) -> None:
    loader = PositionLoader(length, bptt=7)
    assert len(list(loader.items())) == loader.steps_per_epoch


def test_windows_begin_at_the_tokens_asked_for(data: TextData) -> None:
    tokens = data.tokens("test")
    inputs, targets = data.batch("test", torch.tensor([5, 0, 4992]), augment=False)
    for row, start in enumerate([5, 0, 4992]):
        assert torch.equal(inputs[row], tokens[start : start + 7])
        assert targets is not None and torch.equal(targets[row], tokens[start + 1 : start + 8])
    assert torch.equal(data.batch("test", slice(0, 3), augment=False)[0][2], tokens[2:9])
    assert len(data.batch("test", slice(None), augment=False)[0]) == 5_000 - 7
    assert len(data.batch("test", slice(3, 1), augment=False)[0]) == 0


@pytest.mark.parametrize("name", NAMES)
def test_facts_are_known_before_setup_and_synthetic_tokens_need_no_file(make: Make, name: str) -> None:
    data = make(name, source="synthetic", data_dir="/nonexistent")
    known = {"ptb": 10_000, "wikitext2": 33_278, "python_docs": data.classes}[name]
    assert (data.shape, data.classes, data.KIND) == ((35,), known, "language_modelling")
    data.setup()
    assert len(data.vocabulary) == known and data.has_validation
    for split in ("train", "validation", "test"):
        inputs, targets = next(iter(data.batches(split, 5)))
        assert inputs.shape == targets.shape == (5, 35)
        assert data.tokens(split).min() >= 0 and data.tokens(split).max() < known


def test_synthetic_training_tokens_are_as_many_as_limit_asks_for(make: Make) -> None:
    data = make("wikitext2", source="synthetic", limit=30_000)
    data.setup()
    assert data.size("train") == 30_000 and data.size("test") == 5_000


REFUSED = [
    ({"kind": "stream"}, "is of kind language_modelling"),
    ({"limit": 1}, "at least 2 tokens"),
    ({"limit": 929_590}, "give 2 to 929589"),
    ({"batch_size": 0}, "dataset.batch_size=0: give at least 1"),
    (
        {"batch_size": 20_000},
        "dataset.batch_size=20000: the 20000 tokens of the train split give at most 10000",
    ),
    ({"bptt": 0}, "dataset.bptt=0"),
]


@pytest.mark.parametrize(("overrides", "words"), REFUSED)
def test_what_is_out_of_range_is_refused_in_one_line(
    make: Make, overrides: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        make("ptb", source="synthetic", **overrides).setup()
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_word_that_the_training_split_lacks_is_named(make: Make) -> None:
    data = make("ptb")
    data.read = lambda: {"train": ["a", "<eos>"] * 50, "validation": ["a", "b"], "test": ["a"]}
    with pytest.raises(UserError, match="'b' of its validation split is not among the 2 words"):
        data.setup()


def test_using_the_data_before_setup_is_an_error(make: Make) -> None:
    with pytest.raises(RuntimeError, match="setup"):
        make("ptb").size("train")
