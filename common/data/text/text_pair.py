"""Sentences and their translations from files of the user's own."""

import sys
from pathlib import Path
from typing import Any, ClassVar, Unpack

import torch

from common.base.dataset import Origin, SplitName, check
from common.base.errors import UserError
from common.data.shared.own_parts import trained_on
from common.data.text.parallel_text import Pairs, Splits, cut, divided, read_pair, read_table
from common.data.text.pieces import as_json, from_json
from common.data.text.translation_data import TranslationData, TranslationOptions

# the stems of the files of each split in a folder
STEMS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("valid", "val", "validation", "dev"),
    "test": ("test",),
}
# so many pairs have a tenth of them for each of two splits, but by bad luck
LEAST = 100
TABLES = (".tsv", ".txt", ".tab")
# tokens of a sentence that is judged or translated: the time that it takes grows with their square
MOST = 2_000


class TextPair(TranslationData):
    """Two text files, line by line; a file with a source, a tab and a target in each line; or a folder.

    Of files 80% of the pairs are for training and 10% each for validation and testing, so that no side of
    what is judged is trained on (`common.data.text.parallel_text.divided`). A folder has the splits as they
    are: train.en, train.de, valid.en, ..., test.de with `languages: [en, de]`, or train.tsv, valid.tsv and
    test.tsv; pairs of valid and test that stand in train too stay, and are counted in `repairs`.

    Args:
        path: of the file or the folder.
        target_path: of the file with the translations; null where `path` is a table or a folder.
        languages: the suffixes of a folder's files, source and target.
        encoding: of the files, by its name in Python.
        origin: of a network that is to be judged: its vocabulary counts, and all pairs are for testing, or
            the test files of a folder; of the file that it was trained on, the tenth that it did not see.
        The others as in `TranslationData`.

    Raises:
        UserError: no path, or a folder with a `target_path`, here; files that are missing, no text or no
            pairs, a judged sentence of more than 2,000 tokens, in `setup`.
    """

    NAME: ClassVar = "text_pair"

    def __init__(
        self,
        *,
        path: str,
        target_path: str | None,
        languages: list[str],
        encoding: str,
        origin: Origin | None = None,
        **options: Unpack[TranslationOptions],
    ) -> None:
        check(
            "path",
            path,
            bool(path) or options["source"] == "synthetic",
            "give your text file, table or folder",
        )
        check("languages", languages, len(languages) == 2, "give the suffixes of two languages, as [en,de]")
        self.path = Path(path).expanduser()
        self.target_path = None if target_path is None else Path(target_path).expanduser()
        self.languages, self.encoding_name, self.origin = languages, encoding, origin
        if self.target_path is not None and self.path.is_dir():
            raise UserError(
                f"dataset.target_path={target_path}: dataset.path={path} is a folder, which has both "
                "languages (valid: two files, or the folder alone)"
            )
        super().__init__(**options)
        self.held_out = origin is None or trained_on(origin, self.sources())

    def sources(self) -> dict[str, Path]:
        """The files, or the folder."""
        target = {} if self.target_path is None else {"target": self.target_path}
        return {"source": self.path} | target

    def tested(self) -> str:
        """Which part of which files is judged."""
        if self.source == "synthetic":
            return super().tested()
        if self.path.is_dir():
            return f"the test files of {self.path}"
        return f"{'a tenth' if self.held_out else 'all'} of the pairs of {self.path}"

    def encoding(self) -> dict[str, Any]:
        """The vocabulary, and how a line becomes tokens."""
        self.setup()
        return {
            "pieces": as_json(self.pieces),
            "preparation": "white space as single spaces, Unicode's form NFC, then the pieces of the line by "
            "their numbers, then 2; 0 is padding, 1 the begin of a target, 3 what is no piece",
        }

    def adopt(self, facts: dict[str, Any]) -> None:
        """Read what is judged; the vocabulary of `origin` counts already."""
        if self.origin is None:
            super().adopt(facts)
        self.setup()

    def setup(self, stage: str | None = None) -> None:
        """Read the pairs (once), say how many, and learn the vocabulary; of a judged set the test split."""
        if self.origin is None or self.source == "synthetic" or self._pairs:
            first = not self._pairs
            super().setup(stage)
            if first and self.source == "real":
                sizes = ", ".join(f"{len(pairs)} {split}" for split, pairs in self._pairs.items())
                print(f"dataset=text_pair: {sizes} pairs", file=sys.stderr)
            return
        test = self._clean(self._judged(), "test")
        chosen = self.judged(len(test))
        self.pieces = from_json(self.origin.facts["pieces"])
        self._add("test", test if chosen is None else test.take(chosen.tolist()))

    def _judged(self) -> Pairs:
        """The pairs that a network is judged on."""
        if self.path.is_dir():
            return self._of_folder(STEMS["test"])
        pairs = self._of_files()
        return divided(pairs)[0]["test"] if self.held_out else pairs

    def _add(self, split: SplitName, pairs: Pairs) -> None:
        """See `TranslationData`; a judged sentence that is far too long is refused."""
        super()._add(split, pairs)
        if split == "train":
            return
        lengths = torch.maximum(*(side.lengths for side in self._tokens[split]))
        if lengths.max() > MOST:
            first = int((lengths > MOST).nonzero()[0])
            raise UserError(
                f"dataset.path={self.path}: line {pairs.lines[first]} of {pairs.name} has "
                f"{int(lengths[first])} tokens, and is to be judged "
                f"({cut(pairs.sources[first])!r}; valid: up to {MOST}, so divide it into several lines)"
            )

    def read(self) -> Splits:
        """The pairs of each split."""
        if self.path.is_dir():
            splits = {split: self._of_folder(stems) for split, stems in STEMS.items()}
            self._count_known(splits)
            return splits
        pairs = self._of_files()
        found, left_out = divided(pairs)
        if len(pairs) < LEAST and not all(found.values()):
            raise UserError(
                f"dataset.path={self.path}: its {len(pairs)} pairs do not give three splits (valid: some "
                f"{LEAST} or more, or a folder with train, valid and test)"
            )
        if left_out:
            self.repairs["pairs whose target stands in a judged split too, left out"] = left_out
        return found

    def _of_files(self) -> Pairs:
        """The pairs of two files or of a table."""
        if self.target_path is not None:
            return read_pair(self.path, self.target_path, self.encoding_name)
        return read_table(self.path, self.encoding_name)

    def _count_known(self, splits: Splits) -> None:
        """Say how many pairs that are judged stand in training too."""
        train = splits["train"]
        known = set(zip(train.sources, train.targets, strict=True))
        for split in ("validation", "test"):
            pairs = splits[split]
            both = zip(pairs.sources, pairs.targets, strict=True)
            again = [place for place, pair in enumerate(both) if all(pair) and pair in known]
            if again:
                self._note(pairs, len(again), f"{split} pairs that stand in training too", again[0])

    def _of_folder(self, stems: tuple[str, ...]) -> Pairs:
        for stem in stems:
            pair = [self.path / f"{stem}.{language}" for language in self.languages]
            if all(path.is_file() for path in pair):
                return read_pair(pair[0], pair[1], self.encoding_name)
            for suffix in TABLES:
                if (table := self.path / f"{stem}{suffix}").is_file():
                    return read_table(table, self.encoding_name)
        source, target = self.languages
        raise UserError(
            f"dataset.path={self.path}: it has neither {stems[0]}.{source} with {stems[0]}.{target} nor "
            f"{stems[0]}.tsv (valid: such files for train, valid and test; other suffixes: "
            "dataset.languages=[en,de])"
        )
