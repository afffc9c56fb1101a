"""Measure the entries that are cheap, a sitting at a time: `python cover.py --help`."""

import sys

from common.base.command import command
from common.runs.cover import main

if __name__ == "__main__":
    sys.exit(command(main))
