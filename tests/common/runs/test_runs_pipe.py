import subprocess
import sys

import pytest

from common.tables.tables import ROOT


@pytest.mark.slow
@pytest.mark.parametrize("command", ["claims.py --list", "run.py --help"])
def test_a_reader_that_stops_early_gets_no_traceback(command: str) -> None:
    program = f"{sys.executable} {command}; echo code $? >&2"
    found = subprocess.run(
        ["bash", "-c", f"({program}) | head -c 1"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stderr.strip() == "code 0"
