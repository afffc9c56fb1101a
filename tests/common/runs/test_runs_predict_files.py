"""Which runs take files that are no pictures, and what their answers share."""

import json
import sys
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from common.base.errors import UserError
from common.runs import trained
from common.runs.predict import _pipeline_of
from common.runs.predict_files import TAKES, as_line, folders_of
from common.runs.predict_kinds import answerer, run_on_files
from common.runs.predictor import Told
from common.runs.trained import Finished


@pytest.mark.parametrize(
    "kind", ["question_answering", "translation", "sequence_tagging", "point_cloud_classification"]
)
def test_texts_questions_and_clouds_have_somebody_who_answers(kind: str) -> None:
    assert callable(answerer(kind))
    told = {"kind": kind, "task": "own", "shape": [70], "classes": 4}
    with pytest.raises(UserError, match=rf"net takes {TAKES[kind]}, and no pictures"):
        Told.of("net", told, None)


def test_pictures_and_networks_on_pictures_are_left_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = OmegaConf.create({"dataset": {"kind": "translation"}})
    text, folder = tmp_path / "new.txt", tmp_path / "photos"
    folder.mkdir()
    (folder / "a.JPG").touch()
    network = [str(tmp_path)]
    assert run_on_files(network, [text]) is None
    assert run_on_files([str(tmp_path / "net.onnx")], [text]) is None
    result = {"metrics": {}, "config": {"dataset": {"kind": "image_classification"}}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    assert run_on_files(network, [text]) is None and answerer("image_classification") is None
    (tmp_path / "result.json").write_text(
        json.dumps(result | {"config": {"dataset": {"kind": "translation"}}})
    )
    monkeypatch.setattr(trained, "find", lambda words: Finished(tmp_path, words, config, None, {}))  # type: ignore[arg-type]
    for words in (network, ["import=nets.py", *network], [str(tmp_path / "result.json")]):
        found = run_on_files(words, [text])
        assert found is not None and found.words == words
    # a picture is none of its own files, so that a line can say what it takes
    assert run_on_files(network, [folder]) is None and run_on_files(network, [folder / "a.JPG"]) is None


def test_of_several_files_each_has_a_folder_and_what_is_given_is_never_replaced(tmp_path: Path) -> None:
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert folders_of(files[:1], tmp_path, ("tags.conll",)) == [tmp_path]
    assert folders_of(files, tmp_path, ("tags.conll",)) == [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(UserError, match=r"would replace the file .*a\.txt itself"):
        folders_of(files[:1], tmp_path, ("x", "a.txt"))
    with pytest.raises(UserError, match="two files of one name"):
        folders_of([files[0], tmp_path / "other" / "a.txt"], tmp_path, ())
    with pytest.raises(UserError, match="is a folder"):
        folders_of([tmp_path], tmp_path / "out", ())


def test_what_is_no_text_is_written_by_its_number() -> None:
    assert as_line({"a": "é"}) == '{"a": "é"}\n'
    assert as_line({"a": "é\ud83d"}) == '{"a": "\\u00e9\\ud83d"}\n'


def test_a_network_answers_without_the_packages_that_pipelines_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.startswith(("papers.pmf_automl", "common.numerics", "linear_operator", "skops")):
            monkeypatch.delitem(sys.modules, name)
    for name in ("linear_operator", "skops", "sklearn"):
        monkeypatch.setitem(sys.modules, name, None)
    assert _pipeline_of([str(tmp_path)]) is None
    (tmp_path / "pipeline.json").touch()
    assert _pipeline_of([str(tmp_path)]) == tmp_path
