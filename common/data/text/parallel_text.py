"""Pairs of sentences from files: read line by line, and divided so that nothing judged is trained on."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.base.dataset import SplitName
from common.base.errors import UserError
from common.data.shared.text_file import FaultyLineError, read_text, refuse_lines

# characters of a line that is shown
SHOWN = 40
# of 100 buckets of pairs that come undivided, the first that is for validation, and for testing
VALIDATION_FROM, TEST_FROM = 80, 90


@dataclass(frozen=True)
class Pairs:
    """Sentences of two languages.

    Attributes:
        sources, targets: as many of each; the sentence i of one is the translation of that of the other.
        lines: of the file, where each stands, from 1; empty where there is no one file.
        name: of the file, for what is said.
    """

    sources: list[str]
    targets: list[str]
    lines: list[int] = field(default_factory=list)
    name: str = ""

    def __len__(self) -> int:
        return len(self.sources)

    def take(self, kept: Sequence[int]) -> "Pairs":
        """Those at some places, in that order."""
        lines = [self.lines[place] for place in kept] if self.lines else []
        return Pairs([self.sources[p] for p in kept], [self.targets[p] for p in kept], lines, self.name)


Splits = dict[SplitName, Pairs]


def lines_of(path: Path, encoding: str = "utf-8", of: str = "dataset.") -> list[str]:
    """The lines of a file; nothing but a line feed, with or without a carriage return, ends one.

    Args:
        path, encoding, of: see `read_text`.

    Raises:
        UserError: as `read_text`.
    """
    lines = read_text(path, encoding, of).replace("\r\n", "\n").split("\n")
    return lines[:-1] if not lines[-1] else lines


def read_pair(source: Path, target: Path, encoding: str = "utf-8") -> Pairs:
    """Two files of which each line is the translation of that of the other.

    Raises:
        UserError: one has more lines; as `read_text`.
    """
    sources, targets = lines_of(source, encoding), lines_of(target, encoding)
    if len(sources) != len(targets):
        (longer, lines), (shorter, fewer) = sorted(
            [(source, sources), (target, targets)], key=lambda one: -len(one[1])
        )
        raise UserError(
            f"dataset.path={source}: {shorter.name} has {len(fewer)} lines and {longer.name} {len(lines)}, "
            f"so lines are no pairs from some line on (valid: as many; {longer.name} goes on with line "
            f"{len(fewer) + 1}: {cut(lines[len(fewer)])!r})"
        )
    return Pairs(sources, targets, list(range(1, len(sources) + 1)), source.name)


def read_table(path: Path, encoding: str = "utf-8") -> Pairs:
    """A file with a pair a line: the source, a tab, the target; what comes after another tab is left out.

    Raises:
        UserError: lines without a tab; as `read_text`.
    """
    lines = lines_of(path, encoding)
    rows = [line.split("\t") for line in lines]
    valid = "(valid: source, tab, target in each line; or two files: dataset.target_path=FILE)"
    refuse_lines(
        f"dataset.path={path}",
        [
            FaultyLineError(number, f"has no tab: {cut(line)!r} {valid}")
            for number, (line, row) in enumerate(zip(lines, rows, strict=True), 1)
            if len(row) == 1 and line.strip()
        ],
    )
    sources, targets = [row[0] for row in rows], [row[1] if len(row) > 1 else "" for row in rows]
    return Pairs(sources, targets, list(range(1, len(lines) + 1)), path.name)


def divided(pairs: Pairs) -> tuple[Splits, int]:
    """80% for training, 10% each for validation and testing, and how many pairs were left out for it.

    A pair's part follows from a hash of its source's letters and digits alone, so that it depends neither on
    the others nor on their order, and sentences that differ in punctuation or case stay together. A training
    pair whose target is that of a judged pair, or a validation pair whose target is one of the test split, is
    left out.
    """
    buckets = [_bucket(source) for source in pairs.sources]
    places: dict[SplitName, list[int]] = {
        "train": [place for place, bucket in enumerate(buckets) if bucket < VALIDATION_FROM],
        "validation": [p for p, bucket in enumerate(buckets) if VALIDATION_FROM <= bucket < TEST_FROM],
        "test": [place for place, bucket in enumerate(buckets) if bucket >= TEST_FROM],
    }
    known = _cores(pairs, places["test"])
    parts: Splits = {"test": pairs.take(places["test"])}
    for split in ("validation", "train"):
        kept = [place for place in places[split] if core(pairs.targets[place]) not in known]
        known |= _cores(pairs, kept)
        parts[split] = pairs.take(kept)
    left_out = len(pairs) - sum(map(len, parts.values()))
    return {split: parts[split] for split in places}, left_out


def _cores(pairs: Pairs, places: Sequence[int]) -> set[str]:
    """What makes the targets at some places the same as others; an empty one is the same as none.

    Whoever leaves out pairs with an empty line counts them.
    """
    return {core(pairs.targets[place]) for place in places if pairs.targets[place].strip()}


def core(text: str) -> str:
    """What of a text makes it the same as another one: its letters and digits, without case."""
    return "".join(filter(str.isalnum, text.casefold())) or text


def cut(line: str) -> str:
    """The beginning of a line."""
    return line if len(line) <= SHOWN else line[:SHOWN] + "..."


def digest(text: str) -> bytes:
    """A hash of the text's `core`, the same everywhere."""
    return hashlib.sha256(core(text).encode(errors="replace")).digest()


def _bucket(text: str) -> int:
    return int.from_bytes(digest(text)[:8], "big") % 100
