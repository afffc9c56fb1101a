"""BiDAF: its parameters, its parts written anew in float64, and that padding changes nothing."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from common.base.errors import UserError
from common.base.passages import BETWEEN, joined
from common.metrics.parameters import count_parameters
from common.models.bidaf import AttentionFlow, BiDAF, BothWays, Highway, WideConvolution, best_spans

Build = Callable[..., Any]
SMALL: dict[str, Any] = {"words": 20, "word_size": 6, "char_size": 5, "filters": 4, "hidden": 3}


@pytest.fixture(params=["attended", "modelled"])
def model(build_model: Build, request: pytest.FixtureRequest) -> BiDAF:
    torch.manual_seed(0)
    return build_model("bidaf", (32, 9), None, "cpu", **SMALL, end=request.param).eval()


def text(length: int, letters: int, seed: int = 0) -> Tensor:
    """Random words, [length, 1 + letters]."""
    random = torch.Generator().manual_seed(seed)
    found = torch.zeros(length, 1 + letters, dtype=torch.int64)
    found[:, 0] = torch.randint(3, 20, (length,), generator=random)
    for word in found:
        size = int(torch.randint(1, letters + 1, (1,), generator=random))
        word[1 : 1 + size] = torch.randint(1, 257, (size,), generator=random)
    return found


def padded(words: Tensor, length: int, letters: int) -> Tensor:
    found = torch.zeros(length, 1 + letters, dtype=torch.int64)
    found[: len(words), : words.shape[1]] = words
    return found


def test_it_has_the_parameters_of_its_layers(build_model: Build) -> None:
    def lstm(size: int, hidden: int) -> int:
        return 2 * (4 * hidden * (size + hidden) + 2 * 4 * hidden)

    tables, letters = 100_000 * 100 + 257 * 8, 8 * 5 * 100 + 100
    highway, flow, scores = 4 * (200 * 200 + 200), 3 * 200, 2 * (1000 + 1)
    shared = tables + letters + highway + flow + scores + lstm(200, 100) + lstm(800, 100) + lstm(200, 100)
    attended, modelled = (build_model("bidaf", (400, 17), None, end=end) for end in ("attended", "modelled"))
    assert count_parameters(attended) == shared + lstm(1400, 100) == 12_575_958
    assert count_parameters(modelled) == shared + lstm(200, 100)
    small = build_model("bidaf_small", (400, 17), None)
    assert count_parameters(small) == 1_283_842


def test_attention_flows_both_ways_by_its_definition() -> None:
    torch.manual_seed(0)
    layer = AttentionFlow(4).double()
    passage, question = torch.randn(5, 4).double(), torch.randn(3, 4).double()
    weight = torch.cat([layer.passage.weight[0], layer.question.weight[0], layer.both]).detach()
    scores = torch.tensor(
        [[float(weight @ torch.cat([h, u, h * u])) for u in question] for h in passage], dtype=torch.float64
    )
    assert torch.allclose(layer.similarity(passage[None], question[None])[0], scores)
    read = torch.softmax(scores.max(1).values, 0) @ passage
    wanted = []
    for row, h in zip(scores, passage, strict=True):
        asked = torch.softmax(row, 0) @ question
        wanted.append(torch.cat([h, asked, h * asked, h * read]))
    here = torch.zeros(1, 5, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)
    assert torch.allclose(layer(passage[None], question[None], *here)[0], torch.stack(wanted))


def test_a_question_in_another_order_gives_the_same_flow() -> None:
    torch.manual_seed(0)
    layer = AttentionFlow(4).double()
    passage, question = torch.randn(1, 5, 4).double(), torch.randn(1, 3, 4).double()
    here = torch.zeros(1, 5, dtype=torch.bool), torch.zeros(1, 3, dtype=torch.bool)
    found = layer(passage, question, *here)
    assert torch.allclose(layer(passage, question[:, [2, 0, 1]], *here), found)
    turned = [3, 1, 4, 0, 2]
    assert torch.allclose(layer(passage[:, turned], question, *here), found[:, turned])


def test_both_ways_are_those_of_an_lstm_on_packed_sequences() -> None:
    torch.manual_seed(0)
    layer, peer = BothWays(3, 4).double(), nn.LSTM(3, 4, batch_first=True, bidirectional=True).double()
    onward = layer.onward.state_dict()
    peer.load_state_dict(
        {**onward} | {f"{name}_reverse": one for name, one in layer.back.state_dict().items()}
    )
    seen, lengths = torch.randn(3, 6, 3).double(), torch.tensor([6, 1, 4])
    packed = pack_padded_sequence(seen, lengths, batch_first=True, enforce_sorted=False)
    wanted = pad_packed_sequence(peer(packed)[0], batch_first=True, total_length=6)[0]
    assert torch.allclose(layer(seen, torch.arange(6) >= lengths[:, None]), wanted)


def test_a_highway_carries_what_its_gates_leave() -> None:
    torch.manual_seed(0)
    layer = Highway(3, 2).double()
    inputs = torch.randn(4, 3).double()
    wanted = inputs
    for one, gate in zip(layer.maps, layer.gates, strict=True):
        share = 1 / (1 + torch.exp(-gate(wanted)))
        wanted = share * torch.clamp(one(wanted), min=0) + (1 - share) * wanted
    assert torch.allclose(layer(inputs), wanted)


def test_a_filter_gives_its_largest_value_above_0_over_the_bytes_of_a_word() -> None:
    torch.manual_seed(0)
    layer = WideConvolution(5, 7, 0.0).double()
    word = torch.tensor([[7, 30, 2, 256, 0, 0]])
    vectors = layer.embedding.weight[word[0, :4]]
    around = torch.cat([torch.zeros(2, 5), vectors, torch.zeros(2, 5)]).double()
    weight, bias = layer.convolution.weight, layer.convolution.bias
    assert bias is not None and weight.shape == (7, 5, 5)
    windows = torch.stack([torch.einsum("fck,kc->f", weight, around[i : i + 5]) + bias for i in range(4)])
    assert torch.allclose(layer(word)[0], windows.max(0).values.clamp_min(0))
    assert layer(torch.zeros_like(word)).eq(0).all()


def test_the_padding_of_words_passages_and_questions_changes_nothing(model: BiDAF) -> None:
    passages, questions = [text(6, 8), text(3, 5, seed=1)], [text(2, 4, seed=2), text(4, 8, seed=3)]
    batch = joined(
        torch.stack([padded(one, 9, 13) for one in passages]),
        torch.stack([padded(one, 7, 13) for one in questions]),
    )
    found = model(batch)
    assert found.shape == (2, 2, 9)
    for row, passage, question in zip(found, passages, questions, strict=True):
        letters = max(passage.shape[1], question.shape[1]) - 1
        alone = joined(
            padded(passage, len(passage), letters)[None], padded(question, len(question), letters)[None]
        )
        assert torch.allclose(row[:, : len(passage)], model(alone)[0], atol=1e-6)
        assert row[:, len(passage) :].eq(-torch.inf).all()
    assert torch.allclose(model(batch.flip(0)), found.flip(0), atol=1e-6)


def test_every_word_of_the_passage_and_of_the_question_is_read_with_its_letters(model: BiDAF) -> None:
    given = joined(text(5, 8)[None], text(3, 8, seed=1)[None])
    plain = model(given)
    for place, columns in itertools.product((0, 4, 6, 8), (slice(0, 1), slice(1, None))):
        changed = given.clone()
        word = changed[0, place, columns]
        changed[0, place, columns] = torch.where(word > 0, (word - 3) % 17 + 4, 0)
        assert (model(changed) - plain).abs().amax(2).gt(0).all()


def test_padding_learns_nothing_and_gradients_are_finite(model: BiDAF) -> None:
    passages = torch.stack([padded(text(4, 8), 6, 8), text(6, 8, seed=1)])
    questions = torch.stack([padded(text(2, 8, seed=2), 4, 8), text(4, 8, seed=3)])
    scores = model(joined(passages, questions))
    torch.nn.functional.cross_entropy(scores.flatten(0, 1), torch.tensor([3, 3, 0, 5])).backward()
    for parameter in model.parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all()
    for layer in (model.embedding, model.letters.embedding):
        assert layer.weight[0].eq(0).all() and layer.weight.grad is not None
        assert layer.weight.grad[0].eq(0).all()
    # what stands between passage and question is not read
    assert model.embedding.weight.grad is not None and model.embedding.weight.grad[BETWEEN].eq(0).all()


def test_vectors_of_a_file_are_read_and_not_trained(model: BiDAF) -> None:
    torch.manual_seed(1)
    vectors = torch.randn(17, 6)
    given = joined(text(5, 8)[None], text(3, 8, seed=1)[None])
    given[0, 1, 0] = 1
    with torch.no_grad():
        model.embedding.weight[3:] = vectors
    wanted = model(given)
    model.use_vectors(vectors)
    assert torch.allclose(model(given), wanted, atol=1e-6)
    model(given)[torch.isfinite(wanted)].sum().backward()
    assert model.embedding.weight.shape == (3, 6) and model.embedding.weight.grad is not None
    assert model.embedding.weight.grad[1].ne(0).any() and "vectors" not in model.state_dict()
    with pytest.raises(UserError, match=r"model.word_size=6: .* have 5 numbers .valid: model.word_size=5"):
        model.use_vectors(torch.randn(17, 5))


@pytest.mark.parametrize("longest", [1, 3, 20])
def test_the_best_span_is_that_of_a_search_over_all(longest: int) -> None:
    torch.manual_seed(0)
    scores = torch.randn(6, 2, 7)
    scores[1, :, 4:] = scores[2, :, 1:] = -torch.inf
    # of equal ones the first
    scores[3] = 0.0
    scores[4] = scores[4].round()
    found = best_spans(scores, longest)
    for (first, last), row in zip(scores, found.tolist(), strict=True):
        best = max(
            ((b, e) for b in range(7) for e in range(b, min(b + longest, 7))),
            key=lambda span: (float(first[span[0]] + last[span[1]]), -span[0], -span[1]),
        )
        assert tuple(row) == best


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_the_best_span_does_not_depend_on_the_unit_of_scores(scale: float) -> None:
    torch.manual_seed(0)
    scores = torch.randn(20, 2, 9)
    assert torch.equal(best_spans(scores * scale, 4), best_spans(scores, 4))


@pytest.mark.parametrize(
    ("shape", "classes", "keys", "told"),
    [
        ((3, 32, 32), None, {}, "valid: passages with questions"),
        ((32, 9), 5, {}, "with classes"),
        ((32, 9), None, {"hidden": 0}, "model.hidden=0"),
        ((32, 9), None, {"longest_answer": 0}, "model.longest_answer=0"),
        ((32, 9), None, {"dropout": 1.0}, "model.dropout=1.0"),
        ((32, 9), None, {"end": "x"}, "model.end=x; valid: attended, modelled"),
    ],
)
def test_what_it_cannot_take_is_one_line(
    build_model: Build, shape: tuple[int, ...], classes: int | None, keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(UserError, match=told):
        build_model("bidaf", shape, classes, "meta", **keys)
