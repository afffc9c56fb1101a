"""The start of a W&B run without the import of W&B Launch; importing this module puts it in place.

Each run asks whether inputs of a job were staged, and imports for this all of Launch and of W&B's public API,
which takes longer than all else that W&B does at a run's start. Whoever stages inputs has imported Launch
before; where that is not so, there are none. It is wandb 0.31's own code that is stood in for.
"""

import sys

from wandb.sdk.wandb_run import Run

# where staged inputs are kept
STAGED = "wandb.sdk.launch.inputs.internal"

_apply = Run._detect_and_apply_job_inputs


def _apply_where_staged(run: Run) -> None:
    if STAGED in sys.modules:
        _apply(run)


Run._detect_and_apply_job_inputs = _apply_where_staged  # type: ignore[assignment,method-assign]
