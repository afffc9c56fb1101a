import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.runs.result import as_text, jsonable, number, read_result, write_json


def test_nan_and_infinity_become_null_and_tensors_lists() -> None:
    content = {"a": math.nan, "b": [math.inf, 1.5], "c": torch.tensor([1.0, 2.0])}
    assert jsonable(content) == {"a": None, "b": [None, 1.5], "c": [1.0, 2.0]}


def test_a_result_has_a_line_for_each_key_of_two_levels_and_the_same_content() -> None:
    content = {
        "metrics": {"loss": 0.1 + 0.2, "curve": [1, 2.0, None], "by": {"a": 1e-300}},
        "entries": ["yogi.t.r"],
        "stages": {},
        "seed": 0,
        "text": 'two\nlines "quoted"',
    }
    text = as_text(content)
    assert json.loads(text) == content
    assert text.splitlines() == [
        "{",
        ' "metrics": {',
        '  "loss": 0.30000000000000004,',
        '  "curve": [1, 2.0, null],',
        '  "by": {"a": 1e-300}',
        " },",
        ' "entries": ["yogi.t.r"],',
        ' "stages": {},',
        ' "seed": 0,',
        ' "text": "two\\nlines \\"quoted\\""',
        "}",
    ]


NODES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), NODES, min_size=1, max_size=4))
def test_a_written_result_reads_back_as_it_was(content: dict[str, Any]) -> None:
    text = as_text(content)
    assert json.loads(text) == content
    assert as_text(json.loads(text)) == text


def test_a_failed_write_leaves_the_old_file_whole_and_no_rest(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    write_json(path, {"metrics": {"x": 1}})
    with pytest.raises(TypeError):
        write_json(path, {"metrics": object()})
    assert json.loads(path.read_text()) == {"metrics": {"x": 1}}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", '{"metrics"', "[1]", '{"other": 1}'])
def test_a_damaged_result_counts_as_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "result.json"
    path.write_text(text)
    assert read_result(path) is None
    assert read_result(tmp_path / "missing.json") is None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (True, "True"),
        (12_345, "12,345"),
        (12_345.6, "12,346"),
        (0.1234567, "0.12346"),
        (1e83, "1e+83"),
        (-0.0, "0"),
    ],
)
def test_a_number_is_written_as_a_person_would(value: object, text: str) -> None:
    assert number(value) == text
