"""Evaluate a finished run on another data set: `python evaluate.py --help`."""

import sys

from common.base.command import command
from common.runs.evaluate import main

if __name__ == "__main__":
    sys.exit(command(main))
