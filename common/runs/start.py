"""Where `run.py` begins: what its words alone refuse needs neither Hydra nor torch."""

import sys

from common.base.errors import UserError
from common.runs.refusal import check_words
from common.runs.words import MULTIRUN, quoted


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr.

    An option other than -m may ask for something else than a run: its words are checked later.
    """
    words = quoted(sys.argv[1:])
    if not any(word.startswith("-") and word not in MULTIRUN for word in words):
        try:
            check_words(words)
        except UserError as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1
    from common.runs.cli import main as launch

    return launch()
