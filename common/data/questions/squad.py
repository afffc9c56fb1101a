"""SQuAD 1.1 from local files, and files of the user's own in its format."""

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import ClassVar, Unpack

from common.base.dataset import JUDGING, Batch, Origin, SplitName, check
from common.base.errors import UserError
from common.base.phases import counted
from common.data.questions.passages import Asked, Splits
from common.data.questions.question_data import QuestionData, QuestionOptions
from common.data.questions.squad_file import read_questions
from common.data.shared.own_parts import file_of_part, require_part, require_path, trained_on
from common.data.shared.sequences import in_order
from common.data.shared.text_file import cut

# the names of the files of each part in a folder
NAMES: dict[SplitName, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("valid", "val", "validation", "dev"),
    "test": ("test",),
}
# groups of passages that a file must have to be parted
LEAST = 10


class Squad(QuestionData):
    """SQuAD 1.1, articles of Wikipedia: 87,599 questions to train on; the official dev set for testing.

    The official test set was never published. Rajpurkar et al. 2016; https://rajpurkar.github.io/SQuAD-explorer

    Args:
        train_file, test_file: in `data_dir/squad`.
        validation: the share of the training articles, the last of the file, that is for validation.
        encoding: of the files, by its name in Python.
        The others as in `QuestionData`.

    Raises:
        UserError: a share outside [0, 1), here; in `setup` a file that is missing, what `read_questions`
            refuses, and without `verify=false` other numbers of questions than the makers'.
    """

    NAME: ClassVar = "squad"
    TRAIN_SIZE: ClassVar = 87_599
    TEST_SIZE: ClassVar = 10_570
    SIZES: ClassVar[dict[str, int]] = {"train-v1.1.json": TRAIN_SIZE, "dev-v1.1.json": TEST_SIZE}
    FROM: ClassVar = "https://rajpurkar.github.io/SQuAD-explorer/dataset/"

    def __init__(
        self,
        *,
        train_file: str,
        test_file: str,
        validation: float,
        encoding: str,
        **options: Unpack[QuestionOptions],
    ) -> None:
        check("validation", validation, 0 <= validation < 1, "give a share from 0 to below 1")
        super().__init__(**options)
        self.files: dict[str, str] = {"train": train_file, "test": test_file}
        self.validation, self.text_encoding = validation, encoding

    def sources(self) -> dict[str, Path]:
        """The files of training and testing, and that of word vectors."""
        found = {split: self.data_dir / self.NAME / name for split, name in self.files.items()}
        return found | ({} if self.vectors is None else {"vectors": self.vectors})

    def read(self) -> Splits:
        """The three splits."""
        found = self._read("train")
        train, validation = _parted_by_source(found, self.validation)
        return {"train": train, "validation": validation, "test": self._read("test")}

    def _read(self, part: str) -> Asked:
        path = self.data_dir / self.NAME / self.files[part]
        if not path.is_file():
            raise UserError(
                f"{path.resolve()} is missing: put {self.FROM}{path.name} there (other names: "
                f"dataset.{part}_file=...); or take dataset=python_questions, or dataset.source=synthetic"
            )
        found = read_questions(path, self.text_encoding, self.verify)
        wanted = self.SIZES.get(path.name, len(found.questions))
        if self.verify and len(found.questions) != wanted:
            raise UserError(
                f"{path.resolve()}: {len(found.questions)} questions instead of {wanted} "
                "(dataset.verify=false takes it as it is)"
            )
        return found


def _parted_by_source(found: Asked, share: float) -> tuple[Asked, Asked]:
    """All but the questions of the last articles, and those; the articles are a share of all."""
    sources = list(dict.fromkeys(passage.source for passage in found.passages))
    held = set(sources[len(sources) - round(share * len(sources)) :])
    places: tuple[list[int], list[int]] = ([], [])
    for place, question in enumerate(found.questions):
        places[found.passages[question.passage].source in held].append(place)
    check("validation", share, bool(places[0]), "leaves no article to train on")
    other = Asked(found.passages, found.questions)
    return found.take(places[0]), other.take(places[1])


class OwnQuestions(QuestionData):
    """Questions of a file in their order: the first 80% for training, 10% for validation, 10% for testing.

    A file is parted between articles (by their titles), or between passages where it has fewer than ten
    articles, so that no passage is in two parts; passages of a folder, or of two articles, that are in
    training and in what is judged are counted in `repairs`.

    Args:
        path: of a file in SQuAD's format, or of a folder with train.json, valid.json (or dev) and test.json.
        encoding: of the files, by its name in Python.
        origin: of a network that is to be judged: all questions are then for testing, or test.json of a
            folder; of the file that it was trained on, its last 10%.
        The others as in `QuestionData`.

    Raises:
        UserError: no path, here; in `setup` a file that is missing, what `read_questions` refuses, fewer
            than ten passages in one.
    """

    NAME: ClassVar = "question_file"

    def __init__(
        self, *, path: str, encoding: str, origin: Origin | None = None, **options: Unpack[QuestionOptions]
    ) -> None:
        synthetic = options["source"] == "synthetic"
        check("path", path, bool(path) or synthetic, "give your file of passages and questions")
        self.path, self.text_encoding, self.origin = Path(path).expanduser(), encoding, origin
        if not synthetic:
            require_path(self.path, "a file in SQuAD's format")
        super().__init__(**options)
        self.held_out = origin is None or trained_on(origin, self.sources())

    @property
    def train_size(self) -> int:
        return self.size("train")

    def sources(self) -> dict[str, Path]:
        """The file, or the folder of the three, and that of word vectors."""
        return {"questions": self.path} | ({} if self.vectors is None else {"vectors": self.vectors})

    def tested(self) -> str:
        """Which questions of which file are judged."""
        if self.source == "synthetic":
            return super().tested()
        if self.path.is_dir():
            return f"the questions of {_file(self.path, 'test')}"
        return f"the last 10% of {self.path}" if self.held_out else f"all questions of {self.path}"

    def read(self) -> Splits:
        """The three splits."""
        found = questions_of(str(self.path), self.text_encoding, self.verify, self.held_out)
        if self.origin is None:
            sizes = ", ".join(f"{len(asked.questions)} {split}" for split, asked in found.items())
            print(f"dataset=question_file: {sizes} questions", file=sys.stderr)
        known = {passage.text for passage in found["train"].passages}
        for split in ("validation", "test"):
            again = [passage.text for passage in found[split].passages if passage.text in known]
            if again:
                what = f"{split} passages that stand in training too (the first: {cut(again[0])!r})"
                self.repairs[what] = len(again)
        return dict(found)

    def batches(self, split: SplitName, batch_size: int) -> Iterator[Batch]:
        """The whole split in order; a long passage makes its batch a smaller one."""
        asked = self.asked(split)
        lengths = [len(asked.passages[question.passage].places) for question in asked.questions]
        parts = in_order(lengths, batch_size, batch_size * self.longest_passage)
        for part in counted(parts, JUDGING[split], len(parts), "batches"):
            yield self.batch(split, part, augment=False)


@cache
def questions_of(path: str, encoding: str, verify: bool, parted: bool) -> Splits:
    """The questions of each split; not `parted`: all of a file are for testing."""
    where = Path(path)
    if where.is_dir():
        splits: tuple[SplitName, ...] = ("train", "validation", "test") if parted else ("test",)
        files = {split: require_part(where, NAMES[split], (".json",)) for split in splits}
        of_folder = {split: read_questions(file, encoding, verify) for split, file in files.items()}
        return {split: of_folder.get(split, Asked()) for split in NAMES}
    found = read_questions(where, encoding, verify)
    if not parted:
        return {"train": Asked(), "validation": Asked(), "test": found}
    return parted_in_order(found, path)


def parted_in_order(found: Asked, path: str) -> Splits:
    """The first 80%, the next and the last 10% of articles, or of passages where there are few articles.

    Raises:
        UserError: fewer than ten passages.
    """
    names = [passage.source for passage in found.passages]
    if len(set(names)) < LEAST:
        names = [passage.text for passage in found.passages]
    order = {name: place for place, name in enumerate(dict.fromkeys(names))}
    many = len(order)
    check("path", path, many >= LEAST, f"it has {many} passages (valid: at least {LEAST}, for three splits)")
    parts: dict[SplitName, list[int]] = {"train": [], "validation": [], "test": []}
    for place, question in enumerate(found.questions):
        share = order[names[question.passage]] * 10 // many
        parts["train" if share < 8 else "validation" if share == 8 else "test"].append(place)
    plain = Asked(found.passages, found.questions)
    splits: Splits = {split: plain.take(places) for split, places in parts.items()}
    # what was left out or repaired is told once, of the whole file
    splits["train"].notes.update(found.notes)
    return splits


def _file(folder: Path, split: SplitName) -> Path:
    return file_of_part(folder, NAMES[split], (".json",))
