"""What a run needs trained first: a teacher, a paraphraser, an encoder."""

from pathlib import Path
from typing import Any

from torch import nn

from common.base.errors import UserError


class Stage:
    """A trained network that another run starts from.

    A class whose config may name one lists the key in `STAGES: ClassVar[tuple[str, ...]]`. In a config the
    key holds an override string (`model=resnet56 method=distillation/none`), the path of a run's
    checkpoint, or null; the runner makes or finds that run, and hands the constructor a Stage in its place.
    What the stage takes from the run that needs it stands in `common.runs.inheritance`, by the key.
    (No dataclass: Hydra would take it for a config.)

    Args:
        words: the override string or the path.
        key: the run key; "" for a file that no run made.
        metrics: of the stage's result.
        model: with its trained weights, on the CPU.
        folder: of the run, with what else it leaves; None for a file that no run made.
    """

    def __init__(
        self,
        *,
        words: str,
        key: str,
        metrics: dict[str, Any],
        model: nn.Module,
        folder: Path | None = None,
    ) -> None:
        self.words, self.key, self.metrics, self.model = words, key, metrics, model
        self.folder = folder


def require_stage(stage: Stage | str | None, key: str) -> Stage:
    """The stage that a constructor got.

    Args:
        stage: as handed over.
        key: where a config names it, as `method.teacher`.

    Raises:
        UserError: none was named.
    """
    if isinstance(stage, Stage):
        return stage
    raise UserError(
        f"{key}=null: name what is to be used (valid: an override string such as "
        "'model=resnet56 method=distillation/none', or the path of a checkpoint)"
    )
