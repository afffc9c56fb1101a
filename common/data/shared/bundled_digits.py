"""The handwritten digits that scikit-learn brings along, read from its file without importing it."""

import gzip
import hashlib
import zlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.base.errors import UserError

# of the unpacked file
SHA256 = "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8"


def digits_file() -> Path:
    """Where scikit-learn keeps the digits.

    Raises:
        UserError: scikit-learn is not installed.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise UserError("the digits come with scikit-learn, which is missing: pip install scikit-learn")
    return Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"


def read_digits() -> tuple[Tensor, Tensor]:
    """All 1,797 digits: uint8 images [n, 8, 8] with values 0..16, and their labels 0..9 as int64 [n].

    They are those of `sklearn.datasets.load_digits`, in its order. The file has a line for each, 64 pixels
    row by row and the label.

    Raises:
        UserError: the file is missing, damaged, or has other digits.
    """
    path = digits_file()
    try:
        text = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(_advice(path, "cannot be read")) from error
    if hashlib.sha256(text).hexdigest() != SHA256:
        raise UserError(_advice(path, "has other digits than scikit-learn's"))
    table = torch.from_numpy(np.loadtxt(text.decode().splitlines(), delimiter=",", dtype=np.uint8))
    return table[:, :-1].reshape(-1, 8, 8).contiguous(), table[:, -1].long()


def _advice(path: Path, what: str) -> str:
    return f"{path} {what}: pip install --force-reinstall scikit-learn"
