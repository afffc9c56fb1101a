"""Exact match and F1 of answers, as the official script of SQuAD compares them.

Rajpurkar et al. 2016, evaluate-v1.1.py: of both texts lower case, without the punctuation of ASCII, without
the articles a, an and the, with single spaces; the best of all references counts.
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """A text as it is compared."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(given: str, references: Sequence[str]) -> float:
    """1 where the answer is one of the references, else 0."""
    return float(any(normalised(given) == normalised(one) for one in references))


def f1(given: str, references: Sequence[str]) -> float:
    """2 P R / (P + R) of the words that the answer and a reference have in common, the best of them.

    Words count as often as they stand there. Where nothing of one is left to be compared, it is 1 if the same
    is true of the other, else 0, as in SQuAD 2.0's script and in torchmetrics; that of 1.1 has always 0.
    """
    return max((_f1(normalised(given).split(), normalised(one).split()) for one in references), default=0.0)


def _f1(given: list[str], reference: list[str]) -> float:
    if not given or not reference:
        return float(given == reference)
    shared = (Counter(given) & Counter(reference)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(given), shared / len(reference)
    return 2 * precision * recall / (precision + recall)
