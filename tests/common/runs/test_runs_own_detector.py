"""A detector of the user's own: what its blank pass must give."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from common.base.errors import UserError
from common.data.detection.scenes import DigitScenes
from common.runs.own_model import checked


class Own(nn.Module):
    """Logits of so many numbers, at so many priors."""

    task = "detection"

    def __init__(self, logits: int, priors: int | None) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(1, 4), nn.Linear(1, logits)])
        if priors is not None:
            self.register_buffer("priors", torch.rand(priors, 4))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        rows = images.flatten(2)[:, 0, :6, None]
        return tuple(head(rows) for head in self.heads)


def scenes() -> DigitScenes:
    options: dict[str, Any] = {"kind": "detection", "data_dir": "", "seed": 0, "source": "synthetic"}
    options |= {"limit": 2, "validation": 0.0, "normalise": "none", "verify": True, "batch_size": 2}
    options |= {"positive": None, "augment": "none", "side": 32, "digits": 2, "overlap": 0.0}
    return DigitScenes(**options)


def test_a_detector_that_fits_is_taken() -> None:
    assert isinstance(checked(Own(11, 6), Own, scenes(), "detection"), Own)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (Own(11, None), "has no priors"),
        (
            Own(10, 6),
            r"gives \(2, 6, 4\) and \(2, 6, 10\); valid: offsets \(b, 6, 4\) and logits \(b, 6, 11\)",
        ),
        (Own(11, 7), r"valid: offsets \(b, 7, 4\)"),
    ],
)
def test_a_detector_that_does_not_fit_is_refused_in_one_line(model: nn.Module, says: str) -> None:
    with pytest.raises(UserError, match=says) as error:
        checked(model, Own, scenes(), "detection")
    assert "\n" not in str(error.value)
