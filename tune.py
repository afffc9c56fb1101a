"""Search the settings of a run: `python tune.py --help`."""

import sys

from common.runs.pipe import piped
from common.runs.tune import main

if __name__ == "__main__":
    sys.exit(piped(main))
