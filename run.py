"""Run a paper, or one entry of its tables: `python run.py --help`."""

import sys

from common.runs.pipe import piped
from common.runs.start import main

if __name__ == "__main__":
    sys.exit(piped(main))
