import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numba.core import caching

from common.numerics.compiled import compiled

ROOT = Path(__file__).resolve().parents[3]
SOURCE = '''
def share(part: float, whole: float) -> float:
    """What a part is of a whole."""
    return part / whole
'''


def made(source: str, file: str) -> Callable[..., Any]:
    """The function `share` as a module in `file` has it."""
    module = ModuleType("shares")
    exec(compile(source, file, "exec"), module.__dict__)
    function: Callable[..., Any] = module.__dict__["share"]
    return function


@pytest.fixture
def share(tmp_path: Path) -> Callable[..., Any]:
    """A function in a file of its own, so that its code is kept beside it."""
    path = tmp_path / "shares.py"
    path.write_text(SOURCE)
    return made(SOURCE, str(path))


def test_a_division_by_zero_is_numpys_and_nothing_is_promoted(share: Callable[..., Any]) -> None:
    code = compiled(share)
    assert code.__doc__ == share.__doc__
    assert code(1.0, 0.0) == math.inf and math.isnan(code(0.0, 0.0))
    third = float(code(np.float32(1), np.float32(3)))
    assert third == float(np.float32(1) / np.float32(3)) != 1 / 3


def test_the_code_is_kept_beside_its_module(share: Callable[..., Any], tmp_path: Path) -> None:
    assert compiled(share)(1.0, 4.0) == 0.25
    kept = {path.suffix for path in (tmp_path / "__pycache__").iterdir()}
    assert kept == {".nbi", ".nbc"}


def test_without_a_folder_that_can_be_written_each_process_has_its_own() -> None:
    # no file, so no folder either
    assert compiled(made(SOURCE, "<nowhere>"))(1.0, 4.0) == 0.25


def test_code_that_cannot_be_kept_runs(share: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(caching.Cache, "save_overload", full)
    assert compiled(share)(1.0, 4.0) == 0.25


def test_code_whose_file_was_cut_off_is_made_anew(share: Callable[..., Any], tmp_path: Path) -> None:
    compiled(share)(1.0, 4.0)
    for path in (tmp_path / "__pycache__").iterdir():
        path.write_bytes(b"")
    assert compiled(share)(1.0, 4.0) == 0.25


@pytest.mark.slow
def test_numba_is_imported_by_what_calls_its_loops_alone() -> None:
    names = "common.detection.nms, common.data.detection.voc"
    check = f"import sys, {names}; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT).returncode == 0
