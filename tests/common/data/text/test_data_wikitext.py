"""WikiText-2: read from its folder or its archive; damage is named; the real files are whole."""

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.data.shared.prepare import Checksum
from common.data.text import wikitext

Make = Callable[..., Any]

FILES = {
    "wiki.train.tokens": " \n = Ä title = \n Some <unk> words . \n" * 10,
    "wiki.valid.tokens": " Some words . \n" * 10,
    "wiki.test.tokens": " Ä title \n" * 10,
}


def zipped(files: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in files.items():
            packed.writestr(f"wikitext-2/{name}", text)
    return buffer.getvalue()


@pytest.fixture
def archive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The archive of a set of 110 + 40 + 30 tokens and eight words; its checksum is pinned."""
    facts = {"CLASSES": 8, "TRAIN_SIZE": 110, "VALIDATION_SIZE": 40, "TEST_SIZE": 30}
    for name, value in facts.items():
        monkeypatch.setattr(wikitext.WikiText2, name, value)
    names = ("wiki.valid.tokens", "wiki.test.tokens")
    md5s = {name: hashlib.md5(FILES[name].encode()).hexdigest() for name in names}
    monkeypatch.setattr(wikitext.WikiText2, "MD5", md5s)
    content = zipped(FILES)
    checksum = Checksum(hashlib.md5(content).hexdigest(), confirmed=False)
    monkeypatch.setattr(wikitext.WikiText2, "ARCHIVE_CHECKSUM", checksum)
    path = tmp_path / wikitext.ARCHIVE
    path.write_bytes(content)
    return path


def refusal(data: Any) -> str:
    with pytest.raises(UserError) as error:
        data.setup()
    message = str(error.value)
    assert "\n" not in message and "dataset=python_docs" in message
    return message


def test_the_archive_is_unpacked_once_and_not_needed_again(make: Make, archive: Path) -> None:
    make("wikitext2", batch_size=2).setup()
    archive.unlink()
    data = make("wikitext2", batch_size=2)
    data.setup()
    assert data.vocabulary == ["<eos>", "=", "Ä", "title", "Some", "<unk>", "words", "."]
    assert data.tokens("train").tolist() == [0, 1, 2, 3, 1, 0, 4, 5, 6, 7, 0] * 10
    assert data.tokens("validation").tolist() == [4, 6, 7, 0] * 10
    assert data.tokens("test").tolist() == [2, 3, 0] * 10


def test_a_missing_archive_is_downloaded(
    make: Make, archive: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.replace(server.folder / archive.name)
    message = refusal(make("wikitext2"))
    assert (
        "wiki.train.tokens is missing" in message and f"put {archive.name} into {archive.parent}" in message
    )
    monkeypatch.setattr(wikitext, "URL", server.url)
    make("wikitext2", batch_size=2).setup()
    assert server.requests == [f"/{archive.name}"]


def test_a_damaged_file_is_unpacked_again(make: Make, archive: Path) -> None:
    make("wikitext2", batch_size=2).setup()
    path = archive.parent / "wikitext-2" / "wiki.train.tokens"
    # as many tokens, the same words: only the md5 of what was unpacked here tells
    path.write_text(FILES[path.name].replace("title =", "= title", 1))
    make("wikitext2", batch_size=2).setup()
    assert path.read_text() == FILES[path.name]


DAMAGES = {
    "truncated": (lambda name: FILES[name][:-1], "it ends within a line"),
    "a word more": (lambda name: "more" + FILES[name], "tokens instead of"),
    "foreign": (lambda name: "<html>404</html>\n", "2 tokens instead of"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_without_an_archive_is_named(
    make: Make, archive: Path, name: str, damage: str
) -> None:
    make("wikitext2", batch_size=2).setup()
    archive.unlink()
    change, words = DAMAGES[damage]
    (archive.parent / "wikitext-2" / name).write_text(change(name))
    message = refusal(make("wikitext2"))
    assert f"wikitext-2/{name} is damaged (" in message and words in message


def test_another_archive_is_refused_as_its_checksum_is_unconfirmed_or_said_without_verify(
    make: Make, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive.write_bytes(zipped(FILES | {"more": ""}))
    message = refusal(make("wikitext2"))
    assert f"{archive} is damaged (md5" in message and "unconfirmed" in message
    make("wikitext2", batch_size=2, verify=False).setup()
    assert f"{archive}: md5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"),
    [(zipped(FILES)[:-40], "cannot be unpacked"), (zipped({}), "no wikitext-2/wiki.train.tokens in it")],
)
def test_an_archive_that_is_not_whole_is_refused(
    make: Make, archive: Path, content: bytes, words: str
) -> None:
    archive.write_bytes(content)
    assert words in refusal(make("wikitext2", verify=False))


@pytest.mark.real_data
def test_the_real_wikitext_is_whole(make: Make, need: Callable[[str], Path]) -> None:
    data = make("wikitext2", data_dir=str(need("wikitext-2").parent))
    data.setup()
    sizes = [data.size(split) for split in ("train", "validation", "test")]
    assert sizes == [2_088_628, 217_646, 245_569]
    assert len(data.vocabulary) == data.classes == 33_278
    assert data.tokens("train").bincount()[data.vocabulary.index("<eos>")] == 36_718
