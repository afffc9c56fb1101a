"""Export the network of a finished run: `python export.py --help`."""

import sys

from common.base.command import command
from common.runs.export import main

if __name__ == "__main__":
    sys.exit(command(main))
