"""Let methods play on the same grounds: `python arena.py --help`."""

import sys

from common.claims.arena_cli import main
from common.runs.pipe import piped

if __name__ == "__main__":
    sys.exit(piped(main))
