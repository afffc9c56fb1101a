"""What the papers report beside what was measured: `python report.py --help`."""

import sys

from common.base.command import command
from common.report.cli import main

if __name__ == "__main__":
    sys.exit(command(main))
