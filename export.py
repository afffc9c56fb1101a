"""Export the network of a finished run: `python export.py --help`."""

import sys

from common.runs.export import main
from common.runs.pipe import piped

if __name__ == "__main__":
    sys.exit(piped(main))
