"""Pairs of token sequences as one tensor, so that a translation is trained like everything else."""

from typing import Literal

import torch
from torch import Tensor

# the first numbers of every joint vocabulary: padding, the begin and the end of a target, an unknown piece
PAD, BOS, EOS, UNKNOWN = range(4)
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")

# how sentences are cut into words before BLEU compares them (sacrebleu's names): 13a as WMT does; none: at
# spaces alone, which on text that is cut into words already is what multi-bleu.perl measures
Tokenisation = Literal["13a", "intl", "zh", "char", "none"]
TOKENISATIONS = ("13a", "intl", "zh", "char", "none")


def packed(source: Tensor, targets: Tensor) -> Tensor:
    """The inputs of a network that predicts `targets`: the source, then the targets one token late.

    Args:
        source: int64 [b, S], each row a sentence and padding on its right.
        targets: int64 [b, T], each row a sentence, `EOS` and padding.

    Returns:
        int64 [b, S + T]; column S is `BOS`, which stands nowhere before it.
    """
    begin = torch.full_like(targets[:, :1], BOS)
    return torch.cat([source, begin, targets[:, :-1]], dim=1)


def parted(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """The source [b, S] and the target up to each token [b, T], which begins with `BOS`, of `packed`.

    Raises:
        ValueError: there is no `BOS` in the first row.
    """
    found = (inputs[0] == BOS).nonzero()
    if not len(found):
        raise ValueError("no packed pair of sequences: its first row has no BOS")
    begin = int(found[0])
    return inputs[:, :begin], inputs[:, begin:]
