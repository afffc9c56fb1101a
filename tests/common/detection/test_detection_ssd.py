from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_object
from torch import Tensor, nn

from common.base.errors import UserError
from common.detection.ssd import SSD
from common.metrics.parameters import count_parameters

CONF = Path(__file__).parents[3] / "conf" / "model"
DIGITS = (1, 32, 32)


def backbone(name: str, **keys: Any) -> Callable[..., nn.Module]:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | keys
    return partial(get_object(config.pop("_target_")), **config)


def build(
    name: str = "ssd_digits",
    shape: tuple[int, ...] = DIGITS,
    classes: int | None = 10,
    device: str = "cpu",
    base: str | None = None,
    **keys: Any,
) -> SSD:
    """A detector of conf/model, its backbone as there or by name; further keywords overwrite its keys."""
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    default = config.pop("defaults")[0]["/model@backbone"]
    changes = {key: value for key, value in config.pop("backbone").items() if key != "_partial_"}
    made = backbone(default, **changes) if base is None else backbone(base)
    config = {key: value for key, value in config.items() if key != "_target_"} | {"backbone": made} | keys
    with torch.device(device):
        return SSD(shape=shape, classes=classes, **config)


# (file, backbone, sides of its two maps at 304x304)
@pytest.mark.parametrize(
    ("name", "base", "sides"),
    [
        ("ssd", "resnet18_imagenet", (19, 10)),
        ("ssd", "resnet50_imagenet", (19, 10)),
        ("ssd", "mobilenet_v1_imagenet", (19, 10)),
        ("ssd", "mobilenet_v2_imagenet", (19, 10)),
        ("ssd_vgg16", None, (38, 19)),
    ],
)
def test_networks_of_the_shelf_are_backbones(name: str, base: str | None, sides: tuple[int, int]) -> None:
    net = build(name, (3, 304, 304), 20, "meta", base)
    offsets, logits = net(torch.empty(2, 3, 304, 304, device="meta"))
    assert offsets.shape == (2, len(net.priors), 4) and logits.shape == (2, len(net.priors), 21)
    maps = net.backbone.sources(torch.empty(1, 3, 304, 304, device="meta"))
    assert tuple(one.shape[2] for one in maps[-2:]) == sides
    assert tuple(one.shape[1] for one in maps) == net.backbone.source_channels
    if name == "ssd":
        assert len(net.priors) == 5142


def test_the_heads_and_extra_layers_have_as_many_numbers_as_their_shapes_say() -> None:
    net = build("ssd", (3, 304, 304), 20, "meta", "resnet18_imagenet")
    # 1x1 to 256 beside 1x1 to 128, 3x3 and 1x1 to 256, each with two numbers a channel for its normalisation
    block = sum(
        c * 256 + c * 128 + 9 * 128 * 128 + 128 * 256 + 2 * (256 + 128 + 128 + 256)
        for c in (256, 512, 256, 256, 256)
    )
    heads = 6 * (256 * 6 * (4 + 21) + 6 * (4 + 21))
    extras = 512 * 256 + 256 + 9 * 256 * 256 + 256 + 2 * (256 * 128 + 128 + 9 * 128 * 256 + 256)
    trunk = 11_689_512 - (512 * 1000 + 1000)
    assert count_parameters(net) == trunk + block + heads + extras


def test_the_detector_for_digits_is_as_large_as_its_file_says() -> None:
    net = build("ssd_digits")
    assert count_parameters(net) == 213_476
    assert len(net.priors) == 1920
    assert not any("classifier" in name for name, _ in net.named_parameters())


def test_one_class_works() -> None:
    net = build(classes=1)
    assert net(torch.zeros(2, *DIGITS))[1].shape == (2, 1920, 2)


def test_rows_of_outputs_and_priors_belong_together() -> None:
    """Heads whose kernels see one input alone mark the cells around it."""
    net = build(kernel=1, residual=None).eval()
    image = torch.zeros(1, *DIGITS)
    with torch.no_grad():
        plain = torch.cat(net(image), dim=2)
        image[0, 0, 20, 9] = 50.0
        changed = (torch.cat(net(image), dim=2) - plain).abs().amax(2)[0] > 1e-6
    assert changed.any() and not changed.all()
    centres = net.priors[changed, :2] * 32
    assert float(centres.mean(0)[0]) == pytest.approx(9.5, abs=2)
    assert float(centres.mean(0)[1]) == pytest.approx(20.5, abs=2)


def test_evaluation_does_not_depend_on_the_batch() -> None:
    net = build().eval()
    images = torch.rand(3, *DIGITS, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        together, alone = net(images), net(images[1:2])
    for whole, one in zip(together, alone, strict=True):
        torch.testing.assert_close(whole[1:2], one, rtol=1e-4, atol=1e-5)


def test_norms_have_the_settings_that_are_given() -> None:
    norms = [m for m in build(norm_eps=1e-3, norm_momentum=0.001).modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.001)}


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"sources": 4}, "model.sources=4; valid: 1 to 3"),
        ({"maps": [0, 2]}, "model.maps=.0, 2.; valid: numbers of maps, 0 to 1"),
        ({"scales": [16.0, 22.0]}, "model.scales=.16.0, 22.0.; valid: 3 rising numbers"),
        ({"scales": [16.0, 12.0, 30.0]}, "model.scales"),
        ({"ratios": [0.5]}, "model.ratios=.0.5.; valid: numbers above 1"),
        ({"kernel": 2}, "model.kernel=2; valid: 1 or 3"),
        ({"residual": 1}, "model.residual"),
        ({"extras": [(8, 8, 2, 1)] * 3 + [(8, 8, 1, 0)]}, r"model.extras.3.: a map of 1x1"),
        ({"classes": None}, "needs a data set with classes"),
        ({"backbone": lambda **_: nn.Flatten()}, "Flatten has no sources"),
    ],
)
def test_settings_that_do_not_fit_are_refused_in_one_line(keys: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        build(**keys)
    assert "\n" not in str(error.value)


def same(one: dict[str, Tensor], other: dict[str, Tensor], start: str) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.items() if name.startswith(start))


def test_a_detector_starts_from_a_classifier() -> None:
    torch.manual_seed(0)
    classifier, net = backbone("resnet_digits", blocks=[1, 1, 1], width=16)(shape=DIGITS, classes=7), build()
    assert net.start_from(classifier.state_dict()) is None
    taken = {f"backbone.{name}": value for name, value in classifier.state_dict().items()}
    assert same(net.state_dict(), taken, "backbone.")


def test_a_detector_starts_from_one_for_other_classes_but_for_its_logits() -> None:
    torch.manual_seed(0)
    other, net = build(classes=3), build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    assert net.start_from(other.state_dict()) == "the 2 layers of logits, of another number of classes"
    for start in ("backbone.", "blocks.", "offsets."):
        assert same(net.state_dict(), other.state_dict(), start)
    assert same(net.state_dict(), before, "logits.")


def test_a_detector_takes_all_weights_of_one_alike() -> None:
    other, net = build(), build()
    assert net.start_from(other.state_dict()) is None
    assert same(net.state_dict(), other.state_dict(), "")


def test_weights_of_another_network_are_refused_and_change_nothing() -> None:
    net = build()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(UserError, match=r"another network: stem\.0.weight is missing"):
        net.start_from({"fc.weight": torch.zeros(3)})
    wider = backbone("resnet_digits", blocks=[1, 1, 1], width=8)(shape=DIGITS, classes=7)
    with pytest.raises(UserError, match=r"stem\.0\.weight is missing or has another shape"):
        net.start_from(wider.state_dict())
    with pytest.raises(UserError, match=r"blocks\.0\.residual\.0\.weight is missing or has another shape"):
        net.start_from(build(residual=32).state_dict())
    assert same(net.state_dict(), before, "")
