"""ERFNet against a transcription of the authors' network, and its two phases."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from common.base.errors import UserError
from common.base.stages import Stage
from common.metrics.parameters import count_parameters
from common.models.features import forward_features
from papers.moonshine.plain_erfnet import ERFNet, ERFNetEncoder

BuildModel = Callable[..., Any]
CITYSCAPES = ((3, 512, 1024), 19)
TAPS = ("encoder.layer7", "encoder.layer12", "encoder.layer16", "decoder.layer19", "decoder.layer22")


def shaken(model: nn.Module) -> Any:
    """The model with weights and statistics that all matter."""
    torch.manual_seed(1)
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif value.is_floating_point():
            value.normal_(std=0.2 if value.dim() > 1 else 0.5)
    return model


def erfnet(image: Tensor, state: dict[str, Tensor], cheap: bool, training: bool) -> dict[int, Tensor]:
    """Outputs by layer of table 1 of the paper, 24 the encoder's head, from the weights in their order."""
    tensors = iter([value for name, value in state.items() if not name.endswith("num_batches_tracked")])

    def take(count: int) -> list[Any]:
        return [next(tensors) for _ in range(count)]

    def conv(x: Tensor, bias: bool, **options: Any) -> Tensor:
        return functional.conv2d(x, *take(1 + bias), **options)

    def transposed(x: Tensor, **options: Any) -> Tensor:
        return functional.conv_transpose2d(x, *take(2), **options)

    def norm(x: Tensor) -> Tensor:
        scale, shift, mean, var = (t.view(1, -1, 1, 1) for t in take(4))
        if training:
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
        return (x - mean) / (var + 1e-3).sqrt() * scale + shift

    def down(x: Tensor) -> Tensor:
        both = [conv(x, bias=True, stride=2, padding=1), functional.max_pool2d(x, 2, 2)]
        return norm(torch.cat(both, 1)).relu()

    def up(x: Tensor) -> Tensor:
        return norm(transposed(x, stride=2, padding=1, output_padding=1)).relu()

    def factorised(x: Tensor, d: int) -> Tensor:
        x = conv(x, bias=True, padding=(d, 0), dilation=(d, 1)).relu()
        return norm(conv(x, bias=True, padding=(0, d), dilation=(1, d)))

    def separable(x: Tensor, d: int) -> Tensor:
        x = norm(conv(x, bias=False, padding=d, dilation=d, groups=x.shape[1])).relu()
        return norm(conv(x, bias=False))

    def block(x: Tensor, dropout: float, dilation: int) -> Tensor:
        pair = separable if cheap else factorised
        residual = pair(pair(x, 1).relu(), dilation)
        return (functional.dropout2d(residual, dropout, training) + x).relu()

    def encoder(x: Tensor) -> Iterator[Tensor]:
        yield (x := down(x))
        yield (x := down(x))
        for _ in range(5):
            yield (x := block(x, 0.03, 1))
        yield (x := down(x))
        for dilation in (2, 4, 8, 16, 2, 4, 8, 16):
            yield (x := block(x, 0.3, dilation))

    def decoder(x: Tensor) -> Iterator[Tensor]:
        for _ in range(2):
            yield (x := up(x))
            yield (x := block(x, 0.0, 1))
            yield (x := block(x, 0.0, 1))
        yield transposed(x, stride=2)

    found = dict(enumerate(encoder(image), start=1))
    found[24] = conv(found[16], bias=True)
    if any(name.startswith("decoder") for name in state):
        found |= dict(enumerate(decoder(found[16]), start=17))
    assert next(tensors, None) is None
    return found


@pytest.mark.parametrize(
    ("name", "size", "without_statistics"),
    [("erfnet", 2_073_428, 2_066_836), ("erfnet_gn", 503_956, 491_348)],
)
def test_the_sizes_of_moonshines_table_4_are_exact(
    build_model: BuildModel, name: str, size: int, without_statistics: int
) -> None:
    model = build_model(name, *CITYSCAPES)
    assert count_parameters(model, batch_norm_statistics=True) == size
    assert count_parameters(model) == without_statistics
    head = count_parameters(model.head)
    assert head == 128 * 20 + 20
    first = build_model(f"{name}_encoder", *CITYSCAPES)
    assert count_parameters(first, batch_norm_statistics=True) == size - sum(
        value.numel() for key, value in model.decoder.state_dict().items() if "num_batches" not in key
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["erfnet", "erfnet_gn"])
def test_outputs_and_features_are_those_of_a_transcription(
    build_model: BuildModel, name: str, training: bool
) -> None:
    model = shaken(build_model(name, (3, 32, 48), 5, device="cpu")).double().train(training)
    image = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    torch.manual_seed(7)
    expected = erfnet(image, state, cheap=name == "erfnet_gn", training=training)
    torch.manual_seed(7)
    logits, features = forward_features(model, image)
    assert logits.shape == (2, 6, 32, 48)
    torch.testing.assert_close(logits, expected[23])
    assert tuple(features) == TAPS
    for tap, feature in features.items():
        torch.testing.assert_close(feature, expected[int(tap.split("layer")[1])])


@pytest.mark.parametrize("name", ["erfnet_encoder", "erfnet_gn_encoder"])
def test_the_encoders_logits_are_at_an_eighth_of_the_resolution(build_model: BuildModel, name: str) -> None:
    model = shaken(build_model(name, (3, 32, 48), 5, device="cpu")).double().eval()
    image = torch.randn(2, 3, 32, 48, dtype=torch.float64)
    expected = erfnet(image, model.state_dict(), cheap="gn" in name, training=False)
    logits, features = forward_features(model, image)
    assert logits.shape == (2, 6, 4, 6)
    torch.testing.assert_close(logits, expected[24])
    assert tuple(features) == TAPS[:3]
    assert [tuple(f.shape[1:]) for f in features.values()] == [(64, 8, 12), (128, 4, 6), (128, 4, 6)]


@pytest.mark.parametrize(("void_logit", "logits"), [(True, 12), (False, 11)])
def test_a_logit_for_void_is_one_more(build_model: BuildModel, void_logit: bool, logits: int) -> None:
    for name in ("erfnet", "erfnet_encoder"):
        model = build_model(name, (1, 32, 32), 11, void_logit=void_logit)
        assert model(torch.empty(3, 1, 32, 32, device="meta")).shape[1] == logits


OPTIONS: dict[str, Any] = {"shape": (3, 16, 16), "classes": 3, "void_logit": True, "class_weights": None}


def first_phase(model: nn.Module) -> Stage:
    return Stage(words="model=erfnet_encoder", key="", metrics={}, model=model)


def test_the_second_phase_starts_from_the_weights_of_the_first() -> None:
    encoder = shaken(ERFNetEncoder(**OPTIONS))
    model = ERFNet(**OPTIONS, encoder=first_phase(encoder))
    taken = {name: value for name, value in model.state_dict().items() if not name.startswith("decoder")}
    assert taken.keys() == encoder.state_dict().keys()
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in taken.items())
    # a copy: to train one leaves the other
    before = encoder.head.weight.detach().clone()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    assert torch.equal(encoder.head.weight, before)


def test_without_a_first_phase_all_weights_are_random() -> None:
    first, second = (ERFNet(**OPTIONS, encoder=None).encoder.state_dict() for _ in range(2))
    assert not torch.equal(first["layer1.convolution.weight"], second["layer1.convolution.weight"])


def other_classes() -> nn.Module:
    return ERFNetEncoder(**OPTIONS | {"classes": 4})


@pytest.mark.parametrize("other", [other_classes, lambda: nn.Linear(2, 2)])
def test_an_encoder_of_another_network_is_refused(other: Callable[[], nn.Module]) -> None:
    with pytest.raises(UserError, match=r"^model\.encoder=model=erfnet_encoder: its layers are not") as error:
        ERFNet(**OPTIONS, encoder=first_phase(other()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 500, 500), "500x500 pixels; valid: sides divisible by 8, as 504x504"),
        ((3, 64, 63), "64x63 pixels; valid: sides divisible by 8, as 64x64"),
        ((3, 4, 8), "at least 8 pixels a side"),
        ((10,), "images"),
    ],
)
def test_other_sizes_are_refused_in_one_line(shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        ERFNet(**OPTIONS | {"shape": shape}, encoder=None)
    assert "\n" not in str(error.value)


def test_the_head_of_the_first_phase_takes_no_part_in_the_second() -> None:
    model = ERFNet(**OPTIONS, encoder=None)
    model(torch.randn(2, 3, 16, 16)).sum().backward()
    idle = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert idle == {"head.weight", "head.bias"}
