"""`predict.py` on sentences: a text in one language, line by line, into the other of a finished run."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from common.base.errors import UserError
from common.runs.predict_files import Answered, Asked, as_line, best_device, folders_of

if TYPE_CHECKING:
    from torch import nn

    from common.data.text.translation_data import TranslationData
    from common.runs.trained import Finished, Trained

# a line for each line of the text, and all that is known of each
TEXT, LINES = "translations.txt", "translations.jsonl"
# lines that are sorted by their lengths together, and are then written
AT_ONCE = 1_000


class Line(NamedTuple):
    """A line of a text.

    Attributes:
        number: from 1.
        source: as it stands.
        translation: empty where there is none.
        fault: why not, in a few words.
        unknown: tokens of it that training has not.
    """

    number: int
    source: str
    translation: str
    fault: str = ""
    unknown: int = 0

    def told(self) -> dict[str, Any]:
        """As plain JSON data."""
        known: dict[str, Any] = {"line": self.number, "source": self.source}
        return known | ({"error": self.fault} if self.fault else {"translation": self.translation})


def predict_translations(run: "Finished", asked: Asked) -> Answered:
    """Translate texts, a sentence a line, as the test split of the run was: with its beam and length penalty.

    Where every line has a tab, as in a file of pairs, the sentence stands before it. What is done is written
    after each 1,000 lines. An empty line stays one; a line of more tokens than
    `common.data.text.text_pair.MOST` is told and has none, and the others are done.

    Raises:
        UserError: a text that is missing or in another encoding, what `folders_of` and `with_vocabulary`
            refuse, or a run that left no network.
    """
    from common.data.text.parallel_text import lines_of
    from common.data.text.pieces import from_json
    from common.data.text.translation_data import TranslationData
    from common.runs.trained import trained

    folders = folders_of(asked.paths, asked.to, (TEXT, LINES))
    texts = [_sources(file, lines_of(file, asked.encoding, of="")) for file in asked.paths]
    found = with_vocabulary(run, trained(run))
    data, device = found.module.data, best_device()
    assert isinstance(data, TranslationData)
    data.setup()
    data.move(device)
    data.pieces = from_json(found.facts["pieces"])
    network, faults = found.network.to(device), 0
    for path, folder, lines in zip(asked.paths, folders, texts, strict=True):
        faults += _translate(network, data, lines, path, folder)
    count = sum(1 for lines in texts for line in lines if line.strip()) - faults
    return Answered([folder / TEXT for folder in folders], count, "line", faults)


def _sources(path: Path, lines: list[str]) -> list[str]:
    """The sentences of lines: of a file of pairs what stands before the first tab of each."""
    full = [line for line in lines if line.strip()]
    if not full or not all("\t" in line for line in full):
        return lines
    print(f"{path}: each line has a tab; what stands before it is translated", file=sys.stderr)
    return [line.partition("\t")[0] for line in lines]


def with_vocabulary(run: "Finished", found: "Trained") -> "Trained":
    """What a run left, and in its facts the vocabulary of its sentences (`pieces`).

    Runs on files of the user's own have written it down; for others it is learned again from what they read.

    Raises:
        UserError: that has changed since.
    """
    from dataclasses import replace

    from common.data.shared.fingerprint import changes, fingerprint_of
    from common.data.text.pieces import as_json

    if "pieces" in found.facts:
        return found
    data: Any = found.module.data
    data.setup()
    what = changes(run.result.get("data"), fingerprint_of(data))
    if what is not None:
        raise UserError(
            f"the data of {run.directory} have changed since: {what}; the vocabulary of its network was "
            "learned from them (valid: the run made anew, with force=true)"
        )
    return replace(found, facts={**found.facts, "pieces": as_json(data.pieces)})


def _translate(
    network: "nn.Module", data: "TranslationData", lines: list[str], path: Path, folder: Path
) -> int:
    """Translate the lines of a file and write them down; how many could not be."""
    from common.data.shared.prepare import bar

    folder.mkdir(parents=True, exist_ok=True)
    faults = unknown = 0
    with (
        (folder / TEXT).open("w", encoding="utf-8") as text,
        (folder / LINES).open("w", encoding="utf-8") as known,
    ):
        for line in bar(_translated(network, data, lines), "lines", len(lines)):
            text.write(f"{line.translation}\n")
            known.write(as_line(line.told()))
            if line.number % AT_ONCE == 0:
                # what is done stays, whatever happens to the rest
                text.flush()
                known.flush()
            unknown += line.unknown
            if line.fault:
                faults += 1
                print(f"error: {path}: line {line.number} {line.fault}", file=sys.stderr)
    if unknown:
        print(f"{path}: {unknown} of its pieces do not stand in training", file=sys.stderr)
    return faults


def _translated(network: "nn.Module", data: "TranslationData", lines: list[str]) -> Iterator[Line]:
    """All lines, in their order."""
    for start in range(0, len(lines), AT_ONCE):
        yield from _some(network, data, lines[start : start + AT_ONCE], start + 1)


def _some(network: "nn.Module", data: "TranslationData", lines: list[str], first: int) -> list[Line]:
    """Lines of which the first has this number, translated in batches of like lengths."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from common.base.modes import evaluation_mode
    from common.base.sequence import PAD, UNKNOWN
    from common.data.text.bucketing import cuts
    from common.data.text.text_pair import MOST
    from common.training.translation import decoded

    # line by line, so that a long one pads no other
    rows = [data.tokens_of([line])[0] for line in lines]
    found = [
        Line(first + place, line, "", _fault(len(row), MOST), int((row == UNKNOWN).sum()))
        for place, (line, row) in enumerate(zip(lines, rows, strict=True))
    ]
    sizes = torch.tensor([len(row) for row in rows])
    order = [
        place
        for place in sizes.argsort(stable=True).tolist()
        if lines[place].strip() and not found[place].fault
    ]
    lengths = sizes[order]
    beam, penalty = int(getattr(network, "beam", 1)), float(getattr(network, "length_penalty", 0.0))
    with evaluation_mode(network):
        for batch in torch.tensor(order, dtype=torch.int64).split(cuts(lengths, lengths, data.batch_size)):
            source = pad_sequence([rows[place] for place in batch.tolist()], True, PAD)
            for place, said in zip(batch.tolist(), decoded(network, source, beam, penalty), strict=True):
                found[place] = found[place]._replace(translation=" ".join(data.text_of(said).split()))
    return found


def _fault(tokens: int, most: int) -> str:
    """What is wrong with a line of so many tokens; nothing, where it can be translated."""
    return f"has {tokens} tokens (valid: up to {most}; divide it into several lines)" if tokens > most else ""
