"""The tagger: parameters, its letters written anew, and that padding changes nothing."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.metrics.parameters import count_parameters
from common.models.char_lstm_crf import CharacterConvolution, CharLstmCrf

Build = Callable[..., CharLstmCrf]
SMALL = {"words": 20, "word_size": 6, "char_size": 5, "filters": 4, "hidden": 7}


@pytest.fixture
def model(build_model: Build) -> CharLstmCrf:
    torch.manual_seed(0)
    return build_model("char_lstm_crf", (32, 9), 5, "cpu", **SMALL).eval()


def sentence(length: int, letters: int, seed: int = 0) -> Tensor:
    random = torch.Generator().manual_seed(seed)
    found = torch.zeros(length, 1 + letters, dtype=torch.int64)
    found[:, 0] = torch.randint(1, 20, (length,), generator=random)
    for word in found:
        size = int(torch.randint(1, letters + 1, (1,), generator=random))
        word[1 : 1 + size] = torch.randint(1, 257, (size,), generator=random)
    return found


def test_it_has_the_parameters_of_its_layers(build_model: Build) -> None:
    model = build_model("char_lstm_crf", (32, 101), 9)
    tables, letters = 20_000 * 100 + 257 * 30, 30 * 30 * 3 + 30
    lstm = 2 * (4 * 200 * (130 + 200) + 2 * 4 * 200)
    assert count_parameters(model) == tables + letters + lstm + 400 * 9 + 9 + 9 * 9 + 2 * 9 == 2_545_348


def test_a_filter_gives_its_largest_value_over_the_bytes_of_a_word() -> None:
    torch.manual_seed(0)
    layer = CharacterConvolution(5, 4, 0.0).double()
    word = torch.tensor([[7, 30, 2, 256, 0, 0]])
    vectors = layer.embedding.weight[word[0, :4]]
    padded = torch.cat([torch.zeros(1, 5), vectors, torch.zeros(1, 5)]).double()
    weight, bias = layer.convolution.weight, layer.convolution.bias
    assert bias is not None
    windows = torch.stack([torch.einsum("fck,kc->f", weight, padded[i : i + 3]) + bias for i in range(4)])
    assert torch.allclose(layer(word)[0], windows.max(0).values)


def test_the_padding_of_words_and_of_sentences_changes_nothing(model: CharLstmCrf) -> None:
    first, second = sentence(6, 8), sentence(3, 5, seed=1)
    batch = torch.zeros(2, 9, 13, dtype=torch.int64)
    batch[0, :6, :9], batch[1, :3, :6] = first, second
    found = model(batch)
    assert found.shape == (2, 9, 5)
    assert torch.allclose(found[0, :6], model(first[None])[0], atol=1e-6)
    assert torch.allclose(found[1, :3], model(second[None])[0], atol=1e-6)
    assert model(torch.zeros_like(batch)).isfinite().all()


def test_words_are_read_both_ways_and_by_their_letters(model: CharLstmCrf) -> None:
    given = sentence(6, 8)
    plain = model(given[None])[0]
    for place, columns in product((0, 5), (slice(0, 1), slice(1, None))):
        changed = given.clone()
        word = changed[place, columns]
        changed[place, columns] = torch.where(word > 0, word % 19 + 1, 0)
        assert (model(changed[None])[0] - plain).abs().amax(1).gt(0).all()


def test_padding_learns_nothing(model: CharLstmCrf) -> None:
    batch = torch.zeros(1, 4, 9, dtype=torch.int64)
    batch[0, :2] = sentence(2, 8)
    model(batch).sum().backward()
    for layer in (model.embedding, model.letters.embedding):
        assert isinstance(layer, nn.Embedding) and layer.weight.grad is not None
        assert layer.weight[0].eq(0).all() and layer.weight.grad[0].eq(0).all()


@pytest.mark.parametrize(
    ("shape", "classes", "keys", "told"),
    [
        ((3, 32, 32), 9, {}, "valid: sentences"),
        ((32, 9), None, {}, "classes"),
        ((32, 9), 9, {"hidden": 0}, "model.hidden=0"),
        ((32, 9), 9, {"dropout": -0.1}, "model.dropout=-0.1"),
    ],
)
def test_what_it_cannot_take_is_one_line(
    build_model: Build, shape: tuple[int, ...], classes: int | None, keys: dict[str, float], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        build_model("char_lstm_crf", shape, classes, "meta", **keys)
