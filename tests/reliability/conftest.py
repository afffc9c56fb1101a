"""What the tests of reliability share. `SOAK=1` (make soak) makes them many times as long."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether there is time for the long form."""
    return os.environ.get("SOAK") == "1"
