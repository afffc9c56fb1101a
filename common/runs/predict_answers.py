"""`predict.py` on passages and questions: what a reader of a finished run points at."""

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.runs.predict_files import Answered, Asked, as_line, best_device, folders_of

if TYPE_CHECKING:
    from torch import nn

    from common.data.questions.passages import Asked as Questions
    from common.data.questions.question_data import QuestionData
    from common.runs.trained import Finished

# all that is known of each answer, and answers by their ids as SQuAD's official script takes them
LINES, BY_ID = "answers.jsonl", "answers.json"


def predict_answers(run: "Finished", asked: Asked) -> Answered:
    """Answer the questions of files in SQuAD's format, whether they have answers or not.

    Raises:
        UserError: what `read_questions` and `folders_of` refuse, or a run that left no network.
    """
    from common.data.questions.question_data import QuestionData
    from common.data.questions.squad_file import read_questions
    from common.runs.trained import trained

    folders = folders_of(asked.paths, asked.to, (LINES, BY_ID))
    files = [read_questions(file, asked.encoding, verify=True, answered=False, of="") for file in asked.paths]
    found = trained(run)
    data, device = found.module.data, best_device()
    assert isinstance(data, QuestionData)
    data.move(device)
    data.vocabulary = list(found.facts["vocabulary"])
    network = found.network.to(device)
    written = []
    for path, folder, one in zip(asked.paths, folders, files, strict=True):
        for what, count in one.notes.items():
            print(f"{path}: {count} {what}", file=sys.stderr)
        names = Counter(question.name for question in one.questions)
        if again := [name for name, count in names.items() if count > 1]:
            print(
                f"{path}: {len(again)} ids stand at several questions, of which {BY_ID} has the last (the "
                f"first: {again[0]!r})",
                file=sys.stderr,
            )
        written.append(_write(folder, _answers(network, data, one)))
    return Answered(written, sum(len(one.questions) for one in files), "question")


def _answers(network: "nn.Module", data: "QuestionData", asked: "Questions") -> list[dict[str, Any]]:
    """Of each question its answer, where it stands, and the probability of its first and last word."""
    import torch

    from common.base.modes import evaluation_mode
    from common.data.shared.sequences import in_order
    from common.models.bidaf import best_spans

    encoded, found = data.encoded(asked), []
    longest = int(getattr(network, "longest_answer", 1))
    lengths = [len(asked.passages[one.passage].places) for one in asked.questions]
    batch = data.evaluation_batch
    with torch.no_grad(), evaluation_mode(network):
        for part in in_order(lengths, batch, batch * data.longest_passage):
            index = torch.arange(part.start, part.stop, device=data.device)
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


def _write(folder: Path, answers: list[dict[str, Any]]) -> Path:
    """Write the answers, all that is known of them and their texts alone; the file of the former."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / LINES).write_text("".join(map(as_line, answers)), encoding="utf-8")
    by_id = {one["id"]: one["answer"] for one in answers}
    (folder / BY_ID).write_text(as_line(by_id), encoding="utf-8")
    return folder / LINES
