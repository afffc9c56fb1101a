"""Sentences and their translations from files of the user's own."""

from pathlib import Path
from typing import ClassVar, Unpack

from common.base.dataset import SplitName, check
from common.base.errors import UserError
from common.data.text.parallel_text import Pairs, Splits, divided, read_pair, read_table
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


class TextPair(TranslationData):
    """Two text files, line by line; a file with a source, a tab and a target in each line; or a folder.

    Of files 80% of the pairs are for training and 10% each for validation and testing, so that no side of
    what is judged is trained on (`common.data.text.parallel_text.divided`). A folder has the splits as they
    are: train.en, train.de, valid.en, ..., test.de with `languages: [en, de]`, or train.tsv, valid.tsv and
    test.tsv.

    Args:
        path: of the file or the folder.
        target_path: of the file with the translations; null where `path` is a table or a folder.
        languages: the suffixes of a folder's files, source and target.
        encoding: of the files, by its name in Python.
        The others as in `TranslationData`.

    Raises:
        UserError: no path, here; files that are missing, no text or no pairs, in `setup`.
    """

    NAME: ClassVar = "text_pair"

    def __init__(
        self,
        *,
        path: str,
        target_path: str | None,
        languages: list[str],
        encoding: str,
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
        self.languages, self.encoding_name = languages, encoding
        super().__init__(**options)

    def sources(self) -> dict[str, Path]:
        """The files, or the folder."""
        target = {} if self.target_path is None else {"target": self.target_path}
        return {"source": self.path} | target

    def tested(self) -> str:
        """Which part of which files is judged."""
        return (
            f"the test files of {self.path}" if self.path.is_dir() else f"a tenth of the pairs of {self.path}"
        )

    def read(self) -> Splits:
        """The pairs of each split."""
        if self.path.is_dir():
            return {split: self._of_folder(stems) for split, stems in STEMS.items()}
        if self.target_path is not None:
            pairs = read_pair(self.path, self.target_path, self.encoding_name)
        else:
            pairs = read_table(self.path, self.encoding_name)
        found, left_out = divided(pairs)
        if len(pairs) < LEAST and not all(found.values()):
            raise UserError(
                f"dataset.path={self.path}: its {len(pairs)} pairs do not give three splits (valid: some "
                f"{LEAST} or more, or a folder with train, valid and test)"
            )
        if left_out:
            self.repairs["pairs whose target stands in a judged split too, left out"] = left_out
        return found

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
