"""Numbers and curves of any runs for a paper of one's own: `python compare.py --help`."""

import sys

from common.report.compare import main
from common.runs.pipe import piped

if __name__ == "__main__":
    sys.exit(piped(main))
