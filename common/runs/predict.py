"""`predict.py`: what a network says of the user's own pictures, drawn and written down, and of texts."""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.command import refuse_options, run_or_help
from common.base.errors import UserError
from common.base.files import names_beside
from common.runs.cli import guarded
from common.runs.export import SCORE, share
from common.runs.predict_files import Asked
from common.runs.predict_kinds import answerer, run_on_files
from common.runs.refusal import refuse_near

if TYPE_CHECKING:
    from collections import Counter
    from io import TextIOWrapper

    from common.pictures.answers import Answer
    from common.runs.pictures import Item, Source
    from common.runs.predictor import Predictor, Told
    from common.runs.trained import Finished

HELP = """What a network says of your pictures, texts or clouds: the network first, then the files.

  python predict.py paper=yogi dataset=digits photos         a run by its words, a folder of pictures
  python predict.py outputs/yogi/0123456789ab cat.jpg b.png  a run by its folder (or a file in it), two files
  python predict.py network.onnx clip.gif                    an ONNX file of export.py, an animation
  python predict.py deployed photos to=answers top=3         a folder with a state dict of export.py
  python predict.py outputs/pmf_automl/0123456789ab new.csv  the pipeline of a table of yours, on new rows
  python predict.py outputs/yogi/0123456789ab new.en         a translator (dataset=text_pair, ...), a text
  python predict.py outputs/yogi/0123456789ab new.txt        a tagger (dataset=tagged_file, ...), a text
  python predict.py outputs/yogi/0123456789ab new.json       a reader (model=bidaf), passages with questions
  python predict.py outputs/yogi/0123456789ab scans          a network on clouds of points, a folder of them

Networks for classification give probabilities (the top=5 likeliest classes), detectors boxes of a probability
above score=0.3, those for segmentation the class of each pixel. Written are each picture with its answer
drawn, the classes of pixels as NAME.classes.png (the number of its class in each pixel, 255 for none), and
predictions.jsonl, one line for each picture. Files of these names in the folder to=predictions are replaced.

Pictures are JPEG, PNG, WebP, GIF, BMP, TIFF and PPM files, of any size and mode: turned upright by their
orientation mark, transparency on white, 16 bits scaled to 8. Folders are searched at any depth. Animations
(and TIFF files of several pages) are taken frame by frame, and so are videos where PyAV (pip install av) or
OpenCV is installed; every=10 takes each tenth frame. A file that cannot be read is named, the others are
done, and the exit code is 1.

Pictures are prepared as in the run's own evaluation, but for the rounding of resized pixels. For rows of a
table there is evaluate.py, and for a pipeline of paper=pmf_automl this command: it writes predictions.csv.

Texts are in UTF-8 or say what they are in by a mark; encoding=latin-1 reads others. A translator takes a
sentence a line: translations.txt has as many lines, translations.jsonl both sides. A tagger takes a sentence
a line, or a word a line and empty lines between sentences: tags.conll has words with tags, entities.jsonl the
entities of each sentence and where they stand. Passages with questions are .json files in SQuAD's format,
which need no answers: answers.jsonl has of each question its answer, where it stands and its probability,
answers.json the texts by the questions' ids. Of clouds (.npy, .csv, .xyz, .pts, .txt, .off) clouds.jsonl has
the likeliest classes. Of several texts each has a folder in to=, by its name."""
DEFAULTS = {"to": "predictions", "top": "5", "every": "1", "score": str(SCORE), "encoding": "utf-8"}
# options that networks heed beside to=: on pictures by their task, on files by the kind of their data
OF_PICTURES = {
    "classification": ("top", "every"),
    "detection": ("score", "every"),
    "segmentation": ("every",),
}
OF_FILES = {
    "question_answering": ("encoding",),
    "translation": ("encoding",),
    "sequence_tagging": ("encoding",),
    "point_cloud_classification": ("top",),
}
LINES = "predictions.jsonl"
MASK = ".classes.png"
# annotated pictures are JPEG where the picture was, else PNG
JPEG, QUALITY = (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), 92


@dataclass(frozen=True)
class Options:
    """How pictures are answered.

    Attributes:
        to: the folder for what is written.
        top: the classes that are named for a picture, at most.
        every: of animations and videos, each how manieth frame is taken.
        score: of detectors, the probability above which a box is given.
        encoding: of texts.
        said: the names of those that the user chose.
    """

    to: Path = Path(DEFAULTS["to"])
    top: int = int(DEFAULTS["top"])
    every: int = int(DEFAULTS["every"])
    score: float = float(DEFAULTS["score"])
    encoding: str = DEFAULTS["encoding"]
    said: tuple[str, ...] = ()

    def refuse_idle(self, heeded: Sequence[str], network: str) -> None:
        """Refuse an option that would change nothing.

        Args:
            heeded: those that do something beside `to`.
            network: what does not heed the others, for the message.

        Raises:
            UserError: one that was said and is not heeded.
        """
        valid = [f"{key}=" for key in ("to", *heeded)]
        for key in self.said:
            if f"{key}=" not in valid:
                raise UserError(f"{key}= does nothing for {network} (valid: {', '.join(valid)})")


@dataclass
class Done:
    """What came of it.

    Attributes:
        lines: the file of answers.
        pictures: how many were answered.
        faults: one line for each file that could not be read.
        seconds: all in all, without loading the network; of these `thinking` in the network.
    """

    lines: Path
    pictures: int = 0
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0
    thinking: float = 0.0


def main() -> int:
    """Run the command line; the exit code is 0, or 1 where something failed, with one line on stderr each."""
    return run_or_help(HELP, _predict, guarded, needs_words=True)


def _predict(words: list[str]) -> int:
    network, pictures, options = divided(words)
    for paths in ([Path(word).expanduser() for word in network if "=" not in word], pictures):
        _check_there(paths)
    if (folder := _pipeline_of(network)) is not None:
        options.refuse_idle((), "the pipeline of a table")
        _predict_rows(folder, pictures, options)
        return 0
    if (run := run_on_files(network, pictures)) is not None:
        kind = run.config.dataset.kind
        options.refuse_idle(OF_FILES[kind], f"a network on data of the kind {kind}")
        return _predict_files(run, Asked(pictures, options.to, options.top, options.encoding))
    done = predict(network, pictures, options)
    if done.pictures:
        print(
            f"{done.pictures} picture{'s' * (done.pictures != 1)} in {done.seconds:.3g} s: "
            f"{done.pictures / done.seconds:.3g} images a second (the network alone: "
            f"{done.pictures / done.thinking:.3g})"
        )
    print(f"predictions: {done.lines}")
    return 1 if done.faults else 0


def _predict_files(run: "Finished", asked: Asked) -> int:
    """Answer files that are no pictures, and say what was written; the exit code."""
    answers = answerer(run.config.dataset.kind)
    assert answers is not None
    done = answers(run, asked)
    for path in done.written:
        print(f"answers: {path}")
    print(f"{done.count} {done.what}{'s' * (done.count != 1)} answered")
    return 1 if done.faults else 0


def _check_there(paths: list[Path]) -> None:
    """Refuse a path that leads nowhere, before anything heavy is imported.

    Raises:
        UserError: it, and what there is.
    """
    for path in paths:
        if not path.exists():
            raise UserError(
                f"{path}: no such file or folder; there is {names_beside(path, ())} (valid: a network of "
                "outputs/PAPER/KEY or export.py, then files or folders of them)"
            )


def _pipeline_of(words: list[str]) -> Path | None:
    """The folder of the run that words name, where it leaves a pipeline for rows of a table; else None."""
    from common.runs.trained import find
    from papers.pmf_automl.saved_files import is_saved

    paths = [Path(word).expanduser() for word in words if "=" not in word]
    if paths:
        folder = paths[0] if paths[0].is_dir() else paths[0].parent
        return folder if is_saved(folder) else None
    if "paper=pmf_automl" not in words:
        return None
    folder = find(words).directory
    return folder if is_saved(folder) else None


def _predict_rows(folder: Path, tables: list[Path], options: Options) -> None:
    from papers.pmf_automl.saved import predict_rows

    for table in tables:
        to = options.to / table.stem if len(tables) > 1 else options.to
        print(f"predictions: {predict_rows(folder, table, to)}")


def divided(words: list[str]) -> tuple[list[str], list[Path], Options]:
    """The words that name the network, the paths of pictures, and the options.

    Where no word says `paper=` or `entry=`, the first path is the network's.

    Raises:
        UserError: no network or no picture is named, or an option has another value than it may.
    """
    keys = tuple(f"{key}=" for key in DEFAULTS)
    said = dict(word.split("=", 1) for word in words if word.startswith(keys))
    given = DEFAULTS | said
    rest = [word for word in words if not word.startswith(keys)]
    paths = [word for word in rest if "=" not in word or Path(word).expanduser().exists()]
    network = [word for word in rest if word not in paths]
    refuse_options(words)
    refuse_near(network, list(DEFAULTS))
    if not any(word.startswith(("paper=", "entry=")) for word in network):
        if not paths:
            raise UserError(
                "name a network first, then files (valid: paper=..., entry=..., outputs/PAPER/KEY, or a "
                "file of export.py)"
            )
        network.append(paths.pop(0))
    if not paths:
        raise UserError(
            f"{' '.join(network)} is the network; name files after it (valid: pictures, texts, folders)"
        )
    options = Options(
        to=Path(given["to"]).expanduser(),
        top=_whole("top", given["top"]),
        every=_whole("every", given["every"]),
        score=share("score", given["score"]),
        encoding=given["encoding"],
        said=tuple(said),
    )
    return network, [Path(path).expanduser() for path in paths], options


def _whole(key: str, text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"{key}={text}: give a whole number of at least 1")
    return int(text)


def predict(network: list[str], pictures: list[Path], options: Options) -> Done:
    """Answer pictures, and write what comes of it into `options.to`.

    Args:
        network: the words that name it.
        pictures: files and folders.
        options: how.

    Raises:
        UserError: see `predictor` and `listed`; what is written would replace a picture that was given; or an
            option that the network does not heed.
    """
    from common.runs.pictures import items, listed
    from common.runs.predictor import predictor

    sources, others = listed(pictures, options.to)
    targets = _targets(sources, options.to)
    _tell_left_out(others)
    asked = predictor(network)
    options.refuse_idle(OF_PICTURES[asked.told.task], f"a network for {asked.told.task}")
    options.to.mkdir(parents=True, exist_ok=True)
    done = Done(options.to / LINES)
    started = time.perf_counter()
    with done.lines.open("w") as file, ThreadPoolExecutor(os.cpu_count()) as executor:
        batch: list[Item] = []
        for item in _shown(items(sources, options.every, executor), len(sources)):
            if item.picture is None:
                _answer(batch, asked, targets, options, file, done, executor)
                batch = []
                _note_fault(item, file, done)
                continue
            batch.append(item)
            if len(batch) == asked.batch:
                _answer(batch, asked, targets, options, file, done, executor)
                batch = []
        _answer(batch, asked, targets, options, file, done, executor)
    done.seconds = time.perf_counter() - started
    return done


def _shown(pictures: "Iterator[Item]", count: int) -> "Iterator[Item]":
    """The pictures, with a bar in a terminal; of one file there is none."""
    from common.data.shared.prepare import bar

    return bar(pictures, "pictures", None) if count > 1 else pictures


def _tell_left_out(others: "Counter[str]") -> None:
    if others:
        found = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(3))
        print(f"left out, as no pictures: {found}{', ...' * (len(others) > 3)}", file=sys.stderr)


def _targets(sources: "list[Source]", folder: Path) -> "dict[Source, Path]":
    """Where the annotated picture of each file goes; of an animation, the folder of its frames, by its stem.

    Raises:
        UserError: that is one of the files themselves.
    """
    given = {source.path.resolve() for source in sources}
    taken: set[Path] = set()
    targets = {}
    for source in sources:
        suffix = source.path.suffix.lower() if source.path.suffix.lower() in JPEG else ".png"
        target = folder / source.place.with_suffix(suffix)
        number = 2
        while target in taken:
            target = folder / source.place.with_name(f"{source.place.stem}-{number}{suffix}")
            number += 1
        taken.add(target)
        if {target.resolve(), _mask_of(target).resolve()} & given:
            raise UserError(
                f"to={folder}: would replace the picture {source.path} itself (valid: another folder)"
            )
        targets[source] = target
    return targets


def _mask_of(target: Path) -> Path:
    return target.with_name(target.stem + MASK)


def _note_fault(item: "Item", file: "TextIOWrapper", done: Done) -> None:
    line = f"{item.source.path}: {item.fault}"
    done.faults.append(line)
    print(f"error: {line}", file=sys.stderr)
    _write_line(file, {"picture": str(item.source.path), "error": item.fault})


def _answer(
    batch: "list[Item]",
    asked: "Predictor",
    targets: "dict[Source, Path]",
    options: Options,
    file: "TextIOWrapper",
    done: Done,
    executor: ThreadPoolExecutor,
) -> None:
    """Ask the network of a batch of pictures, draw the answers and write them down."""
    if not batch:
        return
    started = time.perf_counter()
    pictures = [item.picture for item in batch if item.picture is not None]
    answers = asked.answers(pictures, options.score)
    done.thinking += time.perf_counter() - started

    def write(item: "Item", answer: "Answer") -> dict[str, Any]:
        return _written(item, answer, asked.told, targets[item.source], options)

    for line in executor.map(write, batch, answers):
        _write_line(file, line)
    done.pictures += len(batch)


def _write_line(file: "TextIOWrapper", content: dict[str, Any]) -> None:
    file.write(json.dumps(content, ensure_ascii=False) + "\n")
    # what is done stays, whatever happens to the rest
    file.flush()


def _written(item: "Item", answer: "Answer", told: "Told", target: Path, options: Options) -> dict[str, Any]:
    """Write the annotated picture, and give the line that describes its answer."""
    from PIL import Image

    from common.pictures.answers import Mask
    from common.pictures.drawing import drawn

    assert item.picture is not None
    if item.frame is not None:
        target = target.with_suffix("") / f"{item.frame:06d}.jpg"
    target.parent.mkdir(parents=True, exist_ok=True)
    image = drawn(item.picture, answer, told.class_names, options.top)
    # each format takes what it knows of these
    image.save(target, quality=QUALITY, compress_level=1)
    height, width = item.picture.shape[:2]
    line: dict[str, Any] = {"picture": str(item.source.path)}
    line |= {} if item.frame is None else {"frame": item.frame}
    line |= {"width": width, "height": height, "annotated": str(target)}
    if isinstance(answer, Mask):
        Image.fromarray(answer.classes).save(_mask_of(target), compress_level=1)
        line["mask"] = str(_mask_of(target))
    return line | described(answer, told.class_names, options.top)


def described(answer: "Answer", names: list[str], top: int) -> dict[str, Any]:
    """An answer as plain JSON data: `classes`, the likeliest or most frequent first, or `objects`."""
    from common.pictures.answers import Classes, Objects
    from common.pictures.drawing import ranked, shares

    if isinstance(answer, Objects):
        found = [
            {
                "class": names[label],
                "label": int(label),
                "score": round(float(score), 6),
                "box": [round(float(corner), 2) for corner in box],
            }
            for box, score, label in zip(answer.boxes, answer.scores, answer.labels, strict=True)
        ]
        return {"objects": found}
    if isinstance(answer, Classes):
        likely = [
            {
                "class": names[label],
                "label": label,
                "probability": round(float(answer.probabilities[label]), 6),
            }
            for label in ranked(answer.probabilities, top)
        ]
        return {"classes": likely}
    total = answer.classes.size
    frequent = [
        {"class": names[label], "label": label, "pixels": count, "share": round(count / total, 6)}
        for label, count in shares(answer).items()
    ]
    return {"classes": frequent}
