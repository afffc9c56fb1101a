"""Files of word vectors in GloVe's format: a word and its numbers in each line, frequent words first."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.base.errors import UserError
from common.data.shared.text_file import from_here


def first_words(path: Path, most: int) -> list[str]:
    """The first `most` words of a file, in its order.

    Raises:
        UserError: no such file.
    """
    return [word for _, word, _ in _lines(path, most)]


def word_vectors(path: Path, most: int) -> Tensor:
    """The vectors of the first `most` words of a file, float32 [up to most, size].

    A first line of two numbers, as word2vec's and fastText's, says how many there are and is passed over.

    Raises:
        UserError: no such file, no word in it, or (with its line) fewer numbers than in the first line, or
            something that is no finite number.
    """
    rows: list[np.ndarray] = []
    for line, word, numbers in _lines(path, most):
        try:
            row = np.array(numbers, dtype=np.float32)
        except ValueError as error:
            raise UserError(
                f"dataset.vectors={path}: line {line} is no word with numbers ({error})"
            ) from error
        size = len(rows[0]) if rows else len(row)
        if not len(row) or len(row) != size or not np.isfinite(row).all():
            raise UserError(
                f"dataset.vectors={path}: line {line} has {len(row)} numbers for {word[:20]!r} (valid: a "
                f"word and {size or 'its'} finite numbers)"
            )
        rows.append(row)
    if not rows:
        raise UserError(f"dataset.vectors={path}: no word in it (valid: a word and its numbers a line)")
    return torch.from_numpy(np.stack(rows))


def _lines(path: Path, most: int) -> Iterator[tuple[int, str, list[str]]]:
    """Lines by their numbers from 1, words, and their numbers as text."""
    size, found = 0, 0
    try:
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line, text in enumerate(file, 1):
                parts = text.rstrip().split(" ")
                if line == 1 and len(parts) == 2:
                    continue
                if found == most:
                    return
                # a word may have spaces in it, as some of the largest GloVe file do
                size = size or len(parts) - 1
                begin = max(len(parts) - size, 1)
                found += 1
                yield line, " ".join(parts[:begin]), parts[begin:]
    except OSError as error:
        raise UserError(
            f"dataset.vectors={path}: {error.strerror}{from_here(path)} (valid: a file of word vectors)"
        ) from error
