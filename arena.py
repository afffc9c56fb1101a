"""Let methods play on the same grounds: `python arena.py --help`."""

import sys

from common.base.command import command
from common.claims.arena_cli import main

if __name__ == "__main__":
    sys.exit(command(main))
