"""BLEU of a corpus by `sacrebleu`, whose numbers are comparable where the tokenisation is the same."""

from collections.abc import Sequence
from typing import Any

from common.base.errors import UserError
from common.base.sequence import Tokenisation


def bleu(translations: Sequence[str], references: Sequence[str], tokenisation: Tokenisation) -> float:
    """BLEU in percent, with case, one reference each, smoothed as sacrebleu does ("exp").

    Args:
        translations, references: as many sentences, as plain text.
        tokenisation: see `common.base.sequence.Tokenisation`.

    Raises:
        UserError: sacrebleu is not installed.
    """
    return float(
        sacrebleu()
        .corpus_bleu(list(translations), [list(references)], tokenize=tokenisation, force=True)
        .score
    )


def sacrebleu() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import sacrebleu as package
    except ImportError as error:
        raise UserError(
            "translations are judged by BLEU, which needs the package sacrebleu: "
            "pip install -e '.[translation]'"
        ) from error
    return package
