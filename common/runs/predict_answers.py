"""`predict.py` on passages and questions: what a reader of a finished run points at."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from common.data.questions.passages import Asked
    from common.data.questions.question_data import QuestionData
    from common.runs.trained import Finished

KIND = "question_answering"
# all that is known of each answer, and answers by their ids as SQuAD's official script takes them
LINES, BY_ID = "answers.jsonl", "answers.json"


def reader_of(words: list[str]) -> "Finished | None":
    """The run that words name, where its network answers questions; else None.

    Raises:
        UserError: words of a run that is not there.
    """
    from common.runs.result import read_result
    from common.runs.trained import find

    if not any(word.startswith(("paper=", "entry=")) for word in words):
        path = Path(words[0]).expanduser()
        result = read_result((path if path.is_dir() else path.parent) / "result.json")
        if result is None or result["config"]["dataset"].get("kind") != KIND:
            return None
    run = find(words)
    return run if run.config.dataset.get("kind") == KIND else None


def predict_answers(run: "Finished", files: list[Path], to: Path) -> tuple[list[Path], int]:
    """Answer the questions of files in SQuAD's format, whether they have answers or not.

    Args:
        run: of the reader.
        files: to be answered.
        to: the folder for what is written, of several files a folder in it for each, by its stem.

    Returns:
        The files of answers, and how many questions there were.

    Raises:
        UserError: what `read_questions` refuses, two files of one stem, or a run that left no network.
    """
    from common.data.questions.question_data import QuestionData
    from common.data.questions.squad_file import read_questions
    from common.runs.trained import trained

    if len({file.stem for file in files}) < len(files):
        raise UserError(
            "two files of one name would share a folder (valid: one after the other, each with to=)"
        )
    asked = [read_questions(file, "utf-8", verify=True, answered=False) for file in files]
    found = trained(run)
    data = found.module.data
    assert isinstance(data, QuestionData)
    data.vocabulary = list(found.facts["vocabulary"])
    written = []
    for file, one in zip(files, asked, strict=True):
        for what, count in one.notes.items():
            print(f"{file}: {count} {what}", file=sys.stderr)
        folder = to / file.stem if len(files) > 1 else to
        written.append(_write(folder, _answers(found.network, data, one), file))
    return written, sum(len(one.questions) for one in asked)


def _answers(network: "nn.Module", data: "QuestionData", asked: "Asked") -> list[dict[str, Any]]:
    """Of each question its answer, where it stands, and the probability of its first and last word."""
    import torch

    from common.base.modes import evaluation_mode
    from common.models.bidaf import best_spans

    encoded, found = data.encoded(asked), []
    longest = int(getattr(network, "longest_answer", 1))
    with torch.no_grad(), evaluation_mode(network):
        for index in torch.arange(len(asked.questions)).split(data.evaluation_batch):
            scores = network(encoded.batch(index)[0])
            spans = best_spans(scores, longest)
            shares = scores.softmax(2).gather(2, spans[:, :, None]).prod(1)[:, 0]
            for place, span, share in zip(index.tolist(), spans.tolist(), shares.tolist(), strict=True):
                question = asked.questions[place]
                passage = asked.passages[question.passage]
                found.append(
                    {
                        "id": question.name,
                        "question": question.text,
                        "answer": passage.said((span[0], span[1])),
                        "answer_start": passage.places[span[0]][0],
                        "probability": round(share, 6),
                    }
                )
    return found


def _write(folder: Path, answers: list[dict[str, Any]], given: Path) -> Path:
    lines = folder / LINES
    if {lines.resolve(), (folder / BY_ID).resolve()} & {given.resolve()}:
        raise UserError(f"to={folder}: would replace the file {given} itself (valid: another folder)")
    folder.mkdir(parents=True, exist_ok=True)
    lines.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in answers), encoding="utf-8")
    by_id = {one["id"]: one["answer"] for one in answers}
    (folder / BY_ID).write_text(json.dumps(by_id, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return lines
