"""What the tests of reliability share. `SOAK=1` (make soak) makes them many times as long."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from calls import Calls


@pytest.fixture(scope="session")
def soak() -> bool:
    """Whether there is time for the long form."""
    return os.environ.get("SOAK") == "1"


@pytest.fixture(scope="session")
def calls() -> Iterator[Calls]:
    """Calls of `run.py` without their start-up."""
    with Calls() as started:
        yield started
