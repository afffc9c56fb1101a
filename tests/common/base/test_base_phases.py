import pytest

from common.base.phases import counted, innermost, phase


def test_the_phase_that_began_last_is_told_until_it_ends() -> None:
    with phase("reading"):
        with pytest.raises(ValueError), phase("unpacking"):
            assert str(innermost()) == "unpacking"
            raise ValueError
        assert str(innermost()) == "reading"
    assert innermost() is None


def test_items_are_counted_as_they_are_done() -> None:
    seen = []
    for item in counted("abc", "testing", 1200, "batches"):
        seen.append((item, str(innermost())))
    assert seen[0] == ("a", "testing, 0/1,200 batches")
    assert seen[2] == ("c", "testing, 2/1,200 batches")
    assert innermost() is None


def test_items_that_are_not_read_to_the_end_leave_no_phase_behind() -> None:
    items = counted("abc", "testing", 3)
    next(items)
    with phase("writing"):
        items.close()  # type: ignore[attr-defined]
        assert str(innermost()) == "writing"
    assert innermost() is None
