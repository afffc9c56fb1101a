"""Penn Treebank: words numbered by first appearance; damage is named; the real files are whole."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.data.shared.prepare import Checksum
from common.data.text import ptb

Make = Callable[..., Any]

FILES = {
    "ptb.train.txt": " a b <unk>\n b c N\n" * 10,
    "ptb.valid.txt": " c a\n" * 10,
    "ptb.test.txt": " N b a\n" * 10,
}
# in the order of their first appearance
VOCABULARY = ["a", "b", "<unk>", "<eos>", "c", "N"]


def checksums(files: dict[str, str]) -> dict[str, Checksum]:
    return {name: Checksum(hashlib.md5(text.encode()).hexdigest(), True) for name, text in files.items()}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a complete set of 80 + 30 + 40 tokens and six words, its checksums pinned."""
    facts = {"CLASSES": 6, "TRAIN_SIZE": 80, "VALIDATION_SIZE": 30, "TEST_SIZE": 40}
    for name, value in facts.items():
        monkeypatch.setattr(ptb.PennTreebank, name, value)
    monkeypatch.setattr(ptb.PennTreebank, "CHECKSUMS", checksums(FILES))
    folder = tmp_path / "ptb"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    return folder


def refusal(data: Any) -> str:
    with pytest.raises(UserError) as error:
        data.setup()
    message = str(error.value)
    assert "\n" not in message and "dataset=python_docs" in message
    return message


def test_words_are_numbered_by_their_first_appearance_and_lines_end(make: Make, small: Path) -> None:
    data = make("ptb", batch_size=2)
    data.setup()
    assert data.vocabulary == VOCABULARY
    assert data.tokens("train").tolist() == [0, 1, 2, 3, 1, 4, 5, 3] * 10
    assert data.tokens("validation").tolist() == [4, 0, 3] * 10
    assert data.tokens("test").tolist() == [5, 1, 0, 3] * 10


def test_limit_takes_the_first_tokens_and_keeps_the_vocabulary(make: Make, small: Path) -> None:
    data = make("ptb", batch_size=2, limit=5)
    data.setup()
    assert data.tokens("train").tolist() == [0, 1, 2, 3, 1]
    assert data.vocabulary == VOCABULARY and data.size("test") == 40


TRAIN = FILES["ptb.train.txt"]
DAMAGES = {
    "truncated in a line": (TRAIN[:-1], "it ends within a line"),
    "a line less": (TRAIN[: TRAIN.rindex(" b c")], "76 tokens instead of 80"),
    "another word": (TRAIN.replace("c", "d", 1), "7 different words instead of 6"),
    "words in another order": (TRAIN.replace("a b", "b a", 1), "md5"),
    "foreign": ("<html>404</html>\n", "2 tokens instead of 80"),
    "empty": ("", "it ends within a line"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_named_with_what_is_wrong(make: Make, small: Path, damage: str) -> None:
    text, words = DAMAGES[damage]
    (small / "ptb.train.txt").write_text(text)
    message = refusal(make("ptb"))
    assert f"{small}/ptb.train.txt is damaged ({words}" in message and f"into {small}" in message


def test_bytes_that_are_no_text_are_damage(make: Make, small: Path) -> None:
    (small / "ptb.valid.txt").write_bytes(b"\xff\xfe\n")
    assert "ptb.valid.txt is damaged (not UTF-8 text)" in refusal(make("ptb"))


def test_without_verify_counts_are_checked_and_another_checksum_is_said(
    make: Make, small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small / "ptb.train.txt").write_text(DAMAGES["words in another order"][0])
    make("ptb", verify=False, batch_size=2).setup()
    assert f"{small}/ptb.train.txt: md5" in capsys.readouterr().err
    (small / "ptb.train.txt").write_text(DAMAGES["a line less"][0])
    assert "76 tokens" in refusal(make("ptb", verify=False))


def test_missing_files_are_fetched(
    make: Make, small: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (small / "ptb.test.txt").replace(server.folder / "ptb.test.txt")
    assert f"{small}/ptb.test.txt is missing" in refusal(make("ptb"))
    monkeypatch.setattr(ptb, "URL", server.url)
    make("ptb", batch_size=2).setup()
    assert server.requests == ["/ptb.test.txt"] and (small / "ptb.test.txt").exists()


@pytest.mark.real_data
def test_the_real_penn_treebank_is_whole(make: Make, need: Callable[[str], Path]) -> None:
    data = make("ptb", data_dir=str(need("ptb").parent))
    data.setup()
    assert [data.size(split) for split in ("train", "validation", "test")] == [929_589, 73_760, 82_430]
    assert len(data.vocabulary) == data.classes == 10_000 and data.vocabulary[:2] == ["aer", "banknote"]
    counts = data.tokens("train").bincount()
    assert counts[data.vocabulary.index("<eos>")] == 42_068
    assert counts[data.vocabulary.index("<unk>")] == 45_020
    assert data.loader(0).steps_per_epoch == -(-(929_589 // 20 - 1) // 35)
