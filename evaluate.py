"""Evaluate a finished run on another data set: `python evaluate.py --help`."""

import sys

from common.runs.evaluate import main
from common.runs.pipe import piped

if __name__ == "__main__":
    sys.exit(piped(main))
