"""Judge what the papers say: `python claims.py --help`."""

import sys

from common.base.command import command
from common.claims.cli import main

if __name__ == "__main__":
    sys.exit(command(main))
