"""A passage and a question upon it as one tensor, so that an answer is trained like everything else."""

import torch
from torch import Tensor

# the first numbers of words: padding, words without a number, and what stands between passage and question
PADDING, UNKNOWN, BETWEEN = range(3)
SPECIAL = 3


def joined(passages: Tensor, questions: Tensor) -> Tensor:
    """The inputs of a network that reads passages and questions.

    Args:
        passages: int64 [b, C, 1 + L], of each word its number and its letters, 0 behind the last word.
        questions: int64 [b, Q, 1 + L], alike.

    Returns:
        int64 [b, C + 1 + Q, 1 + L]; the number of the word in column C is `BETWEEN`, which stands nowhere
        else.
    """
    between = torch.zeros_like(passages[:, :1])
    between[:, :, 0] = BETWEEN
    return torch.cat([passages, between, questions], dim=1)


def disjoined(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The passages [b, C, 1 + L] and the questions [b, Q, 1 + L] of `joined`.

    Raises:
        ValueError: nothing stands between them in the first row.
    """
    found = (inputs[0, :, 0] == BETWEEN).nonzero()
    if not len(found):
        raise ValueError("no passage with a question: nothing stands between them in the first row")
    place = int(found[0])
    return inputs[:, :place], inputs[:, place + 1 :]
