"""Numbers and curves of any runs for a paper of one's own: `python compare.py --help`."""

import sys

from common.base.command import command
from common.report.compare import main

if __name__ == "__main__":
    sys.exit(command(main))
