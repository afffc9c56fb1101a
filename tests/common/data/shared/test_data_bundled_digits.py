import gzip
from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits

from common.base.errors import UserError
from common.data.shared import bundled_digits
from common.data.shared.bundled_digits import read_digits


def test_the_digits_are_those_of_scikit_learn() -> None:
    theirs = load_digits()
    images, labels = read_digits()
    assert images.dtype == torch.uint8 and labels.dtype == torch.int64
    assert torch.equal(images.double(), torch.from_numpy(theirs.images))
    assert torch.equal(labels, torch.from_numpy(theirs.target).long())


@pytest.mark.parametrize(
    "content",
    [None, b"no gzip", gzip.compress(b"0,1\n", mtime=0), b"cut"],
    ids=["missing", "no gzip", "other", "cut"],
)
def test_a_file_that_is_not_theirs_is_named_with_the_command_that_brings_it_back(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "digits.csv.gz"
    if content == b"cut":
        content = bundled_digits.digits_file().read_bytes()[:1000]
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr(bundled_digits, "digits_file", lambda: path)
    with pytest.raises(UserError, match=r"digits\.csv\.gz .*pip install --force-reinstall scikit-learn"):
        read_digits()
