"""A process that makes one run after the other, so that none but the first waits for imports.

`python -m common.runs.worker`: jobs come as JSON lines on its input, what came of them goes as JSON lines to
the file descriptor that its output was; what runs print goes to its errors. It ends with its input.
"""

import contextlib
import json
import os
import sys
from typing import Any

from common.runs.orphans import end_with

# how a worker says that its run was stopped from outside: it has a checkpoint, and is asked for again
INTERRUPTED = "interrupted"


def main() -> int:
    """Serve until the input ends."""
    end_with(os.getppid())
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    sys.argv[1:] = []
    for line in sys.stdin:
        answer = made(json.loads(line)["words"])
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
        if answer.get(INTERRUPTED):
            return 1
    return 0


def made(words: list[str]) -> dict[str, Any]:
    """Make one run; what came of it.

    Returns:
        `metrics`, `share` 1 and `seconds` (its earlier pieces included) of one that is done, metrics of its
        curves' last points and a smaller share of one that paused; `said` of one that failed; `interrupted`,
        and where they are known `share` and `seconds`, of one that was stopped.
    """
    from common.runs.cli import make_one, one_line

    try:
        outcome = make_one(words)
    except (KeyboardInterrupt, SystemExit):
        # Lightning's own way to end by SIGTERM is an exit
        return {INTERRUPTED: True}
    except Exception as error:
        if type(error).__name__ == "Interrupted":
            return {INTERRUPTED: True, "share": vars(error)["share"], "seconds": vars(error)["seconds"]}
        if type(error).__name__ == "Paused":
            return {"metrics": vars(error)["last"], "share": vars(error)["share"]}
        return {"said": one_line(error, words)}
    metrics = {k: v for k, v in outcome.result["metrics"].items() if _number(v)}
    return {"metrics": metrics, "share": 1.0, "seconds": outcome.result["wall_seconds"]}


def _number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        sys.exit(main())
