"""Search the settings of a run: `python tune.py --help`."""

import sys

from common.base.command import command
from common.runs.tune import main

if __name__ == "__main__":
    sys.exit(command(main))
