"""Text of the user's own files: by its mark or the encoding that is named; what is none is one line."""

from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.data.shared.text_file import cut, read_text

TEXT = "Zürich\nб\U0001f600\n"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_at_the_begin_goes_before_the_encoding_that_is_named(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(TEXT.encode(encoding))
    assert read_text(path, "utf-8") == read_text(path, "latin-1") == TEXT


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_two_bytes_a_letter_without_a_mark_are_told_by_their_line_and_read_when_named(
    tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("ab\nc\n".encode(encoding))
    with pytest.raises(UserError, match=rf"line 1 has the character NUL.*dataset\.encoding={encoding}$"):
        read_text(path, "utf-8")
    assert read_text(path, encoding) == "ab\nc\n"
    path.write_bytes("ab\nü\n".encode(encoding))
    with pytest.raises(UserError, match=rf"byte 0xfc in line 2\); where it is UTF-16.*encoding={encoding}$"):
        read_text(path, "utf-8")
    path.write_bytes(b"ab\nc\0d\n")
    with pytest.raises(UserError, match=r"^\S*a\.txt: line 2 has the character NUL"):
        read_text(path, "utf-8", of="")


@pytest.mark.parametrize("encoding", ["rot13", "base64", "utf-9", "", 1252, "a\0b", "undefined"])
def test_what_is_no_encoding_of_text_is_one_line(tmp_path: Path, encoding: Any) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(UserError, match="no such encoding") as caught:
        read_text(tmp_path / "a.txt", encoding)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "encoding", "told"),
    [
        (b"a\nb\xfc\n", "utf-8", "byte 0xfc in line 2"),
        (b"\xff\xfea\0\n", "utf-8", "not UTF-16 text"),
        (b"a\n" + "\u00fc".encode() * 80, "idna", "not IDNA text"),
    ],
)
def test_bytes_that_the_encoding_has_not_are_one_line(
    tmp_path: Path, content: bytes, encoding: str, told: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(UserError, match=told):
        read_text(tmp_path / "a.txt", encoding)


def test_a_long_line_is_shown_by_its_beginning() -> None:
    assert cut("x" * 40) == "x" * 40 and cut("x" * 41) == "x" * 40 + "..."
