"""`export.py`: the plain network of a finished run, as a state dict or as ONNX, and how fast it is."""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from common.base.command import run_or_help
from common.base.errors import UserError
from common.runs.cli import guarded
from common.runs.refusal import refuse_near
from common.runs.trained import Finished, Trained, find, trained

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

HELP = """The plain network that a finished run leaves, without what helped its training.

  python export.py paper=one dataset=digits           both forms, beside the run's result
  python export.py entry=one.table1.cifar100_resnet32_one to=state_dict
  python export.py paper=one to=onnx path=net.onnx
  python export.py outputs/one/0123456789ab           the same, by the run's folder
  python export.py paper=one whole=false              the ONNX file takes batches of inputs and gives logits
  python export.py paper=one normalise=false          the same without the normalisation
  python export.py paper=one fold=false               the ONNX file with batch normalisation as it was trained
  python export.py paper=int8_training to=int8        float32 and integers, how fast and how alike they are

The words are those of the run (python run.py ...). The state dict holds the bare network's weights
(torch.load(..., weights_only=True)), and the .json beside it says what else is needed to use it.

Of networks for pictures the ONNX file is whole: it takes one decoded picture of any size, uint8 [height,
width, 3] in RGB (turned upright), and gives what predict.py gives: probabilities [classes]; of detectors
boxes [n, 4] in pixels, scores [n] (above score=0.3) and labels [n]; of segmentation the class of each pixel
[height, width]. Resizing, normalisation, decoding and suppression of boxes are inside. With whole=false, and
for tables, it takes float32 batches of what the data set stores: pixels 0..255 as [batch, channels, height,
width] (or the input_range of its metadata), or rows of a table; it returns logits, and for regression
predictions in the targets' own unit. Its metadata hold the class names, the shape, the normalisation, and the
words and metrics of the run; of networks for pictures how a picture becomes an input; of a table of yours its
target and its columns, with the words of each or what fills a missing number, and how to feed a row. With
normalise=false it takes what the network takes, and its metadata say how to get there. Batch normalisation
that follows a convolution is folded into it (fold=false, and to=int8: not). A network of
method=quantization/... is given in float layers with its quantised weights, and with to=int8 in integers (QDQ
form) too. The time of a batch is measured here (latency=false: not).

The state dict's file of a pruned run says how wide the layers are too: common.pruning.pruned.load_pruned
makes the network of it. The whole network is timed in turn with the pruned one."""
INT8 = ".int8.onnx"
FORMS = {"state_dict": [".pt"], "onnx": [".onnx"], "both": [".pt", ".onnx"], "int8": [".onnx", INT8]}
SUFFIXES = FORMS["both"]
# the probability from which on a whole detector and `predict.py` give a box, where nobody says otherwise
SCORE = 0.3
# examples on which the ranges of tensors are measured that training does not track
CALIBRATION = 256
# what a network gives, by its task
OUTPUTS = {
    "classification": ["logits"],
    "segmentation": ["logits"],
    "detection": ["offsets", "logits", "priors"],
    "reconstruction": ["logits"],
    "regression": ["predictions"],
}
# of a file that does not take pictures
MEANINGS = {
    "classification": "one for each class [batch, classes]; softmax gives probabilities",
    "segmentation": "one for each class and pixel [batch, classes, height, width]",
    "detection": "offsets [batch, priors, 4] and logits [batch, priors, 1 + classes], the background first; "
    "priors [priors, 4] as centre and size relative to the picture",
    "reconstruction": "one for each pixel [batch, pixels]; sigmoid gives the image in [0, 1]",
    "regression": "[batch]",
}
# what the network of a pruned run is compared with
WHOLE = "whole network"
SWITCHES = {"true": True, "false": False}
SWITCHED = ("normalise", "latency", "fold", "whole")


@dataclass(frozen=True)
class Options:
    """How a network is exported.

    Attributes:
        to: a key of `FORMS`.
        path: where to; None is `network` in the run's folder. Each form has its own suffix, .pt or .onnx.
        normalise: whether ONNX takes inputs as the data set stores them.
        latency: whether to measure it.
        fold: whether ONNX, and what is timed, has batch normalisation folded into convolutions.
        whole: whether ONNX takes a picture of any size and gives an answer, where the network is for
            pictures; not without `normalise`.
        score: of whole detectors, the probability above which a box is given; None is that of predict.py.
    """

    to: str = "both"
    path: Path | None = None
    normalise: bool = True
    latency: bool = True
    fold: bool = True
    whole: bool = True
    score: float | None = None


@dataclass(frozen=True)
class Exported:
    """What came out: the files, and lines on how fast the networks are."""

    files: list[Path]
    latency: list[str]


def main() -> int:
    """Run the command line; the exit code is 0, or 1 with one line on stderr."""
    return run_or_help(HELP, _export, guarded)


def _export(words: list[str]) -> None:
    given = {"to": "both", "path": "", "normalise": "true", "latency": "true", "whole": "true"}
    given |= {"fold": "true"}
    keys = tuple(f"{key}=" for key in (*given, "score"))
    given |= dict(word.split("=", 1) for word in words if word.startswith(keys))
    refuse_near([word for word in words if not word.startswith(keys)], [*given, "score"])
    for key in SWITCHED:
        if given[key] not in SWITCHES:
            raise UserError(f"{key}={given[key]}; valid: {', '.join(SWITCHES)}")
    options = Options(
        to=given["to"],
        path=Path(given["path"]).expanduser() if given["path"] else None,
        score=share("score", given["score"]) if "score" in given else None,
        **{key: SWITCHES[given[key]] for key in SWITCHED},
    )
    exported = export([word for word in words if not word.startswith(keys)], options)
    for path in exported.files:
        form = "ONNX" if path.suffix == ".onnx" else "state dict"
        print(f"{form}: {path} ({path.stat().st_size:,} bytes)")
    for line in exported.latency:
        print(line)


def share(key: str, text: str) -> float:
    """A probability of the command line.

    Raises:
        UserError: it is none.
    """
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise UserError(f"{key}={text}: give a probability from 0 to below 1")
    return value


def export(words: list[str], options: Options) -> Exported:
    """Write the network of a finished run.

    Args:
        words: of the run, or its folder.
        options: how.

    Raises:
        UserError: no such run, a run without a network, or one for another task than those of `OUTPUTS`,
            another form, a score for what finds no boxes, or packages that ONNX needs are missing.
    """
    if options.to not in FORMS:
        raise UserError(f"to={options.to}; valid: {', '.join(FORMS)}")
    if options.to != "state_dict" and not _has_onnx():
        raise UserError(
            "ONNX needs the packages onnx and onnxscript: pip install -e '.[export]' "
            "(without them: to=state_dict)"
        )
    run = find(words)
    found = trained(run)
    task = getattr(found.network, "task", None)
    if task not in OUTPUTS:
        raise UserError(
            f"{type(found.network).__name__} is for {task}: "
            f"only networks for {', '.join(OUTPUTS)} are exported"
        )
    quantised = found
    if options.to == "int8":
        require_quantised(found.network)
    found = replace(found, network=in_float_layers(found.network))
    path = options.path or run.directory / "network"
    stem = path.stem if path.suffix in SUFFIXES else path.name
    targets = {suffix: path.with_name(stem + suffix) for suffix in FORMS[options.to]}
    whole = options.whole and options.normalise and _takes_pictures(found, task)
    told = _told(run, found, task, options.normalise, whole)
    if whole and task == "detection":
        told["score"] = SCORE if options.score is None else options.score
    elif options.score is not None:
        raise UserError(
            f"score={options.score:g}: this is no file of a whole detector (its network is for {task}); "
            "without score="
        )
    with tempfile.TemporaryDirectory() as folder:
        # networks on batches, which whole ones are made of and which are measured
        batched = {suffix: Path(folder) / f"network{suffix}" for suffix in targets}
        for suffix, target in targets.items():
            if suffix == INT8:
                forms = _write_int8(batched[suffix], batched[".onnx"], quantised, options.normalise)
                _finish(target, batched[suffix], found, task, told | forms, whole)
            elif suffix == ".onnx":
                # the ranges of integers are those of the layers as they were trained
                served = _served(found, options.fold and options.to != "int8")
                deployed = _deployed(served, found.facts) if options.normalise else served
                _write_onnx(batched[suffix], deployed, found, task)
                _finish(target, batched[suffix], found, task, told, whole)
            else:
                _write_state(target, run, found, task)
        files = list(targets.values())
        if options.to == "int8":
            return Exported(files, _int8_lines(files, list(batched.values()), quantised, options))
    return Exported(files, _latency(run, found, options.fold) if options.latency else [])


def _takes_pictures(found: Trained, task: str) -> bool:
    """Whether a picture of any size can become an input, and what the network gives an answer."""
    from common.runs.whole_onnx import ANSWERS

    return task in ANSWERS and found.module.data.preparation() is not None


def _finish(path: Path, batched: Path, found: Trained, task: str, told: dict[str, Any], whole: bool) -> None:
    """Write a network on batches where it belongs, with its metadata, and whole if asked."""
    import onnx

    from common.runs.whole_onnx import with_ends

    model = onnx.load(batched)
    if whole:
        preparation = found.module.data.preparation()
        assert preparation is not None
        model = with_ends(model, task, preparation, found.facts["classes"], told.get("score", SCORE))
    onnx.helper.set_model_props(model, _metadata(told))
    _atomically(path, lambda partial: onnx.save(model, partial))


def require_quantised(network: "nn.Module") -> None:
    """Refuse to write integers of a network without ranges, or without the package that does.

    Raises:
        UserError: see above.
    """
    from common.quantization.qdq import own_ranges, require_onnxruntime

    require_onnxruntime()
    own_ranges(network)


def in_float_layers(network: "nn.Module") -> "nn.Module":
    """A quantised network in float layers, with its quantised weights; any other one as it is."""
    from common.quantization.converter import is_quantised, plain_network

    return plain_network(network).eval() if is_quantised(network) else network


def _stored(inputs: "Tensor", facts: dict[str, Any], normalise: bool) -> "NDArray[Any]":
    """Inputs of the network as its file takes them: with `normalise` as the data set stores them."""
    from common.models.normalised import as_stored

    return (as_stored(inputs, facts) if normalise else inputs).numpy()


def _write_int8(path: Path, plain: Path, found: Trained, normalise: bool) -> dict[str, str]:
    """Write the integers, on batches, and say of which form they are.

    What is not tracked in training is measured on `CALIBRATION` training examples.
    """
    from common.quantization.qdq import own_ranges, write_qdq

    found.module.data.setup()
    inputs, _ = next(iter(found.module.data.batches("train", CALIBRATION)))
    samples = [_stored(inputs, found.facts, normalise)]
    told = write_qdq(plain, path, own_ranges(found.network), samples)
    return {
        "activations": f"uint8, {told['own']} ranges of training's own, others of {len(inputs)} examples",
        "weights": f"int8, symmetric by output channel, {7 if told['reduced'] else 8} bits",
    }


def _int8_lines(files: list[Path], batched: list[Path], found: Trained, options: Options) -> list[str]:
    """How large, alike and fast the integers are beside float32, and on which processor."""
    from common.quantization.qdq import has_vnni
    from common.runs.environment import cpu
    from common.runs.int8 import agreements, speeds

    plain, int8 = files
    sizes = f"{int8.stat().st_size:,} bytes of int8, {plain.stat().st_size:,} of float32"
    lines = [f"size: {sizes} ({plain.stat().st_size / int8.stat().st_size:.2f} times smaller)"]
    plain, int8 = batched
    if getattr(found.network, "task", None) == "classification":
        alike = agreements(found, plain, int8, lambda batch: _stored(batch, found.facts, options.normalise))
        lines += [
            f"the same class as {name} for {share:.2%} of {alike.count} test examples"
            for name, share in alike.shares.items()
        ]
    if options.latency:
        vnni = "with VNNI" if has_vnni() else "without VNNI, so weights have 7 bits"
        for batch, (float32, integer) in speeds(plain, int8, tuple(found.facts["shape"])).items():
            verdict = f"{float32 / integer:.2f} x as fast"
            slower = "; here int8 is SLOWER than float32" if integer > float32 else ""
            lines.append(
                f"latency in onnxruntime, batch of {batch}, one thread, {cpu()}, {vnni}: "
                f"int8 {integer:.3g} ms, float32 {float32:.3g} ms, {verdict}{slower}"
            )
    return lines


def _has_onnx() -> bool:
    return bool(find_spec("onnx") and find_spec("onnxscript"))


def _served(found: Trained, fold: bool) -> "nn.Module":
    """The network, with `fold` without the batch normalisations that fold into convolutions."""
    from common.models.folding import folded

    return folded(found.network, tuple(found.facts["shape"])) if fold else found.network


def _deployed(network: "nn.Module", facts: dict[str, Any]) -> "nn.Module":
    from common.models.normalised import Normalised

    return Normalised(network, facts).eval()


def _metadata(told: dict[str, Any]) -> dict[str, str]:
    """As ONNX holds it: lists and numbers as JSON, nothing where there is None."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in told.items()
        if value is not None
    }


def _told(run: Finished, found: Trained, task: str, normalise: bool, whole: bool) -> dict[str, Any]:
    """What a file says of itself."""
    from common.data.tables.columns import ENCODING
    from common.runs.keys import run_key
    from common.runs.whole_onnx import WHOLE_INPUT, WHOLE_MEANINGS

    facts, result = found.facts, run.result
    names = facts["class_names"]
    inputs = "as the data set stores them" if normalise else "normalised: (stored - offset) * scale"
    preparation = found.module.data.preparation()
    told: dict[str, Any] = {
        "task": task,
        "kind": facts["kind"],
        "whole": whole,
        "output": WHOLE_MEANINGS[task] if whole else MEANINGS[task],
        "data_set": facts["name"],
        "shape": facts["shape"],
        "classes": facts["classes"],
        "class_names": names,
        "input_range": facts["input_range"] if normalise else None,
        "inputs": WHOLE_INPUT if whole else inputs,
        "normalise": facts["normalise"],
        **{key: facts[key] for key in ("offset", "scale", "unit_rows")},
        **{key: facts[key] for key in ("target_offset", "target_scale") if key in facts},
        # of networks for pictures, how a picture becomes an input: in words, and as `Preparation`
        "preparation": None if preparation is None else preparation.in_words(),
        "picture": None if preparation is None else preparation.as_json(),
        # of a table of the user's own, by which a row of its file can be fed
        **{key: facts[key] for key in ("target", "columns") if key in facts},
        "encoding": ENCODING if "columns" in facts else None,
        "words": " ".join(result["overrides"]),
        "run": run_key(run.config),
        "paper": result["paper"],
        "model": result["choices"]["model"],
        "method": result["choices"]["method"],
        "commit": result["commit"],
        "metrics": {
            name: value
            for name, value in result["metrics"].items()
            if name.startswith("test_") and isinstance(value, int | float)
        },
    }
    if "target_offset" in facts:
        told["prediction_unit"] = (
            "the target's own" if normalise else "(target - target_offset) * target_scale"
        )
    return told


def _latency(run: Finished, found: Trained, fold: bool) -> list[str]:
    """One line for each network and engine, as it is served: the run's, and its teacher's if it has one.

    A pruned network is timed in turn with the whole one, and a line says where it is not faster.
    """
    import torch

    from common.runs.latency import BATCHES, REPEATS, Timed, latencies

    networks = {"network": found.network}
    networks |= {
        name: made.stage.model.eval()
        for group in found.stages.values()
        for name, made in group.items()
        if name == "teacher"
    }
    if is_pruned := hasattr(found.network, "pruning"):
        networks[WHOLE] = _whole(run)
    shape = tuple(found.facts["shape"])
    with tempfile.TemporaryDirectory() as folder:
        timed = {}
        for name, network in networks.items():
            path, network = None, _served(replace(found, network=network), fold)
            if _has_onnx() and find_spec("onnxruntime"):
                path = Path(folder) / f"{name}.onnx"
                _write_onnx(path, network, found, str(network.task))
            timed[name] = Timed(network, path)
        measured = latencies(timed, shape)
    lines = []
    for name, by_engine in measured.items():
        for engine, by_batch in by_engine.items():
            times = ", ".join(f"{by_batch[batch]:.3g} ms for a batch of {batch}" for batch in BATCHES)
            lines.append(
                f"latency of the {name} in {engine}: {times} "
                f"(median of {REPEATS} on the CPU, {torch.get_num_threads()} thread(s))"
            )
    if is_pruned:
        lines += _compared(measured, networks, shape)
    return lines


def _whole(run: Finished) -> "nn.Module":
    """The network of a run as it was before channels were removed, with its first weights."""
    from common.runs.runner import first_network

    return first_network(run.config).eval()


def _compared(
    measured: dict[str, dict[str, dict[int, float]]], networks: "dict[str, nn.Module]", shape: tuple[int, ...]
) -> list[str]:
    """What pruning brought: numbers, multiply-adds, and time, also where it brought none."""
    from common.metrics.macs import count_macs
    from common.metrics.parameters import count_parameters

    pair = [networks["network"], networks[WHOLE]]
    (parameters, parameters_before), (macs, macs_before) = (
        [count_parameters(network) for network in pair],
        [count_macs(network, shape) for network in pair],
    )
    lines = [
        f"pruned: {parameters:,} of {parameters_before:,} parameters, "
        f"{macs:,} of {macs_before:,} multiply-adds"
    ]
    for engine, by_batch in measured["network"].items():
        for batch, time in by_batch.items():
            share = round(time / measured[WHOLE][engine][batch], 2)
            said = "is not faster" if share >= 1 else "is faster"
            lines.append(
                f"the pruned network {said} in {engine} for a batch of {batch}: "
                f"{share:.2f} x the whole one's time"
            )
    return lines


def _write_state(path: Path, run: Finished, found: Trained, task: str) -> None:
    """Write the weights, and beside them, as .json, what else is needed to use them."""
    import torch

    from common.runs.result import write_json

    held = found.network.state_dict()
    if hasattr(found.network, "pruning"):
        held = _packed(run, found, task)
    _atomically(path, lambda partial: torch.save(held, partial))
    about = _told(run, found, task, normalise=False, whole=False)
    write_json(path.with_suffix(".json"), about | {"network": _settings(run, found)})


def _settings(run: Finished, found: Trained) -> dict[str, Any]:
    """How the bare network is built: its class as `_target_`, and what its constructor takes."""
    from hydra.utils import get_object
    from omegaconf import OmegaConf

    from common.runs.own import opted_in
    from common.runs.own_model import taken

    settings: Any = OmegaConf.to_container(run.config.model, resolve=True)
    for key in found.stages.get("model", {}):
        # its weights come from the file
        settings[key] = None
    offered = {"shape": tuple(found.facts["shape"]), "classes": found.facts["classes"]}
    if opted_in(settings["_target_"]):
        offered = taken(get_object(settings["_target_"]), settings, offered)
    return settings | offered


def _packed(run: Finished, found: Trained, task: str) -> dict[str, Any]:
    """What `load_pruned` makes a pruned network from."""
    from common.pruning.pruned import pack

    settings = _settings(run, found)
    target, shape = settings.pop("_target_"), tuple(found.facts["shape"])
    about = _metadata(_told(run, found, task, normalise=False, whole=False))
    return pack(found.network, target=target, settings=settings, shape=shape, about=about)


def _write_onnx(path: Path, network: "nn.Module", found: Trained, task: str) -> None:
    """Write a network on batches."""
    import torch

    from common.models.served import quiet_exporter
    from common.pictures.answers import WithPriors

    shape = tuple(found.facts["shape"])
    if task == "detection":
        network = WithPriors(network, cast("Tensor", found.network.priors)).eval()
    with quiet_exporter():
        torch.onnx.export(
            network,
            (torch.zeros(2, *shape),),
            path,
            dynamo=True,
            input_names=["images" if len(shape) == 3 else "rows"],
            output_names=OUTPUTS[task],
            dynamic_shapes=({0: "batch"},),
            external_data=False,
            verbose=False,
        )


def _atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
