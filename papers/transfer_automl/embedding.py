"""Embedding modules: word vectors from a file, or hashed words in their place.

The paper's modules were trained on billions of words and cannot be had here. A module with a `file` reads
GloVe's text format (a word and its numbers in each line). One without is a substitute: the vector of a word
is that of the bucket that it is hashed to, drawn from a fixed seed. What is computed with it is marked
`substitute_embedding`.
"""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from common.base.errors import UserError

# vectors of a substitute are those of no language, but always the same
SEED = 20_181_203


@dataclass(frozen=True)
class Module:
    """An embedding module.

    Attributes:
        dim: of its vectors.
        file: of its word vectors; None: hashed words.
    """

    dim: int
    file: str | None


def bucket(word: str, buckets: int) -> int:
    """Where a word is hashed to, the same on every machine."""
    return zlib.crc32(word.encode()) % buckets


@lru_cache(maxsize=8)
def hashed(dim: int, buckets: int) -> np.ndarray:
    """Vectors of buckets, standard normal over sqrt(dim): float32 [buckets, dim]."""
    random = np.random.default_rng((SEED, dim))
    return (random.standard_normal((buckets, dim)) / dim**0.5).astype(np.float32)


def vectors(module: Module, words: Iterable[str], buckets: int) -> tuple[dict[str, int], np.ndarray]:
    """The rows that words have, and the vectors of the rows, float32 [rows, dim].

    A word that the file has not has none.

    Raises:
        UserError: a file that is missing, is no such file, or has vectors of another dimension.
    """
    wanted = sorted(set(words))
    if module.file is None:
        used = sorted({bucket(word, buckets) for word in wanted})
        place = {number: row for row, number in enumerate(used)}
        rows = {word: place[bucket(word, buckets)] for word in wanted}
        return rows, hashed(module.dim, buckets)[used]
    found = _read(module.file, module.dim, frozenset(wanted))
    known = [word for word in wanted if word in found]
    if not known:
        raise UserError(f"model.embeddings: {module.file} knows none of the task's words")
    return {word: row for row, word in enumerate(known)}, np.stack([found[word] for word in known])


@lru_cache(maxsize=8)
def _read(file: str, dim: int, wanted: frozenset[str]) -> dict[str, np.ndarray]:
    path = Path(file).expanduser()
    found: dict[str, np.ndarray] = {}
    try:
        with path.open(encoding="utf-8", errors="replace") as lines:
            for number, line in enumerate(lines, 1):
                parts = line.rstrip().split(" ")
                if number == 1 and len(parts) == 2:
                    # word2vec's and fastText's first line: how many, of what dimension
                    continue
                if len(parts) != dim + 1:
                    raise UserError(
                        f"model.embeddings: {path} has {len(parts) - 1} numbers in line {number}, and "
                        f"the module "
                        f"has dimension {dim} (valid: a file of that dimension, or model.embeddings.NAME.dim="
                        f"{len(parts) - 1})"
                    )
                if parts[0] in wanted:
                    found[parts[0]] = np.array(parts[1:], dtype=np.float32)
    except OSError as error:
        raise UserError(
            f"model.embeddings: {path}: {error.strerror} (valid: a file of word vectors)"
        ) from error
    except ValueError as error:
        raise UserError(
            f"model.embeddings: {path}: line {number} is no word with numbers ({error})"
        ) from error
    return found
