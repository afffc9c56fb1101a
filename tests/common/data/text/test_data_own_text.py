from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
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
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8 text"):
        own(tmp_path / "a.txt")
    (tmp_path / "b.txt").write_text("one\n")
    with pytest.raises(UserError, match="leaves 0 tokens for train"):
        own(tmp_path / "b.txt")
