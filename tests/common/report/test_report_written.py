import csv
import io
import sys
from pathlib import Path

import pytest
from matplotlib.mathtext import MathTextParser
from rich.console import Console
from runs_made_up import over_seeds, result, runs

from common.base.errors import UserError
from common.report import comparison, written
from common.report.comparison import Comparison, compare

HOSTILE = r"a_b & 50% of $x^2$ #1 {c} ~d \e <f> | *g* `h`"


@pytest.fixture(autouse=True)
def current_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparison, "stale", lambda one: False)


@pytest.fixture
def found() -> Comparison:
    adam = over_seeds([0.101, 0.112, 0.094, 0.105], "method=optimizer/adam")
    sgd = over_seeds([0.301, 0.335, 0.322, 0.309], "method=optimizer/sgd")
    strange = result(0, f"method=optimizer/{HOSTILE}", test_error=-1.5e-9)
    return compare(runs(*adam, *sgd, strange), ["test_error"])


def of_two(adam: list[float], other: list[float]) -> Comparison:
    return compare(runs(*over_seeds(adam, "method=optimizer/adam"), *over_seeds(other)), ["test_error"])


def test_the_terminal_marks_what_is_best_also_without_bold_type() -> None:
    clear = compare(
        runs(*over_seeds([0.1, 0.11, 0.12], "method=optimizer/adam"), *over_seeds([0.3, 0.32, 0.35])),
        ["test_error"],
    )
    console = Console(width=100, file=io.StringIO(), no_color=True)
    console.print(written.terminal(clear))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "0.110 ± 0.025 *" in text and "0.323 ± 0.063 " in text
    assert "notes" not in text, "nothing is to be noted"


def test_csv_holds_every_number_unrounded(found: Comparison) -> None:
    lines = list(csv.DictReader(io.StringIO(written.as_csv(written.records(found)))))
    assert [line["name"] for line in lines] == ["adam", "sgd", HOSTILE]
    first = lines[0]
    assert float(first["mean"]) == found.rows[0].cells[found.columns[0]].sample.mean  # type: ignore[union-attr]
    assert (first["n"], first["seeds"], first["metric"]) == ("4", "0 1 2 3", "test_error")
    assert lines[2]["std"] == "" and lines[2]["notes"] == "1 seed: no interval"


def test_each_run_can_have_a_line_of_its_own(found: Comparison) -> None:
    lines = written.run_records(found)
    assert [(line["name"], line["seed"], line["value"]) for line in lines[:2]] == [
        ("adam", 0, 0.101),
        ("adam", 1, 0.112),
    ]
    assert len(lines) == 9


def test_latex_is_a_booktabs_table_in_which_every_sign_is_escaped(found: Comparison) -> None:
    text = written.latex(found)
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}{lrr}", r"\end{tabular}"):
        assert text.count(rule) == 1
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 4 and all(line.replace(r"\&", "").count("&") == 2 for line in rows)
    assert r"a\_b \& 50\% of \$x\textasciicircum{}2\$ \#1 \{c\}" in text
    assert r"\textbackslash{}e \textless{}f\textgreater{}" in text
    outside = [line for line in text.splitlines() if not line.startswith("%")]
    assert all(line.isascii() for line in outside)


def test_numbers_of_latex_are_maths_that_can_be_read(found: Comparison) -> None:
    parser = MathTextParser("path")
    cells = [cell for row in written.texts(found) for cell in row]
    for bold in (False, True):
        for cell in [*cells, "1,234.5 ± 0.1", "1.5e-09 ± 2e-10"]:
            parser.parse(written._maths(cell, bold).replace("{,}", ","))
    assert written._maths("1.5e-09", False) == r"$1.5\times 10^{-9}$"
    assert written._maths("0.110 ± 0.025", True) == r"$\mathbf{0.110 \pm 0.025}$"
    assert written._maths("-", False) == "--"


def test_markdown_is_a_table_in_which_no_sign_of_a_name_is_a_mark(found: Comparison) -> None:
    from markdown_it import MarkdownIt

    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(written.markdown(found))
    assert html.count("<tr>") == 4 and html.count("<table>") == 1
    assert "*g* `h`" in html and "<em>" not in html and "<code>" not in html


def test_the_best_is_bold_in_markdown_and_latex() -> None:
    clear = compare(
        runs(*over_seeds([0.1, 0.11, 0.12], "method=optimizer/adam"), *over_seeds([0.3, 0.32, 0.35])),
        ["test_error"],
    )
    assert "**0.110 ± 0.025**" in written.markdown(clear)
    assert r"$\mathbf{0.110 \pm 0.025}$" in written.latex(clear)
    assert written.latex(clear).count("mathbf") == 1


def test_parquet_holds_what_csv_holds(found: Comparison, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    lines = written.records(found)
    written.write_parquet(lines, tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").to_pylist() == lines


def test_the_data_frame_holds_what_csv_holds(found: Comparison) -> None:
    lines = written.records(found)
    pytest.importorskip("pandas")
    frame = written.as_frame(lines)
    assert list(frame.columns) == list(lines[0])
    assert frame["mean"].tolist() == [line["mean"] for line in lines]
    assert frame["std"].isna().tolist() == [False, False, True]
    assert frame.set_index("name").loc["adam", "n"] == 4


def test_settings_that_are_numbers_are_numbers_in_every_form(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rates = [result(seed, f"method.lr={rate}") for rate in ("0.1", "1") for seed in range(2)]
    for value, expected in (("null", [0.1, 1.0, None]), ("auto", ["0.1", "1", "auto"])):
        found = compare(runs(*rates, result(0, f"method.lr={value}")), ["test_error"])
        assert [line["method.lr"] for line in written.records(found)] == expected
    some = written.records(compare(runs(*rates), ["test_error"]))
    assert [line["method.lr"] for line in some] == [0.1, 1.0]
    written.write_parquet(some, tmp_path / "a.parquet")
    assert parquet.read_table(tmp_path / "a.parquet").column("method.lr").to_pylist() == [0.1, 1.0]


def test_what_is_not_installed_is_said_with_the_command_that_installs_it(
    found: Comparison, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("pandas", "pyarrow"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"a data frame needs pandas: pip install -e '\.\[tables\]'"):
        written.as_frame(written.records(found))
    with pytest.raises(UserError, match=r"a\.parquet needs pyarrow: pip install"):
        written.write_parquet(written.records(found), tmp_path / "a.parquet")


def test_numbers_of_a_column_have_as_many_decimals_where_they_are_alike_enough() -> None:
    even = compare(
        runs(*over_seeds([0.1, 0.11, 0.12], "method=optimizer/adam"), *over_seeds([0.3, 0.5, 0.6])),
        ["test_error"],
    )
    assert [row[0] for row in written.texts(even)] == ["0.110 ± 0.025", "0.467 ± 0.379"]
    far = compare(
        runs(*over_seeds([1e-5, 1.1e-5], "method=optimizer/adam"), *over_seeds([300.0, 500.0])),
        ["test_error"],
    )
    assert [row[0] for row in written.texts(far)] == ["1.05e-05 ± 6.4e-06", "400 ± 1,271"]
