"""Make recorded results again and compare: `python replay.py --help`."""

import sys

from common.base.command import command
from common.runs.replay import main

if __name__ == "__main__":
    sys.exit(command(main))
