"""Batch normalisation folded into convolutions: the same outputs, and what must not be folded stays."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.models.folding import Pair, foldable, folded

Build = Callable[..., nn.Module]
# networks of the shelf with the shape of an input, settings that make them small, and how many of their
# normalisations stay
SHELF: list[tuple[str, tuple[int, ...], dict[str, Any], int]] = [
    ("peleenet_digits", (1, 8, 8), {}, 0),
    # those of concatenated channels: before 18 dense layers and 3 transitions, and the last
    ("densenet41_small", (3, 32, 32), {"growth": 8, "stem": 8}, 22),
    ("densenet_40_12", (3, 32, 32), {"depth": 10, "growth": 4}, 9),
    ("resnet20", (3, 32, 32), {"depth": 8}, 0),
    ("preact_resnet20", (3, 32, 32), {"depth": 8}, 3),
    ("wrn_16_1", (3, 32, 32), {"depth": 10}, 4),
    ("mobilenet_v1", (3, 32, 32), {"multiplier": 0.125}, 0),
    ("mobilenet_v2", (3, 32, 32), {}, 0),
    ("vgg13", (3, 32, 32), {"widths": [[6], [6, 8], [8], [12], [16]]}, 0),
    ("resnext29_8x64d", (3, 32, 32), {"depth": 11, "group_width": 1}, 0),
    ("se_resnet18_imagenet", (3, 64, 64), {"widths": [8, 16, 24, 32], "reduction": 4}, 0),
    # transposed convolutions; the halves of downsampling are normalised after they are joined
    ("erfnet", (3, 32, 32), {}, 3),
    ("convnet_digits", (1, 8, 8), {}, 0),
]


def norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def stirred(network: nn.Module) -> nn.Module:
    """With other scales and statistics of normalisations than their first ones, in evaluation mode."""
    torch.manual_seed(0)
    for norm in norms(network):
        if norm.affine:
            nn.init.uniform_(norm.weight, -1.5, 1.5)
            nn.init.normal_(norm.bias)
        if norm.running_mean is not None:
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return network.eval()


def require_same(network: nn.Module, shape: tuple[int, ...], by: float = 1.0) -> nn.Module:
    """The folded network, which must give the same as the network, in float32 and in float64."""
    plain = folded(network, shape)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-12)):
        network.to(dtype)
        same = folded(network, shape)
        inputs = by * torch.randn(2, *shape, dtype=dtype)
        with torch.no_grad():
            wanted, got = network(inputs), same(inputs)
        torch.testing.assert_close(got, wanted, rtol=0, atol=tolerance * float(wanted.abs().max()))
    return plain


@pytest.mark.parametrize(("name", "shape", "settings", "left"), SHELF)
def test_a_folded_network_of_the_shelf_gives_the_same(
    build_model: Build, name: str, shape: tuple[int, ...], settings: dict[str, Any], left: int
) -> None:
    network = stirred(build_model(name, shape, 5, device="cpu", **settings))
    before = len(norms(network))
    assert len(norms(require_same(network, shape))) == left
    assert len(norms(network)) == before


@pytest.mark.parametrize("by", [1e-8, 1e8])
def test_inputs_of_any_size_give_the_same(build_model: Build, by: float) -> None:
    require_same(stirred(build_model("peleenet_digits", (1, 8, 8), 5, device="cpu")), (1, 8, 8), by)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, groups=2),
        nn.Conv2d(4, 6, 3, bias=False),
        nn.Conv3d(4, 6, 3),
        nn.ConvTranspose1d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, 3, groups=2, stride=2),
        nn.ConvTranspose3d(4, 6, 3, bias=False),
    ],
)
@pytest.mark.parametrize("affine", [True, False])
def test_any_convolution_takes_its_normalisation_in(layer: Any, affine: bool) -> None:
    sides = int(type(layer).__name__[-2])
    norm = getattr(nn, f"BatchNorm{sides}d")(6, affine=affine)
    network = nn.Sequential(copy.deepcopy(layer).float(), norm)
    assert norms(require_same(stirred(network), (4, *[5] * sides))) == []


def test_a_linear_layer_on_rows_takes_its_normalisation_in() -> None:
    network = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU())
    assert norms(require_same(stirred(network), (4,))) == []


def test_a_variance_of_zero_is_folded_with_its_eps() -> None:
    network = stirred(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3)))
    norms(network)[0].running_var.zero_()
    assert norms(require_same(network, (2, 4, 4))) == []


def test_layers_keep_their_names_and_the_network_its_weights() -> None:
    network = stirred(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 1, 1)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    plain = folded(network, (2, 4, 4))
    assert [name for name, _ in plain.named_children()] == ["0", "1", "2", "3"]
    assert foldable(network, (2, 4, 4)) == [Pair("0", "1")]
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


class Twice(nn.Module):
    """A convolution whose output is read beside its normalisation, in one of several ways."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.conv, self.norm, self.how = nn.Conv2d(2, 2, 3, padding=1), nn.BatchNorm2d(2), how

    def forward(self, inputs: Tensor) -> Any:
        first = self.conv(inputs)
        if self.how == "added":
            return first + self.norm(first)
        if self.how == "written over":
            first.mul_(2.0)
            return self.norm(first)
        if self.how == "given":
            return torch.cat([self.norm(first)]), first
        if self.how == "run twice":
            return self.norm(first) + self.norm(self.conv(inputs))
        return self.norm(first) * first.shape[1]


@pytest.mark.parametrize("how", ["added", "written over", "given", "run twice"])
def test_what_else_reads_the_convolution_keeps_the_normalisation(how: str) -> None:
    network = stirred(Twice(how))
    assert foldable(network, (2, 4, 4)) == []
    assert len(norms(folded(network, (2, 4, 4)))) == 1


def test_asking_for_its_shape_reads_no_values() -> None:
    assert norms(require_same(stirred(Twice("measured")), (2, 4, 4))) == []


def test_a_normalisation_under_two_names_goes_from_both() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))
    network.add_module("other", nn.Sequential())
    network.get_submodule("other").register_module("norm", network[1])
    network.get_submodule("other").forward = lambda inputs: inputs  # type: ignore[method-assign]
    assert norms(folded(stirred(network), (2, 4, 4))) == []


def test_what_computes_something_else_is_left_alone() -> None:
    class Own(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input).abs()

    hooked = nn.Conv2d(2, 3, 1)
    hooked.register_forward_hook(lambda module, inputs, output: 2 * output)
    without_statistics = nn.BatchNorm2d(3, track_running_stats=False)
    positions = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
    for network, shape in (
        (nn.Sequential(Own(2, 3, 1), nn.BatchNorm2d(3)), (2, 4, 4)),
        (nn.Sequential(hooked, nn.BatchNorm2d(3)), (2, 4, 4)),
        (nn.Sequential(nn.Conv2d(2, 3, 1), without_statistics), (2, 4, 4)),
        (positions, (4, 4)),
    ):
        assert foldable(stirred(network), shape) == []


def test_a_tied_weight_is_folded_where_it_is_followed_by_a_normalisation_only() -> None:
    network = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 1))
    network[2].weight = network[0].weight
    require_same(stirred(network), (2, 4, 4))


def test_a_network_that_cannot_take_the_shape_says_so() -> None:
    with pytest.raises(UserError, match=r"Sequential cannot take one example of shape \(3, 4, 4\)"):
        folded(nn.Sequential(nn.Conv2d(2, 3, 1)), (3, 4, 4))
