"""Show pictures to the network of a finished run, or to an exported one: `python predict.py --help`."""

import sys

from common.base.command import command
from common.runs.predict import main

if __name__ == "__main__":
    sys.exit(command(main))
