"""Whatever is typed ends well, or with one line that says why: no traceback, no hang."""

import shutil
from pathlib import Path

import pytest
from calls import Calls
from fuzz import check, commands, settings, too_large
from hypothesis import assume, given, seed
from hypothesis import settings as hypothesis_settings

PARTS = 6
EXAMPLES, SOAK_EXAMPLES = 8, 840


@pytest.mark.parametrize("part", range(PARTS))
def test_a_mistyped_command_ends_well_or_with_one_line(
    part: int, calls: Calls, tmp_path: Path, soak: bool
) -> None:
    folder = tmp_path / "call"

    @seed(part)
    @hypothesis_settings(**settings(SOAK_EXAMPLES if soak else EXAMPLES))
    @given(commands())
    def mistyped(words: list[str]) -> None:
        assume(not too_large(words))
        shutil.rmtree(folder, ignore_errors=True)
        check(calls, words, folder)

    mistyped()
