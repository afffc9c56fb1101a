import pytest

from common.base.errors import UserError
from common.runs.help import help_text
from common.tables.tables import papers


def test_help_has_a_line_for_each_paper_and_names_each_choice_within_110_columns() -> None:
    text = help_text([])
    lines = text.splitlines()
    for name in papers():
        assert sum(line.startswith(f"  {name} ") for line in lines) == 1
    for name in (
        "cifar10",
        "optimizer/adam_eps1e3",
        "resnet20",
        "variance_reduction/svrg",
        "make -s entries",
    ):
        assert name in text
    assert "  segmentation:" in lines
    listed = lines[lines.index("dataset=") :]
    assert max(map(len, listed)) <= 110


def test_help_of_a_paper_tells_its_tables_what_goes_with_it_and_its_keys() -> None:
    text = help_text(["--help", "paper=yogi"])
    assert "yogi.table_ae, as yogi.table_ae." in text
    assert "digits" in text
    assert "quantization/qbp" in text
    assert "epochs: 20.0" in text
    assert "dpc" not in text


def test_help_of_a_choice_is_its_file_with_its_comments() -> None:
    text = help_text(["method=pruning/dcp"])
    assert text.startswith("method=pruning/dcp: discrimination-aware channel pruning")
    assert "# eta, the part of each layer's channels that goes\n  rate: 0.5" in text


def test_help_of_an_unknown_choice_names_near_ones() -> None:
    with pytest.raises(UserError, match="dataset=digist; did you mean digits"):
        help_text(["-h", "dataset=digist"])
