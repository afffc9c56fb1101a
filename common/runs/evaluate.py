"""`evaluate.py`: the network of a finished run, judged on the test split of a data set."""

import hashlib
import inspect
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.base.command import refuse_options, run_or_help
from common.base.errors import UserError
from common.runs.cli import guarded
from common.runs.evidence import key_of
from common.runs.predict_translations import with_vocabulary
from common.runs.trained import Finished, Trained, find, trained
from common.runs.words import as_text

if TYPE_CHECKING:
    from common.base.dataset import DataSet
    from common.base.task import Task

HELP = """The network of a finished run, judged on the test split of a data set.

  python evaluate.py paper=yogi dataset=mnist dataset=fashion_mnist     trained on mnist, judged on the other
  python evaluate.py paper=yogi dataset=fashion_mnist                   trained on yogi's own data set
  python evaluate.py outputs/yogi/0123456789ab dataset=fashion_mnist    the same, by the run's folder
  python evaluate.py paper=yogi dataset=digits dataset.source=synthetic
  python evaluate.py outputs/yogi/0123456789ab dataset=table dataset.path=new.csv     your own, of any order

The last word dataset=... and the dataset.* words after it name the data to judge on; those before name the
run, as for run.py. The data must be of the run's kind, with inputs of its shape and as many classes; they are
normalised as those that the network was trained on. Columns, words and classes of your own files are found by
their names: the run's columns in any order (others are left out), the run's words and fills (other words are
counted), the run's classes or some of them. All rows and images count, those of a part test or val where the
files have one; of the very files that the run was trained on, those that it held out. The metrics stand in
evaluation_<data set>_<hash>.json beside the run's result."""
# data sets that read a table of the user's own
TABLES = ("table", "table_regression")
FOLDERS = ("folder", "folder_boxes", "cloud_folder")


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    return run_or_help(HELP, _evaluate, guarded)


def _evaluate(words: list[str]) -> None:
    from common.runs.result import number

    path, metrics = evaluate(words)
    for name, value in metrics.items():
        print(f"  {name:<24} {number(value)}")
    written = json.loads(path.read_text())
    print(f"judged on {written['examples']:,} examples: {written['tested']}")
    print(f"evaluation: {path}")


def evaluate(words: list[str]) -> tuple[Path, dict[str, float]]:
    """Judge a finished run's network on a data set, and write what came out beside the run's result.

    Args:
        words: of the run, or its folder; then `dataset=...` and the `dataset.*` words of what to judge on.

    Returns:
        The file, and the metrics of the test split by their names.

    Raises:
        UserError: no such run or data set, a run that trained no network, or data of another kind, shape or
            number of classes; of the user's own files, without the run's columns or with other classes.
    """
    from common.runs.catalogue import check_choices
    from common.runs.keys import run_key
    from common.runs.result import write_json

    of_run, of_data = _divided(words)
    refuse_options(words)
    check_choices(of_data)
    try:
        run = find(of_run)
    except UserError as error:
        if sum(word.startswith("dataset=") for word in words) > 1 or "no finished run" not in str(error):
            raise
        raise UserError(
            f"{error}; {of_data[0]} names what to judge on (the run's own dataset=... stands before it)"
        ) from error
    found = trained(run)
    if found.facts["kind"] == "translation":
        found = with_vocabulary(run, found)
    data, settings = _data_set(run, found, of_data)
    _check(found, data)
    task = _task(found, run)
    data.adopt(found.facts)
    notes = [*data.notes, *_other_classes(found, data), *_changed_since(run, data, settings)]
    if (scale := found.facts.get("target_scale", 1)) not in (0, 1):
        notes.append(f"rmse is in standard deviations of the training targets, {1 / scale:.6g}")
    notes += [f"{count} {what}" for what, count in data.repairs.items()]
    for note in notes:
        print(f"dataset={data.NAME}: {note}", file=sys.stderr)
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
            "tested": data.tested(),
            "notes": notes,
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


def _data_set(run: Finished, found: Trained, words: list[str]) -> tuple["DataSet", dict[str, Any]]:
    """The data set that words name, files of the user's own read as the network's were; its settings."""
    from hydra.errors import HydraException
    from hydra.utils import get_object, instantiate
    from omegaconf import OmegaConf

    from common.base.dataset import Origin
    from common.runs.check import check_config
    from common.runs.compose import compose

    paper = run.result["paper"]
    try:
        # `data_dir` is where the run found its own data
        config, _ = compose(
            [f"paper={paper}", f"data_dir={as_text(run.config.data_dir)}", *_as_trained(run, found, words)]
        )
        check_config(config)
        handed = {}
        if "origin" in inspect.signature(get_object(config.dataset["_target_"])).parameters:
            handed["origin"] = Origin(found.facts, run.result.get("data"))
        data = instantiate(config.dataset, _convert_="all", _partial_=True)(**handed)
    except HydraException as error:
        if isinstance(error.__cause__, UserError):
            raise error.__cause__ from error
        raise UserError(f"{' '.join(words)}: {str(error).splitlines()[0]}") from error
    settings: Any = OmegaConf.to_container(config.dataset, resolve=True)
    known = run.config.dataset.get("test")
    if getattr(data, "held_out", False) and "test" in settings and settings["test"] != known:
        raise UserError(
            f"dataset.test={settings['test']}: the run held out {known} of this {data.NAME}, and was trained "
            f"on the rest (valid: {known})"
        )
    return data, settings


def _as_trained(run: Finished, found: Trained, words: list[str]) -> list[str]:
    """The words, with what they do not say of files of the user's own as the run had it.

    Raises:
        UserError: another part is asked for of what the run held a part out of.
    """
    facts, settings = found.facts, run.config.dataset
    choice = words[0].split("=", 1)[1]
    usual: dict[str, Any] = {}
    if choice in TABLES:
        usual = {"kind": facts["kind"], "target": facts.get("target")}
    elif choice == "folder" and len(facts["shape"]) == 3:
        usual = {"size": facts["shape"][-1], "unreadable": settings.get("unreadable")}
    elif choice == "folder_boxes" and len(facts["shape"]) == 3:
        usual = {"size": facts["shape"][1:]}
    elif choice == "cloud_folder":
        usual = {"points": facts["shape"][0], "unreadable": settings.get("unreadable")}
    if choice in (*TABLES, *FOLDERS):
        usual["test"] = settings.get("test")
    elif choice == "tagged_file":
        usual = {key: settings.get(key) for key in ("scheme", "words", "kept_from", "longest")}
    elif choice == "question_file":
        keys = ("words", "kept_from", "longest", "longest_passage", "longest_question", "vectors")
        usual = {key: settings.get(key) for key in keys}
    elif choice == "text_pair":
        usual = {key: settings.get(key) for key in ("level", "vocabulary", "longest", "bleu")}
    elif choice == "text_file":
        usual = {key: settings.get(key) for key in ("level", "kept_from", "bptt")}
    given = {key_of(word).removeprefix("dataset.") for word in words}
    added = [
        f"dataset.{key}={as_text(value) if isinstance(value, str) else value}"
        for key, value in usual.items()
        if value is not None and key not in given
    ]
    return [*words, *added]


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


def _changed_since(run: Finished, data: "DataSet", settings: dict[str, Any]) -> list[str]:
    """A note where the run's own file or folder is another by now, so that no part of it is held out."""
    own, given = run.config.dataset.get("path"), settings.get("path")
    parts = getattr(data, "folders", {})
    if getattr(data, "held_out", True) or "test" in parts or not own or not given:
        return []
    if not parts and Path(given).expanduser().is_dir():
        # of texts, whose folders have a test part always
        return []
    if Path(own).expanduser().resolve() != Path(given).expanduser().resolve():
        return []
    return [f"{given} has changed since the run: what the network was trained on is judged with the rest"]


def _other_classes(found: Trained, data: "DataSet") -> list[str]:
    """A note where the classes of data of another name are taken by their position."""
    theirs, its = found.facts["class_names"], data.class_names()
    if theirs is None or its is None or theirs == its:
        return []
    return [
        f"its classes ({', '.join(its[:3])}, ...) are taken by their position for those of "
        f"{found.facts['name']} ({', '.join(theirs[:3])}, ...)"
    ]


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
    if found.facts["kind"] == "segmentation":
        # the weights of classes come from what the run was trained on
        found.module.data.setup()
    return task
