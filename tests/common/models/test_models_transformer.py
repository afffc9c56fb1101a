"""The Transformer against torch's own; decoding with cached keys and values; beam search."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.base.errors import UserError
from common.base.sequence import BOS, EOS, PAD, packed, parted
from common.metrics.parameters import count_parameters
from common.models.decoding import Recomputed, beam_search, decoder_of, greedy
from common.models.transformer import Transformer, sinusoids
from common.models.weightless import weightless

Build = Callable[..., Any]
TINY = {"layers": 2, "width": 16, "inner": 32, "heads": 4, "beam": 1}


@pytest.fixture
def tiny(build_model: Build) -> Transformer:
    """Two layers of 16 over 11 tokens, in evaluation mode."""
    torch.manual_seed(0)
    return build_model("transformer_small", (20,), 11, device="cpu", **TINY).eval()


def pairs(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Three sources and targets of different lengths over 11 tokens, padded."""
    generator = torch.Generator().manual_seed(seed)
    source = torch.randint(4, 11, (3, 6), generator=generator)
    targets = torch.randint(4, 11, (3, 5), generator=generator)
    for row, (s, t) in enumerate([(6, 5), (3, 4), (4, 2)]):
        source[row, s - 1], source[row, s:] = EOS, PAD
        targets[row, t - 1], targets[row, t:] = EOS, PAD
    return source, targets


def test_a_pair_is_one_tensor_and_comes_apart_again() -> None:
    source, targets = pairs()
    found, late = parted(packed(source, targets))
    assert torch.equal(found, source)
    assert torch.equal(late[:, 0], torch.full((3,), BOS)) and torch.equal(late[:, 1:], targets[:, :-1])
    with pytest.raises(ValueError, match="no BOS"):
        parted(source)


@pytest.mark.parametrize(
    ("name", "keys", "expected"),
    [
        ("transformer_base", {}, 60_519_680),
        # of each of the 18 attentions 4 biases of 512
        ("transformer_base", {"attention_bias": True}, 60_519_680 + 18 * 4 * 512),
        # without the normalisation that ends each stack
        ("transformer_base", {"norm": "post"}, 60_519_680 - 2 * 2 * 512),
        ("transformer_small", {}, 5_051_136),
    ],
)
def test_parameters_are_as_many_as_the_definition_says(
    build_model: Build, name: str, keys: dict[str, Any], expected: int
) -> None:
    assert count_parameters(build_model(name, (70,), 32_000, **keys)) == expected


def test_base_has_what_torchs_own_has_beside_embedding_and_softmax(build_model: Build) -> None:
    model = build_model("transformer_base", (70,), 100, attention_bias=True)
    with weightless():
        peer = nn.Transformer(512, 8, 6, 6, 2048, norm_first=True)
    assert count_parameters(model) - 100 * 512 - 100 == count_parameters(peer)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_logits_are_those_of_torchs_own_with_the_same_weights(build_model: Build, norm: str) -> None:
    torch.manual_seed(1)
    keys = {**TINY, "attention_bias": True, "norm": norm}
    model = build_model("transformer_small", (20,), 11, device="cpu", **keys).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    peer = nn.Transformer(16, 4, 2, 2, 32, 0.0, norm_first=norm == "pre", batch_first=True).double().eval()
    if norm == "post":
        peer.encoder.norm = peer.decoder.norm = None
    else:
        peer.encoder.norm.load_state_dict(model.encoder_norm.state_dict())
        peer.decoder.norm.load_state_dict(model.decoder_norm.state_dict())
    for own, other in zip(model.encoder, peer.encoder.layers, strict=True):
        copy_attention(own.own, other.self_attn)
        copy_rest(own, other, ["around_own", "around_feed"])
    for own, other in zip(model.decoder, peer.decoder.layers, strict=True):
        copy_attention(own.own, other.self_attn)
        copy_attention(own.source, other.multihead_attn)
        copy_rest(own, other, ["around_own", "around_source", "around_feed"])
    source, targets = pairs()
    inputs = packed(source, targets)
    target = parted(inputs)[1]
    embedded = [
        F.embedding(tokens, model.embedding.weight) * 4 + sinusoids(tokens.shape[1], 16).double()
        for tokens in (source, target)
    ]
    hidden = source == PAD
    causal = torch.ones(5, 5, dtype=torch.bool).triu(1)
    found = peer(*embedded, tgt_mask=causal, src_key_padding_mask=hidden, memory_key_padding_mask=hidden)
    expected = found @ model.embedding.weight.T + model.softmax_bias
    there = targets != PAD
    torch.testing.assert_close(model(inputs)[there], expected[there], rtol=1e-10, atol=1e-10)


def copy_attention(own: Any, other: Any) -> None:
    with torch.no_grad():
        other.in_proj_weight.copy_(torch.cat([own.query.weight, own.keys_values.weight]))
        other.in_proj_bias.copy_(torch.cat([own.query.bias, own.keys_values.bias]))
    other.out_proj.load_state_dict(own.out.state_dict())


def copy_rest(own: Any, other: Any, residuals: list[str]) -> None:
    other.linear1.load_state_dict(own.feed[0].state_dict())
    other.linear2.load_state_dict(own.feed[3].state_dict())
    for number, name in enumerate(residuals, 1):
        getattr(other, f"norm{number}").load_state_dict(getattr(own, name).norm.state_dict())


def test_weights_begin_as_the_co_author_begins_them(build_model: Build) -> None:
    torch.manual_seed(0)
    model = build_model("transformer_small", (70,), 1000, device="cpu")
    assert not model.embedding.weight[PAD].any()
    assert float(model.embedding.weight.detach()[1:].std()) == pytest.approx(0.88 * 128**-0.5, rel=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            bound = (3 / module.in_features) ** 0.5
            assert 0.98 * bound < float(module.weight.detach().abs().max()) <= bound
            assert module.bias is None or not module.bias.any()


def test_logits_depend_neither_on_padding_nor_on_later_tokens(tiny: Transformer) -> None:
    source, targets = pairs()
    whole = tiny(packed(source, targets))
    alone = tiny(packed(source[1:2, :3], targets[1:2, :4]))
    torch.testing.assert_close(whole[1:2, :4], alone)
    other = targets.clone()
    other[:, 2:] = 7
    torch.testing.assert_close(tiny(packed(source, other))[:, :3], whole[:, :3])


def test_steps_with_a_cache_give_the_logits_of_the_whole_pass(tiny: Transformer) -> None:
    source, targets = pairs()
    inputs = packed(source, targets)
    cache, target = tiny.begin(source), parted(inputs)[1]
    steps = torch.stack([tiny.step(target[:, t], cache) for t in range(5)], dim=1)
    torch.testing.assert_close(steps, tiny(inputs))


def test_a_sentence_longer_than_any_before_gets_its_positions(tiny: Transformer) -> None:
    assert len(tiny.positions) < 80
    assert tiny(packed(torch.full((1, 40), 5), torch.full((1, 80), 6))).isfinite().all()
    torch.testing.assert_close(tiny.positions[:80], sinusoids(80, 16))
    assert "positions" not in tiny.state_dict()


@pytest.mark.parametrize("beam", [None, 1, 3])
def test_decoding_with_the_cache_gives_what_recomputing_all_gives(
    tiny: Transformer, beam: int | None
) -> None:
    source, longest = torch.cat([pairs(seed)[0] for seed in range(6)]), torch.arange(18) % 7 + 1
    assert decoder_of(tiny) is tiny and isinstance(decoder_of(nn.Identity()), Recomputed)
    found = []
    for decoder in (tiny, Recomputed(tiny)):
        if beam is None:
            found.append(greedy(decoder, source, longest))
        else:
            found.append(beam_search(decoder, source, longest, beam, 0.6))
    assert found[0] == found[1]
    assert all(len(tokens) < most for tokens, most in zip(found[0], longest.tolist(), strict=True))
    assert len({tuple(tokens) for tokens in found[0]}) > 3


def test_a_beam_of_one_is_greedy(tiny: Transformer) -> None:
    source, longest = torch.cat([pairs(seed)[0] for seed in range(6)]), torch.full((18,), 9)
    assert beam_search(tiny, source, longest, 1, 0.6) == greedy(tiny, source, longest)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_a_beam_that_holds_all_targets_finds_the_best_of_all(build_model: Build, penalty: float) -> None:
    words, most = [3, 4, 5], 4
    for seed in range(3):
        torch.manual_seed(seed)
        model = build_model("transformer_small", (20,), 6, device="cpu", **TINY).eval()
        with torch.no_grad():
            model.softmax_bias[EOS] = -1.0
        source = torch.tensor([[3, 5, EOS, PAD], [4, 4, 3, EOS]])
        found = beam_search(model, source, torch.tensor([most, most - 1]), 200, penalty)
        assert found == [
            best_of_all(model, source[:1, :3], words, most, penalty),
            best_of_all(model, source[1:], words, most - 1, penalty),
        ]


@torch.no_grad()
def best_of_all(model: nn.Module, source: Tensor, words: list[int], most: int, penalty: float) -> list[int]:
    """Of all targets of at most so many tokens with EOS, the one with the highest score."""
    scores = {}
    for length in range(most):
        for tokens in itertools.product(words, repeat=length):
            target = torch.tensor([[*tokens, EOS]])
            steps = model(packed(source, target)).log_softmax(-1)
            total = float(steps.gather(2, target[..., None]).sum())
            scores[tokens] = total / ((5 + length + 1) / 6) ** penalty
    return list(max(scores, key=scores.__getitem__))


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"width": 30}, "a multiple of heads=4"),
        ({"dropout": 1.0}, "model.dropout=1.0"),
        ({"label_smoothing": -0.1}, "model.label_smoothing=-0.1"),
        ({"norm": "none"}, "valid: pre, post"),
        ({"beam": 0}, "model.beam=0"),
        ({"length_penalty": -1.0}, "model.length_penalty=-1.0"),
    ],
)
def test_settings_out_of_range_are_refused_in_one_line(
    build_model: Build, keys: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError) as error:
        build_model("transformer_small", (20,), 11, **keys)
    assert words in str(error.value) and "\n" not in str(error.value)
