"""`export.py`: the plain network of a finished run, as a state dict or as ONNX."""

import logging
import os
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING

from common.base.errors import UserError
from common.runs.cli import guarded
from common.tables.tables import papers, unknown

if TYPE_CHECKING:
    from torch import nn

HELP = """The plain network that a finished run leaves, without what helped its training.

  python export.py paper=one dataset=digits           both forms, beside the run's result
  python export.py entry=one.table1.cifar100_resnet32_one to=state_dict
  python export.py paper=one to=onnx path=net.onnx

The words are those of the run (python run.py ...). The state dict holds the bare network's weights
(torch.load(..., weights_only=True)); the ONNX file takes float images [batch, channels, height, width],
normalised as the run's data set gives them, and returns logits."""
FORMS = {"state_dict": [".pt"], "onnx": [".onnx"], "both": [".pt", ".onnx"]}
TASKS = ("classification", "segmentation")
Network = tuple["nn.Module", tuple[int, ...]]


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(HELP)
        return 0
    return guarded(lambda: _export(words))


def _export(words: list[str]) -> None:
    options = {"to": "both", "path": ""}
    options |= dict(word.split("=", 1) for word in words if word.startswith(("to=", "path=")))
    words = [word for word in words if not word.startswith(("to=", "path="))]
    for path in export(words, options["to"], Path(options["path"]) if options["path"] else None):
        print(f"{'ONNX' if path.suffix == '.onnx' else 'state dict'}: {path}")


def export(words: list[str], to: str, path: Path | None) -> list[Path]:
    """Write the network of a finished run.

    Args:
        words: of the run.
        to: "state_dict", "onnx" or "both".
        path: where to; None is `network` in the run's folder. Each form has its own suffix, .pt or .onnx.

    Returns:
        The files.

    Raises:
        UserError: no such run, a run without a network for classification or segmentation, another form,
            or packages that ONNX needs are missing.
    """
    if to not in FORMS:
        raise UserError(f"to={to}; valid: {', '.join(FORMS)}")
    if to != "state_dict" and not (find_spec("onnx") and find_spec("onnxscript")):
        raise UserError(
            "ONNX needs the packages onnx and onnxscript: pip install -e '.[export]' "
            "(without them: to=state_dict)"
        )
    directory, (network, shape) = _trained(words)
    path = path or directory / "network"
    written = []
    for suffix in FORMS[to]:
        target = path.with_suffix(suffix)
        write = _write_onnx if suffix == ".onnx" else _write_state
        _atomically(target, write(network, shape))
        written.append(target)
    return written


def _trained(words: list[str]) -> tuple[Path, Network]:
    """The folder of a finished run, and its network with the shape of one input."""
    from common.runs.compose import compose
    from common.runs.keys import run_key
    from common.runs.own import opt_in
    from common.runs.result import read_result
    from common.runs.runner import trained_module

    named = [word.split("=", 1) for word in words if word.startswith(("paper=", "entry="))]
    if not named:
        raise UserError("name a run by its words, as for run.py (valid: paper=... or entry=...)")
    for _, paper in (one for one in named if one[0] == "paper"):
        if paper not in papers():
            raise UserError(unknown("paper", paper, papers()))
    config, request = compose(words)
    opt_in(config["import"])
    directory = Path(config.output_dir) / run_key(config)
    command = f"python run.py {' '.join(words)}"
    if read_result(directory / "result.json") is None:
        raise UserError(f"no finished run in {directory}; this makes it: {command}")
    if not (directory / "last.ckpt").exists():
        raise UserError(f"{directory} has no checkpoint; this makes the run anew: {command} force=true")
    module = trained_module(config, request)
    _load(module, directory / "last.ckpt", f"{command} force=true")
    network = module.network().eval()
    task = getattr(network, "task", None)
    if task not in TASKS:
        raise UserError(f"{type(network).__name__} is for {task}: only {' and '.join(TASKS)} are exported")
    return directory, (network, module.data.shape)


def _load(module: "nn.Module", checkpoint: Path, anew: str) -> None:
    import torch

    try:
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)
    except (RuntimeError, KeyError, OSError, EOFError, UnpicklingError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"{checkpoint} does not fit the present code ({reason}); anew: {anew}") from error


def _write_state(network: "nn.Module", shape: tuple[int, ...]) -> Callable[[Path], None]:
    import torch

    return lambda path: torch.save(network.state_dict(), path)


def _write_onnx(network: "nn.Module", shape: tuple[int, ...]) -> Callable[[Path], None]:
    import torch

    def write(path: Path) -> None:
        # the exporter's own notes say nothing about a network
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network,
                (torch.zeros(2, *shape),),
                path,
                dynamo=True,
                input_names=["images"],
                output_names=["logits"],
                dynamic_shapes=({0: "batch"},),
                external_data=False,
                verbose=False,
            )

    return write


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
