"""A passage and its question as one tensor."""

import pytest
import torch

from common.base.passages import disjoined, joined


def test_pieces_are_put_together_and_parted_again() -> None:
    passages, questions = torch.randint(3, 9, (2, 4, 5)), torch.randint(3, 9, (2, 3, 5))
    for found, wanted in zip(disjoined(joined(passages, questions)), (passages, questions), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(ValueError, match="nothing stands between them"):
        disjoined(passages)
