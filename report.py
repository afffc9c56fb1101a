"""What the papers report beside what was measured: `python report.py --help`."""

import sys

from common.report.cli import main
from common.runs.pipe import piped

if __name__ == "__main__":
    sys.exit(piped(main))
