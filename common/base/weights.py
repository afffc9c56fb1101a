"""Reading a file of weights."""

from pathlib import Path
from typing import Any

import torch

from common.base.errors import UserError


def read_weights(path: Path) -> dict[str, Any]:
    """What a file of weights or a checkpoint holds, on the CPU; nothing in it is executed.

    Raises:
        UserError: there is no such file, it is damaged, or it holds no dictionary.
    """
    if not path.is_file():
        folder = f", but a folder (valid: a file in it, as {path}/last.ckpt)" if path.is_dir() else ""
        raise UserError(f"checkpoint {path}: no such file{folder}")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"checkpoint {path} cannot be read ({type(error).__name__})") from error
    if not isinstance(found, dict):
        raise UserError(f"checkpoint {path} holds a {type(found).__name__} (valid: a state dict)")
    return found
