"""Judge what the papers say: `python claims.py --help`."""

import sys

from common.claims.cli import main
from common.runs.pipe import piped

if __name__ == "__main__":
    sys.exit(piped(main))
