"""Numbers and curves of any runs for a paper of one's own: `python compare.py --help`."""

import sys

from common.report.compare import main
from common.base.command import command

if __name__ == "__main__":
    sys.exit(command(main))
