from pathlib import Path

import pytest

from common.base.errors import UserError
from common.runs.table_kind import with_table_kind
from common.runs.words import quoted

ROWS = "word,size,count\n" + "".join(f"{'ab'[i % 2]},{i}.5,{i % 3}\n" for i in range(6))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "sales (1).csv"):
        (tmp_path / name).write_text(ROWS)


def kind_of(*words: str) -> list[str]:
    made = with_table_kind(quoted(["dataset=table", *words]))
    return [made[0], *(word for word in made if word.startswith("dataset.kind="))]


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (["dataset.path=a.csv"], "tabular_classification"),
        (["dataset.path=sales (1).csv", "dataset.target=size"], "regression"),
        (["dataset.path=a.csv,sales (1).csv", "dataset.target=size"], "regression"),
        (["dataset.path=a.csv", "dataset.target=word,count"], "tabular_classification"),
    ],
)
def test_the_kind_is_that_of_each_table_and_target_that_the_words_name(words: list[str], kind: str) -> None:
    choice = {"regression": "table_regression"}.get(kind, "table")
    assert kind_of(*words) == [f"dataset={choice}", f"dataset.kind={kind}"]


def test_a_sweep_over_targets_of_both_kinds_is_one_line() -> None:
    with pytest.raises(UserError, match=r"of classes \(word of a\.csv\) and of numbers \(size of a\.csv\)"):
        kind_of("dataset.path=a.csv", "dataset.target=word,size")


def test_of_a_sweep_that_lists_no_targets_no_file_is_read() -> None:
    assert kind_of("dataset.path=a.csv", "dataset.target=choice(word,size)") == ["dataset=table"]


def test_columns_of_one_name_are_left_to_the_data_set_that_reads_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "twice.csv").write_text(ROWS.replace("word,size", "size,size"))
    assert kind_of("dataset.path=twice.csv")[0] == "dataset=table"
    assert capsys.readouterr().err == ""
