"""A network that answers pictures: of a finished run, or of an exported file, ONNX or state dict."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from common.base.errors import UserError
from common.base.preparation import Preparation
from common.base.weights import read_weights
from common.data.images.decoding import Picture
from common.data.images.prepared import prepared
from common.models.normalised import Normalised
from common.models.served import onnx_session
from common.pictures.answers import Answer, Classes, Mask, Objects, WithPriors, answers_of
from common.runs.predict_files import TAKES
from common.runs.whole_onnx import ANSWERS, PICTURE

if TYPE_CHECKING:
    from torch import Tensor, nn

# stored numbers of the inputs that go through a network at once, and inputs at most
NUMBERS, MOST = 2**20, 16
WEIGHTS, ONNX = ".pt", ".onnx"


@dataclass(frozen=True)
class Told:
    """What must be known of a network.

    Attributes:
        task: a key of `ANSWERS`.
        classes, class_names: of its data set.
        preparation: of pictures.
    """

    task: str
    classes: int
    class_names: list[str]
    preparation: Preparation

    @classmethod
    def of(cls, what: str, told: dict[str, Any], preparation: Preparation | None) -> "Told":
        """What facts or metadata say.

        Args:
            what: the network, for messages.
            told: `task`, `kind`, `classes`, `class_names`.
            preparation: None where no picture can become an input.

        Raises:
            UserError: the network is not for pictures, or for another task.
        """
        task, kind = told.get("task"), told.get("kind")
        if kind in TAKES:
            raise UserError(
                f"{what} takes {TAKES[kind]}, and no pictures (valid: the run itself, and such files)"
            )
        if preparation is None:
            rows = "rows of a table" if len(told["shape"]) == 1 else "no pictures"
            raise UserError(
                f"{what} takes {rows}: predict.py is for networks on pictures (valid: for a table of yours, "
                "evaluate.py ... dataset=table dataset.path=...)"
            )
        if task not in ANSWERS:
            raise UserError(f"{what} is for {task}: predict.py is for {', '.join(ANSWERS)}")
        classes = int(told["classes"])
        names = told.get("class_names") or [f"class {label}" for label in range(classes)]
        return cls(task, classes, [str(name) for name in names], preparation)


@dataclass(frozen=True)
class Predictor:
    """A network that answers pictures.

    Attributes:
        told: what must be known of it.
        answers: of a batch of pictures, uint8 [H, W, 3] of any sizes each, with boxes of a probability above
            the second argument.
        batch: how many pictures to ask at once.
    """

    told: Told
    answers: Callable[[list[Picture], float], list[Answer]]
    batch: int


def predictor(words: list[str]) -> Predictor:
    """The network that words name.

    Args:
        words: of a run, or its folder; or an ONNX file, a state dict, or a folder that holds one, as
            `export.py` writes them; and `import=` for classes of the user's own.

    Raises:
        UserError: it is not there, or not for pictures.
    """
    files = [Path(word).expanduser() for word in words if "=" not in word or Path(word).exists()]
    exported = _exported(files[0]) if files else None
    if exported is None:
        return _of_run(words)
    imports = [word for word in words if word.startswith("import=")]
    others = [word for word in words if word not in imports and Path(word).expanduser() != files[0]]
    if others:
        raise UserError(f"name {exported} alone, not with {others[0]} (valid: with import= at most)")
    return _of_onnx(exported) if exported.suffix == ONNX else _of_state(exported, imports)


def _exported(path: Path) -> Path | None:
    """The exported network at a path; None for a run.

    Raises:
        UserError: a folder of several networks.
    """
    if path.suffix in (WEIGHTS, ONNX):
        return path
    if not path.is_dir() or (path / "result.json").exists():
        return None
    # of both forms the weights, as they need no further package
    for suffix in (WEIGHTS, ONNX):
        found = sorted(path.glob(f"*{suffix}"))
        if len(found) > 1:
            names = ", ".join(file.name for file in found)
            raise UserError(f"{path} holds {len(found)} networks; name one of them: {names}")
        if found:
            return found[0]
    return None


def _of_run(words: list[str]) -> Predictor:
    from common.runs.export import in_float_layers
    from common.runs.trained import find, trained

    run = find(words)
    found = trained(run)
    told = {**found.facts, "task": getattr(found.network, "task", None)}
    what = f"the network of {run.directory}"
    known = Told.of(what, told, found.module.data.preparation())
    return _by_torch(known, _on_stored(in_float_layers(found.network), found.facts))


def _of_state(path: Path, imports: list[str]) -> Predictor:
    """The network of a state dict, built as the .json beside it says."""
    from common.pruning.pruned import is_pruned, restored
    from common.runs.built import built_network
    from common.runs.own import opt_in

    about = path.with_suffix(".json")
    if not path.is_file():
        raise UserError(f"{path}: no such file (valid: a state dict or an ONNX file of export.py)")
    try:
        told = json.loads(about.read_text())
        settings = told["network"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: {about.name}, which says how its network is built, is missing or damaged beside it "
            "(valid: both files as export.py writes them, or the run itself)"
        ) from error
    for word in imports:
        opt_in(word.split("=", 1)[1])
    known = Told.of(str(path), told, _preparation(told))
    network = built_network(settings, str(about))
    held = read_weights(path)
    try:
        if is_pruned(held):
            network = restored(held, path, network)
        else:
            network.load_state_dict(held)
    except UserError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[:1]
        raise UserError(
            f"{path}: holds no weights of the network that {about.name} names ({' '.join(reason)})"
        ) from error
    return _by_torch(known, _on_stored(network, told))


def _on_stored(network: "nn.Module", facts: dict[str, Any]) -> "nn.Module":
    """A network on inputs as the data set stores them; a detector gives its priors too."""
    normalised = Normalised(network, facts)
    priors = getattr(network, "priors", None)
    return normalised if priors is None else WithPriors(normalised, priors)


def _of_onnx(path: Path) -> Predictor:
    """The network of an ONNX file, whole or on batches."""
    if not find_spec("onnxruntime"):
        raise UserError(f"{path}: ONNX files need the package onnxruntime: pip install onnxruntime")
    if not path.is_file():
        raise UserError(f"{path}: no such file (valid: an ONNX file of export.py)")
    try:
        session = onnx_session(path, torch.get_num_threads())
    except Exception as error:
        raise UserError(f"{path} is no ONNX file that onnxruntime reads ({type(error).__name__})") from error
    told = {key: _read(text) for key, text in session.get_modelmeta().custom_metadata_map.items()}
    if "task" not in told:
        raise UserError(f"{path} says nothing of itself (valid: an ONNX file of export.py)")
    known = Told.of(str(path), told, _preparation(told))
    if told.get("whole"):

        def answers(pictures: list[Picture], score: float) -> list[Answer]:
            if score < told.get("score", 0):
                raise UserError(
                    f"score={score:g}: {path} gives boxes above {told['score']:g} alone (valid: from "
                    f"{told['score']:g} on; export.py ... score={score:g} writes another file)"
                )
            return [_whole_answer(session, known.task, picture, score) for picture in pictures]

        return Predictor(known, answers, batch=1)
    name = session.get_inputs()[0].name

    def network(inputs: "Tensor") -> "Tensor | tuple[Tensor, ...]":
        outputs = tuple(map(torch.from_numpy, session.run(None, {name: inputs.numpy()})))
        return outputs if len(outputs) > 1 else outputs[0]

    # what takes inputs as they are stored has its normalisation inside
    inside = "input_range" in told
    return _by_torch(known, _Called(network) if inside else Normalised(_Called(network), told))


class _Called(torch.nn.Module):
    """A function as a network."""

    def __init__(self, function: "Callable[[Tensor], Any]") -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: "Tensor") -> Any:
        return self.function(inputs)


def _whole_answer(session: Any, task: str, picture: Picture, score: float) -> Answer:
    """What a whole network says of a picture."""
    outputs = session.run(list(ANSWERS[task]), {PICTURE: picture})
    if task == "detection":
        sure = outputs[1] > np.float32(score)
        return Objects(*(output[sure] for output in outputs))
    return Classes(outputs[0]) if task == "classification" else Mask(outputs[0])


def _by_torch(told: Told, network: "nn.Module") -> Predictor:
    """A network on inputs as they are stored, pictures prepared and outputs read by torch."""
    size, preparation = told.preparation.size, told.preparation
    device = "cuda" if torch.cuda.is_available() and next(network.parameters(), None) is not None else "cpu"
    network = network.to(device).eval()

    @torch.inference_mode()
    def answers(pictures: list[Picture], score: float) -> list[Answer]:
        given = [prepared(torch.from_numpy(picture).to(device), preparation) for picture in pictures]
        return answers_of(
            told.task,
            network(torch.stack([one.stored for one in given])),
            size=size,
            filled=[one.filled for one in given],
            wholes=[(picture.shape[0], picture.shape[1]) for picture in pictures],
            classes=told.classes,
            score=score,
        )

    numbers = preparation.channels * math.prod(size)
    return Predictor(told, answers, batch=max(1, min(MOST, NUMBERS // numbers)))


def _preparation(told: dict[str, Any]) -> Preparation | None:
    return Preparation.of_json(told["picture"]) if told.get("picture") else None


def _read(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
