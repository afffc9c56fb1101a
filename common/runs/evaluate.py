"""`evaluate.py`: the network of a finished run, judged on the test split of a data set."""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.base.errors import UserError
from common.runs.cli import guarded
from common.runs.trained import Finished, Trained, find, trained

if TYPE_CHECKING:
    from common.base.dataset import DataSet
    from common.base.task import Task

HELP = """The network of a finished run, judged on the test split of a data set.

  python evaluate.py paper=yogi dataset=mnist dataset=fashion_mnist     trained on mnist, judged on the other
  python evaluate.py paper=yogi dataset=fashion_mnist                   trained on yogi's own data set
  python evaluate.py outputs/yogi/0123456789ab dataset=fashion_mnist    the same, by the run's folder
  python evaluate.py paper=yogi dataset=digits dataset.source=synthetic

The last word dataset=... and the dataset.* words after it name the data to judge on; those before name the
run, as for run.py. The data must be of the run's kind, with inputs of its shape and as many classes; they are
normalised as those that the network was trained on. The metrics stand in evaluation_<data set>_<hash>.json
beside the run's result."""


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(HELP)
        return 0
    return guarded(lambda: _evaluate(words))


def _evaluate(words: list[str]) -> None:
    from common.runs.result import number

    path, metrics = evaluate(words)
    for name, value in metrics.items():
        print(f"  {name:<24} {number(value)}")
    print(f"evaluation: {path}")


def evaluate(words: list[str]) -> tuple[Path, dict[str, float]]:
    """Judge a finished run's network on a data set, and write what came out beside the run's result.

    Args:
        words: of the run, or its folder; then `dataset=...` and the `dataset.*` words of what to judge on.

    Returns:
        The file, and the metrics of the test split by their names.

    Raises:
        UserError: no such run or data set, a run that trained no network, or data of another kind, shape or
            number of classes.
    """
    from common.runs.keys import run_key
    from common.runs.result import write_json

    of_run, of_data = _divided(words)
    run = find(of_run)
    found = trained(run)
    data, settings = _data_set(run, of_data)
    _check(found, data)
    task = _task(found, run)
    data.adopt(found.facts)
    metrics = task.evaluate(found.network, data, "test")
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    path = run.directory / f"evaluation_{data.NAME}_{digest}.json"
    write_json(
        path,
        {
            "run": run_key(run.config),
            "words": list(words),
            "dataset": settings,
            "examples": data.size("test"),
            "metrics": metrics,
            "facts": found.facts,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        },
    )
    return path, metrics


def _divided(words: list[str]) -> tuple[list[str], list[str]]:
    """The words of the run, and those of the data set to judge on.

    Raises:
        UserError: no data set is named, or something else after it.
    """
    places = [place for place, word in enumerate(words) if word.startswith("dataset=")]
    if not places:
        raise UserError("name the data set to judge on, after the run's words (valid: dataset=...)")
    of_run, of_data = words[: places[-1]], words[places[-1] :]
    # words of the run may follow too, as long as they are not about data
    late = [word for word in of_data[1:] if not word.startswith("dataset.")]
    return [*of_run, *late], [word for word in of_data if word not in late]


def _data_set(run: Finished, words: list[str]) -> tuple["DataSet", dict[str, Any]]:
    """The data set that words name, and its settings."""
    from hydra.errors import HydraException
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from common.runs.catalogue import check_choices
    from common.runs.check import check_config
    from common.runs.compose import compose

    check_choices(words)
    paper = run.result["paper"]
    try:
        # `data_dir` is where the run found its own data
        config, _ = compose([f"paper={paper}", f"data_dir='{run.config.data_dir}'", *words])
        check_config(config)
        data = instantiate(config.dataset, _convert_="all")
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error
    settings: Any = OmegaConf.to_container(config.dataset, resolve=True)
    return data, settings


def _check(found: Trained, data: "DataSet") -> None:
    """Refuse data that the network cannot take, before they are read."""
    facts = found.facts
    ours = {"kind": facts["kind"], "shape": tuple(facts["shape"]), "classes": facts["classes"]}
    its = {"kind": data.KIND, "shape": tuple(data.shape), "classes": data.classes}
    for what, value in ours.items():
        if its[what] != value:
            raise UserError(
                f"dataset={data.NAME} has {what} {_text(its[what])}, and the network was trained on "
                f"{facts['name']} with {what} {_text(value)} (valid: data of the same {what})"
            )


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _task(found: Trained, run: Finished) -> "Task":
    """What the network was trained for."""
    from common.base.model import Model
    from common.training.task_of import task_of

    pixels = run.config.paper.get("pixels", "mean")
    if not hasattr(found.network, "task"):
        raise UserError(f"{type(found.network).__name__} says not what it is for")
    task = getattr(found.module, "task", None) or task_of(
        cast(Model, found.network), found.module.data, pixels
    )
    # the weights of classes come from what the run was trained on
    found.module.data.setup()
    return task
