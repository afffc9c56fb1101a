"""Judge what the papers say: `python claims.py --help`."""

import sys

from common.claims.cli import main

if __name__ == "__main__":
    sys.exit(main())
