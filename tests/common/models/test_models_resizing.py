"""Maps at another size."""

import pytest
import torch
from torch.nn import functional

from common.models import resizing
from common.models.resizing import resized


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((9, 9), (128, 128)),
        ((1, 1), (5, 7)),
        ((1, 4), (6, 1)),
        ((2, 3), (2, 12)),
        ((8, 6), (3, 5)),
        ((5, 5), (1, 1)),
    ],
)
def test_small_maps_that_are_trained_are_those_of_torch_and_so_are_their_gradients(
    before: tuple[int, int], after: tuple[int, int]
) -> None:
    maps = torch.randn(2, 3, *before, dtype=torch.float64, requires_grad=True)
    slope = torch.randn(2, 3, *after, dtype=torch.float64)
    found = resized(maps, after)
    expected = functional.interpolate(maps, size=after, mode="bilinear", align_corners=True)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    pair = [torch.autograd.grad(one, maps, slope)[0] for one in (found, expected)]
    torch.testing.assert_close(*pair, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_maps_keep_their_units_and_their_precision(scale: float) -> None:
    maps = scale * torch.rand(1, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    found = resized(maps.requires_grad_(), (20, 20))
    assert found.dtype == torch.float32
    # means of numbers up to `scale`, in float32: a few of its roundings, of 6e-8 each
    expected = resized(maps.detach().double(), (20, 20))
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=5e-7 * scale)


def test_what_is_not_trained_and_large_maps_are_torchs_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    maps = torch.randn(1, 2, 8, 8, requires_grad=True)
    expected = functional.interpolate(maps, size=(30, 30), mode="bilinear", align_corners=True)
    with torch.no_grad():
        assert torch.equal(resized(maps, (30, 30)), expected)
    assert torch.equal(resized(maps.detach(), (30, 30)), expected)
    monkeypatch.setattr(resizing, "SMALL", 63)
    assert torch.equal(resized(maps, (30, 30)), expected)
    assert resized(maps, (8, 8)) is maps
