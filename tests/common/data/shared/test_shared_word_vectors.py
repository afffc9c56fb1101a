"""Files of word vectors: the first words and their numbers; what is refused has its line."""

from pathlib import Path

import pytest
import torch

from common.base.errors import UserError
from common.data.shared.word_vectors import first_words, word_vectors


def test_the_first_words_of_a_file_have_the_vectors_of_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    # word2vec's first line is passed over, and a word may have a space in it
    path.write_text("3 2\nthe 1 2\nbob -0.5 4e-1\n. . 7 8\n")
    assert first_words(path, 5) == ["the", "bob", ". ."] and first_words(path, 1) == ["the"]
    assert torch.allclose(word_vectors(path, 2), torch.tensor([[1.0, 2.0], [-0.5, 0.4]]))
    assert word_vectors(path, 9)[2].tolist() == [7.0, 8.0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a 1 2\nb 1\n", "line 2 has 1 numbers for 'b' .valid: a word and 2 finite numbers"),
        ("a 1 2\nb 1 x\n", "line 2 is no word with numbers"),
        ("a 1 2\nb 1 nan\n", "line 2 has 2 numbers"),
        ("", "no word in it"),
    ],
)
def test_a_file_of_vectors_that_is_none_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(UserError, match=told) as caught:
        word_vectors(path, 10)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="No such file"):
        word_vectors(tmp_path / "none.txt", 10)
