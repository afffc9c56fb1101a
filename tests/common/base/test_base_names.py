import pytest

from common.base.names import apart, fitting, shortened

JOBS = ["entry=dcp.table_6.adapt_30 seed=0", "entry=dcp.table_6.adapt_50 seed=0"]


def test_names_that_fit_are_left_whole() -> None:
    assert fitting(JOBS, 40) == ("", JOBS)
    assert fitting([], 40) == ("", [])


def test_what_long_names_share_is_said_once() -> None:
    assert fitting(JOBS, 20) == ("entry=dcp.table_6.adapt_", ["30 seed=0", "50 seed=0"])
    assert fitting(JOBS, 5)[1] == ["30…=0", "50…=0"]


@pytest.mark.parametrize(
    ("names", "common"),
    [
        (["method.lr=0.01", "method.lr=0.03"], "method."),
        (["seed=0", "seed=1"], ""),
        (["yogi.beats_adam"] * 2, ""),
        (["maxacq.run.more", "maxacq.run."], ""),
        (["maxacq.run.more", "maxacq.run.less"], "maxacq.run."),
    ],
)
def test_names_part_at_the_end_of_a_part_and_never_within_a_number(names: list[str], common: str) -> None:
    found, rests = apart(names)
    assert found == common
    assert [found + rest for rest in rests] == names
    assert all(rests)


@pytest.mark.parametrize(
    ("width", "found"), [(20, "abcdefghij"), (10, "abcdefghij"), (5, "ab…ij"), (4, "a…ij")]
)
def test_a_long_name_keeps_both_ends(width: int, found: str) -> None:
    assert shortened("abcdefghij", width) == found
