"""Which runs answer questions, and what is refused before their networks are loaded."""

import json
from pathlib import Path
from typing import Any, cast

import pytest

from common.base.errors import UserError
from common.runs.predict_answers import LINES, _write, predict_answers, reader_of


def test_a_folder_without_a_run_or_with_one_of_pictures_is_no_reader(tmp_path: Path) -> None:
    assert reader_of([str(tmp_path)]) is None and reader_of([str(tmp_path / "net.onnx")]) is None
    result = {"config": {"dataset": {"kind": "image_classification"}}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert reader_of([str(tmp_path)]) is None


def test_files_of_one_name_and_files_that_are_no_questions_are_refused_first(tmp_path: Path) -> None:
    none = cast(Any, None)
    files = [tmp_path / "a" / "x.json", tmp_path / "b" / "x.json"]
    with pytest.raises(UserError, match="two files of one name"):
        predict_answers(none, files, tmp_path / "out")
    (tmp_path / "x.json").write_text("[]")
    with pytest.raises(UserError, match=r"x\.json: the file has no list 'data'"):
        predict_answers(none, [tmp_path / "x.json"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_written_never_replaces_what_was_given(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"would replace the file .*answers\.json itself"):
        _write(tmp_path, [], tmp_path / "answers.json")
    said = [{"id": "é", "answer": "Zürich"}, {"id": "2", "answer": "x"}]
    assert _write(tmp_path / "out", said, tmp_path / "answers.json") == tmp_path / "out" / LINES
    assert json.loads((tmp_path / "out" / "answers.json").read_text()) == {"é": "Zürich", "2": "x"}
