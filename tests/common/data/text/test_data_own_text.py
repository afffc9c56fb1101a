from pathlib import Path
from typing import Any

import pytest

from common.base.dataset import Origin
from common.base.errors import UserError
from common.data.shared.fingerprint import fingerprint_of
from common.data.text.own_text import OwnText


def own(path: Path, **changes: Any) -> OwnText:
    options: dict[str, Any] = {
        "kind": "language_modelling",
        "data_dir": "data",
        "source": "real",
        "limit": None,
        "verify": True,
        "batch_size": 2,
        "bptt": 3,
        "path": str(path),
        "level": "word",
        "kept_from": 2,
        "encoding": "utf-8",
    }
    data = OwnText(**options | changes)
    data.setup()
    return data


def test_lines_are_cut_in_their_order_and_rare_words_are_unknown(tmp_path: Path) -> None:
    file = tmp_path / "book.txt"
    file.write_text("".join(f"the cat saw rare{i} .\n" for i in range(20)))
    data = own(file)
    # five words and the end of the line, 16, 2 and 2 lines
    assert [data.size(split) for split in ("train", "validation", "test")] == [96, 12, 12]
    assert data.vocabulary == ["the", "cat", "saw", "<unk>", ".", "<eos>"]
    assert data.classes == 6
    inputs, targets = data.ready(0)
    assert targets is not None
    assert inputs.shape == targets.shape == (2, 3)
    assert own(file, level="character", kept_from=1).classes == len(set("the cat saw rare .0123456789")) + 1


def test_the_parts_of_a_folder_are_taken_as_they_are(tmp_path: Path) -> None:
    for name, count in (("train", 9), ("valid", 3), ("test", 4)):
        (tmp_path / f"{name}.txt").write_text("one two\n" * count)
    data = own(tmp_path)
    assert [data.size(split) for split in ("train", "validation", "test")] == [27, 9, 12]


def test_a_file_that_is_no_text_gets_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="No such file"):
        own(tmp_path / "none.txt")
    (tmp_path / "a.txt").write_bytes(b"\x80\xff\x00")
    with pytest.raises(UserError, match="not UTF-8 text"):
        own(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("one\n")
    with pytest.raises(UserError, match="leaves 0 tokens for train, as its lines are divided"):
        own(tmp_path / "b.txt")


def judged(path: Path, trained: OwnText, **changes: Any) -> OwnText:
    found = fingerprint_of(trained)
    data = own(path, origin=Origin(trained.facts(), found), **changes)
    data.adopt(trained.facts())
    return data


def test_the_words_of_a_text_that_is_judged_have_the_numbers_of_training(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("the cat saw a dog .\n" * 20 + "rare\n")
    (tmp_path / "new.txt").write_text("dog saw bird cat .\n" * 3)
    trained = own(tmp_path / "book.txt")
    data = judged(tmp_path / "new.txt", trained)
    assert data.classes == trained.classes
    words = [data.vocabulary[int(token)] for token in data.tokens("test")]
    assert words == ["dog", "saw", "<unk>", "cat", ".", "<eos>"] * 3
    assert data.repairs == {"words that training has not, taken as <unk>": 3}
    again = judged(tmp_path / "book.txt", trained)
    assert again.tokens("test").tolist() == trained.tokens("test").tolist()
    assert again.tested().startswith("the tokens of the last 10% of")


def test_a_word_that_a_network_without_unknown_ones_has_not_is_named(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("the cat saw .\n" * 20)
    (tmp_path / "new.txt").write_text("the bird saw .\n")
    with pytest.raises(UserError, match=r"1 words are not those of training, which has no <unk> .*: bird"):
        judged(tmp_path / "new.txt", own(tmp_path / "book.txt"))


def test_a_text_in_latin_1_is_read_where_it_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_bytes("le café est là .\n".encode("latin-1") * 20)
    with pytest.raises(UserError, match=r"byte 0xe9 in line 1\); .*dataset\.encoding=latin-1"):
        own(tmp_path / "book.txt")
    assert "café" in own(tmp_path / "book.txt", encoding="latin-1").vocabulary
