"""The part of a page that a program writes."""

import pytest

from common.base.marked import marked

MARKS = ("<!-- begin -->", "<!-- end -->")


def test_what_stands_between_the_marks_is_replaced_and_nothing_else() -> None:
    page = "before\n<!-- begin -->\n\nold\n\n<!-- end -->\nafter\n"
    new = marked(page, MARKS, "new")
    assert new == page.replace("old", "new")
    assert marked(new, MARKS, "new") == new
    assert marked("<!-- begin --><!-- end -->", MARKS, "new").count("new") == 1


@pytest.mark.parametrize("page", ["", "<!-- begin -->", "<!-- begin --><!-- begin --><!-- end -->"])
def test_a_page_that_lacks_its_marks_or_has_them_twice_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="not once in the page: <!-- begin -->"):
        marked(page, MARKS, "new")
