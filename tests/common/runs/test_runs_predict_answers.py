"""Questions of files, answered: what is refused before a network is loaded, and what is written."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from common.base.errors import UserError
from common.runs.predict_answers import LINES, _write, predict_answers
from common.runs.predict_files import Asked


def asked(folder: Path, *files: Path) -> Asked:
    return Asked(list(files), folder / "out", top=5, encoding="utf-8")


def test_files_of_one_name_and_files_that_are_no_questions_are_refused_first(tmp_path: Path) -> None:
    none = cast(Any, None)
    with pytest.raises(UserError, match="two files of one name"):
        predict_answers(none, asked(tmp_path, tmp_path / "a" / "x.json", tmp_path / "b" / "x.json"))
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x\.json: the file has no list 'data'"):
        predict_answers(none, asked(tmp_path, tmp_path / "x.json"))
    (tmp_path / "x.json").write_bytes(b'{"data": "\xe9"}')
    with pytest.raises(UserError, match=r"^\S*/x\.json: not UTF-8 text .* encoding=latin-1"):
        predict_answers(none, asked(tmp_path, tmp_path / "x.json"))
    assert not (tmp_path / "out").exists()


def test_answers_are_written_line_by_line_and_by_their_ids(tmp_path: Path) -> None:
    said = [{"id": "é", "answer": "Zürich"}, {"id": "2", "answer": "half \ud83d"}]
    assert _write(tmp_path / "out", said) == tmp_path / "out" / LINES
    lines = (tmp_path / "out" / LINES).read_text().splitlines()
    assert "Zürich" in lines[0] and [json.loads(line) for line in lines] == said
    assert json.loads((tmp_path / "out" / "answers.json").read_text()) == {
        "é": "Zürich",
        "2": "half \ud83d",
    }
