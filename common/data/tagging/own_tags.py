"""A file of the user's own tagged sentences: what must be known of it is found from the file."""

import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import ClassVar, Unpack

from common.base.dataset import JUDGING, Batch, Origin, SplitName, check
from common.base.errors import UserError
from common.base.phases import counted
from common.data.shared.own_parts import as_trained, file_of_part, require_part, require_path, trained_on
from common.data.shared.sequences import in_order
from common.data.shared.text_file import cut
from common.data.tagging.schemes import OUTSIDE, FileScheme, Scheme, check_types, split_tag
from common.data.tagging.tagged_file import Sentence, read_sentences
from common.data.tagging.tagging_data import USUAL_LENGTH, Splits, TaggingData, TaggingOptions

# the names of the files of each part in a folder, with any of these endings
NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("valid", "val", "validation", "dev", "devel"),
    "test": ("test",),
}
ENDINGS = (".txt", ".tsv", ".conll", ".iob", ".bio")


class OwnTags(TaggingData):
    """Sentences of a file in their order: the first 80% for training, 10% for validation, 10% for testing.

    Sentences of validation and testing that stand in training too are counted in `repairs`.

    Args:
        path: of a file, or of a folder with train.txt, valid.txt (or dev) and test.txt, also as .tsv, .conll,
            .iob or .bio.
        file_scheme: of the file's tags.
        encoding: of the files, by its name in Python.
        origin: of a network that is to be judged: tags are then its own, and all sentences are for testing,
            or test.txt of a folder; of the file that it was trained on, its last 10%.
        The others as in `TaggingData`.

    Raises:
        UserError: a file that is missing or whose lines are not what they should be, fewer than ten
            sentences in one, no entity in training; with `origin`, tags that it has not.
    """

    NAME: ClassVar = "tagged_file"

    def __init__(
        self,
        *,
        path: str,
        file_scheme: FileScheme,
        encoding: str,
        origin: Origin | None = None,
        **options: Unpack[TaggingOptions],
    ) -> None:
        check("path", path, bool(path), "give your file of words and tags")
        self.path, self.origin = Path(path).expanduser(), origin
        require_path(self.path, "a file of words and tags")
        scheme, longest = options["scheme"], options["longest"]
        self.held_out = origin is None or trained_on(origin, self.sources())
        self._splits = splits_of(str(self.path), file_scheme, scheme, encoding, longest, self.held_out)
        self._types = _types(self._splits["train" if self.held_out else "test"])
        if origin is not None:
            self._types = _known(self.path, self._types, origin, scheme)
        if not self._types:
            raise UserError(
                f"dataset.path={self.path}: no entity in what is trained on: every tag is {OUTSIDE} (valid: "
                "tags as B-TYPE)"
            )
        check_types("path", self._types)
        super().__init__(**options)
        if options["source"] == "real" and origin is None:
            sizes = ", ".join(f"{len(found)} {split}" for split, found in self._splits.items())
            print(f"dataset=tagged_file: {sizes} sentences; {', '.join(self._types)}", file=sys.stderr)

    @property
    def types(self) -> list[str]:
        return self._types

    @property
    def train_size(self) -> int:
        return len(self._splits["train"])

    def sources(self) -> dict[str, Path]:
        """The file, or the folder of the three."""
        return {"sentences": self.path}

    def tested(self) -> str:
        """Which sentences of which file are judged."""
        if self.source == "synthetic":
            return super().tested()
        if self.path.is_dir():
            return f"the sentences of {_file(self.path, 'test')}"
        return f"the last 10% of {self.path}" if self.held_out else f"all sentences of {self.path}"

    def read(self) -> Splits:
        """The three splits."""
        foreign = {*_types(self._splits["test"]), *_types(self._splits["validation"])} - {*self._types}
        if foreign:
            raise UserError(
                f"dataset.path={self.path}: training has no entity of type {', '.join(sorted(foreign))}, and "
                "what it is judged on has (valid: all types in training)"
            )
        known = {sentence.words for sentence in self._splits["train"]}
        for split in ("validation", "test"):
            again = [sentence.words for sentence in self._splits[split] if sentence.words in known]
            if again:
                first = cut(" ".join(again[0]))
                self.repairs[f"{split} sentences that stand in training too (the first: {first!r})"] = len(
                    again
                )
        return self._splits

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split in order; a long sentence makes its batch a smaller one."""
        lengths = [len(sentence.words) for sentence in self.sentences(split)]
        parts = in_order(lengths, batch_size, batch_size * USUAL_LENGTH)
        for part in counted(parts, JUDGING[split], len(parts), "batches"):
            yield self.batch(split, part, augment=False)


def _types(sentences: Sequence[Sentence]) -> list[str]:
    """The types of entities in sentences, sorted."""
    return sorted({kind for one in sentences for tag in one.tags if (kind := split_tag(tag)[1])})


def _known(path: Path, found: list[str], origin: Origin, scheme: Scheme) -> list[str]:
    """The types of a network, in their order.

    Raises:
        UserError: it has not all that are found.
    """
    theirs = list(
        dict.fromkeys(kind for tag in origin.facts["class_names"] or () if (kind := split_tag(tag)[1]))
    )
    return as_trained(found, theirs, path, "types of entities are not those of training")


@cache
def splits_of(
    path: str, file_scheme: FileScheme, scheme: Scheme, encoding: str, longest: int, parted: bool
) -> Splits:
    """The sentences of each split; not `parted`: all of a file are for testing."""

    def read(file: Path) -> list[Sentence]:
        return read_sentences(file, file_scheme, scheme, encoding, longest)

    where = Path(path)
    if where.is_dir():
        if parted:
            return {split: read(require_part(where, names, ENDINGS)) for split, names in NAMES.items()}
        test = require_part(where, NAMES["test"], ENDINGS)
        return {"train": [], "validation": [], "test": read(test)}
    found = read(where)
    if not parted:
        return {"train": [], "validation": [], "test": found}
    check(
        "path",
        path,
        len(found) >= 10,
        f"it has {len(found)} sentences (valid: at least 10, for three splits)",
    )
    first, second = len(found) * 8 // 10, len(found) * 9 // 10
    return {"train": found[:first], "validation": found[first:second], "test": found[second:]}


def _file(folder: Path, split: SplitName) -> Path:
    return file_of_part(folder, NAMES[split], ENDINGS)
