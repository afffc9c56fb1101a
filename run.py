"""Run a paper, or one entry of its tables: `python run.py --help`."""

import sys

from common.runs import completion

if __name__ == "__main__":
    if completion.wanted(sys.argv[1:]):
        sys.exit(completion.main(sys.argv[1:]))

    from common.base.command import command
    from common.runs.start import main

    sys.exit(command(main))
