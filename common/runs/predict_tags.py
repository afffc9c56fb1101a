"""`predict.py` on texts: the named entities that a tagger of a finished run finds in them."""

import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.runs.predict_files import Answered, Asked, as_line, best_device, folders_of

if TYPE_CHECKING:
    from torch import nn

    from common.data.tagging.schemes import Span
    from common.data.tagging.tagging_data import TaggingData
    from common.data.tagging.untagged_file import Untagged
    from common.runs.trained import Finished

# a word and its tag a line, and of each sentence its entities
TAGS, LINES = "tags.conll", "entities.jsonl"


def predict_tags(run: "Finished", asked: Asked) -> Answered:
    """Tag the words of texts (`common.data.tagging.untagged_file`).

    Raises:
        UserError: what `read_untagged` and `folders_of` refuse, or a run that left no network.
    """
    from common.data.tagging.tagging_data import TaggingData
    from common.data.tagging.untagged_file import read_untagged
    from common.runs.trained import trained

    folders = folders_of(asked.paths, asked.to, (TAGS, LINES))
    found = trained(run)
    data, device = found.module.data, best_device()
    assert isinstance(data, TaggingData)
    data.move(device)
    data.vocabulary = list(found.facts["vocabulary"])
    known = frozenset(data.vocabulary)
    texts = [read_untagged(path, asked.encoding, known) for path in asked.paths]
    network = found.network.to(device)
    for path, folder, sentences in zip(asked.paths, folders, texts, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        _tell_unread(path, sentences, data.longest)
        _write(folder, sentences, _spans(network, data, sentences), data)
    return Answered([folder / TAGS for folder in folders], sum(map(len, texts)), "sentence")


def _tell_unread(path: Path, sentences: "list[Untagged]", longest: int) -> None:
    """Say how many words are so long that not all of their letters are read, and which sentences were cut."""
    words = [word for one in sentences for word in one.words if len(word.encode()) > longest]
    if words:
        first = max(words, key=len)
        print(
            f"{path}: {len(words)} words of more than {longest} bytes, of which the first are read (the "
            f"longest: {first[:40]!r})",
            file=sys.stderr,
        )
    cut = [before.line for before, after in pairwise(sentences) if before.text and before.line == after.line]
    if cut:
        print(f"{path}: line {cut[0]} has so many words that it is tagged in parts", file=sys.stderr)


def _spans(network: "nn.Module", data: "TaggingData", sentences: "list[Untagged]") -> "Iterator[list[Span]]":
    """The entities of each sentence."""
    import torch

    from common.base.modes import evaluation_mode
    from common.data.shared.sequences import in_order
    from common.data.tagging.schemes import OUTSIDE, spans
    from common.data.tagging.tagged_file import Sentence
    from common.data.tagging.tagging_data import USUAL_LENGTH, Encoded
    from common.models.crf import ConditionalRandomField

    tags, names, numbers = {OUTSIDE: 0}, data.class_names(), data.numbers()
    crf: Any = getattr(network, "crf", None)
    most = data.evaluation_batch
    with torch.no_grad(), evaluation_mode(network):
        for part in in_order([len(one.words) for one in sentences], most, most * USUAL_LENGTH):
            some = sentences[part]
            words = [tuple(_beginning(word, data.longest) for word in one.words) for one in some]
            blank = [Sentence(one, (OUTSIDE,) * len(one)) for one in words]
            encoded = Encoded.of(blank, numbers, tags).to(data.device)
            inputs, _ = encoded.batch(torch.arange(len(some), device=data.device))
            scores = network(inputs)
            lengths = torch.tensor([len(one) for one in words], device=data.device)
            chained = isinstance(crf, ConditionalRandomField)
            best = crf.decode(scores, lengths) if chained else scores.argmax(2)
            for row, one in zip(best.tolist(), words, strict=True):
                yield spans([names[tag] for tag in row[: len(one)]])


def _beginning(word: str, longest: int) -> str:
    """A word of at most so many bytes of UTF-8."""
    return word.encode()[:longest].decode(errors="ignore") if len(word) * 4 > longest else word


def _write(
    folder: Path, sentences: "list[Untagged]", found: "Iterator[list[Span]]", data: "TaggingData"
) -> None:
    """Write words with their tags, which keep the scheme's rules, and entities, sentence by sentence."""
    from common.data.tagging.schemes import tags_of

    with (
        (folder / TAGS).open("w", encoding="utf-8") as tags,
        (folder / LINES).open("w", encoding="utf-8") as lines,
    ):
        for sentence, spans in zip(sentences, found, strict=True):
            named = tags_of(spans, len(sentence.words), data.scheme)
            tags.write("".join(f"{word}\t{tag}\n" for word, tag in zip(sentence.words, named, strict=True)))
            tags.write("\n")
            lines.write(as_line(_told(sentence, spans)))


def _told(sentence: "Untagged", spans: "list[Span]") -> dict[str, Any]:
    """A sentence and its entities as plain JSON data."""
    entities = []
    for kind, first, last in spans:
        one: dict[str, Any] = {"type": kind, "first_word": first, "last_word": last}
        if sentence.text is None:
            one["text"] = " ".join(sentence.words[first : last + 1])
        else:
            start, end = sentence.places[first][0], sentence.places[last][1]
            one |= {"text": sentence.text[start:end], "start": start, "end": end}
        entities.append(one)
    return {"line": sentence.line, "words": list(sentence.words), "entities": entities}
