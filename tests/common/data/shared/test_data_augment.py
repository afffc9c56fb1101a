"""The batched crop and flip against cutting one image at a time."""

import pytest
import torch
from torch import Tensor

from common.data.shared.augment import crop_flip, crop_flip_at


def cut_one(image: Tensor, top: int, left: int, mirror: int) -> Tensor:
    _, height, width = image.shape
    result = torch.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row + top - 4, (width - 1 - column if mirror else column) + left - 4
            if 0 <= y < height and 0 <= x < width:
                result[:, row, column] = image[:, y, x]
    return result


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 8, 8), (2, 5, 9)])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_batched_windows_equal_those_cut_one_by_one(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, *shape), generator=generator).to(dtype)
    top, left = torch.randint(0, 9, (2, 12), generator=generator)
    top[:4], left[:4] = torch.tensor([0, 0, 8, 8]), torch.tensor([0, 8, 0, 8])
    mirror = torch.arange(12) % 2
    expected = torch.stack(
        [
            cut_one(image, *where)
            for image, *where in zip(images, top.tolist(), left.tolist(), mirror.tolist(), strict=True)
        ]
    )
    assert torch.equal(crop_flip_at(images, top, left, mirror), expected)


def test_every_offset_and_both_orientations_are_drawn() -> None:
    torch.manual_seed(0)
    image = torch.arange(1, 65, dtype=torch.uint8).view(1, 1, 8, 8)
    seen = crop_flip(image.expand(6000, 1, 8, 8)).flatten(1).unique(dim=0)
    assert len(seen) == 9 * 9 * 2


def test_torch_global_seed_decides_the_draws() -> None:
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    torch.manual_seed(1)
    first = crop_flip(images)
    second = crop_flip(images)
    torch.manual_seed(1)
    assert torch.equal(crop_flip(images), first)
    assert not torch.equal(first, second)
