"""Which runs answer files that are no pictures, and who does it for them."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from common.runs.predict_files import Answered, Asked

if TYPE_CHECKING:
    from common.runs.trained import Finished

Answerer = Callable[["Finished", Asked], Answered]


def answerer(kind: str) -> Answerer | None:
    """What answers by the network of a run on data of a kind; None where it takes pictures or rows."""
    if kind == "question_answering":
        from common.runs.predict_answers import predict_answers

        return predict_answers
    if kind == "translation":
        from common.runs.predict_translations import predict_translations

        return predict_translations
    if kind == "sequence_tagging":
        from common.runs.predict_tags import predict_tags

        return predict_tags
    if kind == "point_cloud_classification":
        from common.runs.predict_clouds import predict_clouds

        return predict_clouds
    return None


def run_on_files(words: list[str], paths: list[Path]) -> "Finished | None":
    """The run that words name, where its network takes files that are no pictures and these may be some.

    Raises:
        UserError: words of a run that is not there.
    """
    from common.runs.result import read_result
    from common.runs.trained import find

    if any(map(_has_pictures, paths)):
        return None
    if not any(word.startswith(("paper=", "entry=")) for word in words):
        # beside `import=` the folder of the run, or a file
        named = [word for word in words if "=" not in word or Path(word).expanduser().exists()]
        path = Path(named[0]).expanduser()
        result = read_result((path if path.is_dir() else path.parent) / "result.json")
        if result is None or answerer(result["config"]["dataset"].get("kind")) is None:
            return None
    run = find(words)
    return run if answerer(run.config.dataset.get("kind")) is not None else None


def _has_pictures(path: Path) -> bool:
    """Whether a file is a picture by its name, or a folder holds one."""
    from common.runs.pictures import is_picture

    if path.is_dir():
        return any(is_picture(Path(name)) for _, _, names in os.walk(path) for name in names)
    return is_picture(path)
