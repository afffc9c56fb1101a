"""A finished run, found by its words or its folder, with the network that it leaves."""

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from common.base.command import refuse_options
from common.base.errors import UserError
from common.runs.words import as_text
from common.tables.tables import papers, unknown

if TYPE_CHECKING:
    from torch import nn

    from common.base.module import PaperModule
    from common.runs.pipeline import Stages
    from common.runs.request import Request


@dataclass(frozen=True)
class Finished:
    """A run that is done.

    Attributes:
        directory: its folder.
        words: by which it is named.
        config, request: of the run.
        result: what stands in its `result.json`.
    """

    directory: Path
    words: list[str]
    config: DictConfig
    request: "Request"
    result: dict[str, Any]


@dataclass(frozen=True)
class Trained:
    """What a finished run leaves.

    Attributes:
        module: the paper's, with its data set.
        network: the plain network in evaluation mode, as the run's own evaluations judged it.
        stages: the runs that it needed, as teachers.
        facts: of its data set, see `DataSet.facts`.
    """

    module: "PaperModule"
    network: "nn.Module"
    stages: "Stages"
    facts: dict[str, Any]


def find(words: list[str]) -> Finished:
    """The finished run that words name: those of `run.py`, or its folder (or a file in it).

    Beside a folder only `import=` may stand, which a run of the user's own classes needs.

    Raises:
        UserError: it is not named, or there is none.
    """
    from common.runs.compose import compose
    from common.runs.keys import run_key
    from common.runs.own import opt_in
    from common.runs.result import read_result

    refuse_options(words)
    folders = [word for word in words if "=" not in word or Path(word).expanduser().exists()]
    if folders:
        return _in_folder(folders, words)
    named = [word.split("=", 1) for word in words if word.startswith(("paper=", "entry="))]
    if not named:
        raise UserError(
            "name a run by its words, as for run.py, or by its folder "
            "(valid: paper=..., entry=... or outputs/PAPER/KEY)"
        )
    for _, paper in (one for one in named if one[0] == "paper"):
        if paper not in papers():
            raise UserError(unknown("paper", paper, papers()))
    config, request = compose(words)
    opt_in(config["import"])
    directory = Path(config.output_dir) / run_key(config)
    result = read_result(directory / "result.json")
    if result is None:
        _check_trains(config)
        raise UserError(f"no finished run in {directory}; this makes it: {_command(words)}")
    return Finished(directory, words, config, request, result)


def _check_trains(config: DictConfig) -> None:
    """Refuse a paper whose runs leave no network: making the run would not help.

    Raises:
        UserError: see above.
    """
    from common.base.module import PaperModule
    from common.runs.check import load_target

    module = load_target(config.paper["_target_"], "paper")
    if isinstance(module, type) and issubclass(module, PaperModule) and not module.trains_network():
        raise UserError(module.no_network())


def _in_folder(folders: list[str], words: list[str]) -> Finished:
    """The run in a folder, by the words that its result holds, and `import=`.

    Raises:
        UserError: other words beside the folder, no result in it, or one of other code.
    """
    from common.runs.compose import compose
    from common.runs.keys import key_of_identity, run_key
    from common.runs.own import opt_in
    from common.runs.result import read_result

    imports = [word for word in words if word.startswith("import=")]
    others = [word for word in words if word not in (folders[0], *imports)]
    if others:
        valid = " ".join([folders[0], *imports])
        raise UserError(f"name a run by its folder alone, not with {others[0]} (valid: {valid})")
    directory = Path(folders[0]).expanduser()
    directory = directory.parent if directory.is_file() else directory
    result = read_result(directory / "result.json")
    if result is None:
        raise UserError(f"{folders[0]}: no finished run there (valid: a folder with a run's result.json)")
    # only the command line itself opts in to modules of the user's own
    own = [word for word in result["overrides"] if not word.startswith(("force=", "import="))]
    key = key_of_identity(result["config"])
    where = directory.resolve()
    if f"{where.parent.name}/{where.name}" == key:
        # there lie the runs that it needed; a folder that was moved says nothing of them
        own = [*own, f"output_dir={as_text(str(where.parent.parent))}"]
    config, request = compose([*own, *imports])
    opt_in(config["import"])
    if run_key(config) != key:
        raise UserError(f"{directory}: its words name another run by now; anew: {_command(own)}")
    return Finished(directory, own, config, request, result)


def trained(run: Finished) -> Trained:
    """The network of a finished run.

    Raises:
        UserError: it trained none, its checkpoint is missing, or is not of the present code.
    """
    from common.data.shared.fingerprint import changes, fingerprint_of
    from common.runs.runner import trained_parts

    checkpoint, anew = run.directory / "last.ckpt", f"{_command(run.words)} force=true"
    if not checkpoint.exists():
        raise UserError(f"{run.directory} has no checkpoint; this makes the run anew: {anew}")
    _check_paths(run.config)
    module, stages = trained_parts(run.config, run.request)
    try:
        network = _loaded(module, checkpoint, anew)
    except UserError as error:
        what = changes(run.result.get("data"), fingerprint_of(module.data))
        if what is None:
            raise
        raise UserError(f"the data of {run.directory} have changed since: {what}; anew: {anew}") from error
    # a result of earlier code says less of the user's own files
    facts = {**module.data.encoding(), **(run.result.get("facts") or module.data.facts())}
    return Trained(module, network, stages, facts)


def _check_paths(config: DictConfig) -> None:
    """Refuse a run of the user's own files by a relative path that leads nowhere from the current folder.

    The path is a part of the run's name (the run key), and so are its teachers', which have it from there.

    Raises:
        UserError: with the path.
    """
    for key in ("path", "test_path"):
        path = config.dataset.get(key)
        if path and not Path(path).expanduser().is_absolute() and not Path(path).exists():
            raise UserError(
                f"dataset.{key}={path}: the run read its data by this relative path, which is not there from "
                f"{Path.cwd()} (valid: call this from the folder in which the run was made, and name the run "
                "by a path from there)"
            )


def _loaded(module: "PaperModule", checkpoint: Path, anew: str) -> "nn.Module":
    import torch

    try:
        return module.finished(torch.load(checkpoint, map_location="cpu", weights_only=True))
    except (RuntimeError, KeyError, OSError, EOFError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        if isinstance(error, UnpicklingError):
            # torch's own line advises to trust the file
            reason = "it holds more than tensors, numbers and texts, or is damaged"
        raise UserError(f"{checkpoint} does not fit the present code ({reason}); anew: {anew}") from error


def _command(words: list[str]) -> str:
    return f"python run.py {' '.join(words)}"
