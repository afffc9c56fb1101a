"""A run that is done already, found without what makes runs: neither torch nor Lightning is imported."""

from pathlib import Path

from omegaconf import DictConfig

from common.runs.catalogue import check_accepted, describe
from common.runs.check import check_imports, check_parts, check_paths, check_ranges, check_top_level
from common.runs.code import code_changes
from common.runs.evidence import asked, asked_forms, key_of, neutral
from common.runs.keys import STAGED, run_key
from common.runs.request import Outcome, Request
from common.runs.result import read_result


def finished(config: DictConfig, request: Request) -> Outcome | None:
    """The result of a run that is done and has nothing to note; None where the runner must see to it.

    What the paper takes is checked here, as that needs no torch. The run key covers what decides a result, so
    the run that is done had it checked. What the key does not cover is checked by the runner, and so are
    words that no run was asked for by.

    Raises:
        UserError: a part is missing, a key of the top level does not fit, a number is out of its range, the
            paper does not take the data set or the method, or, of a run that is not done, a class may not be
            named, or files of the user's own are not there.
    """
    check_parts(config)
    check_top_level(config)
    check_ranges(config)
    key = run_key(config)
    check_accepted(key.split("/")[0], request.choices, config.accepts.methods)
    path = Path(config.output_dir) / key / "result.json"
    if not path.exists():
        check_imports(config)
        check_paths(config.dataset, describe("dataset", request.choices["dataset"]))
    if config.force or config.record or config.trainer.get("strategy") == "ddp":
        return None
    # a debug run is made because something has changed
    if config.get("debug") is not None:
        return None
    if not _judged_by_key(config, request):
        return None
    result = read_result(path)
    if result is None or asked(request.overrides) not in asked_forms(result):
        return None
    # whether its files are as they were is known to its data set, which needs torch
    if result.get("data") is not None:
        return None
    if request.entry is not None and request.entry not in result["entries"]:
        return None
    return Outcome(path, result, skipped=True, since=tuple(code_changes(result)))


def _judged_by_key(config: DictConfig, request: Request) -> bool:
    """Whether the run key says all about the words of a request that are still to be checked."""
    keys = [key_of(word) for word in request.overrides]
    unseen = any(
        "." in key and (neutral(word) or key.endswith("._target_"))
        for key, word in zip(keys, request.overrides, strict=True)
    )
    taught = any("teacher" in config[group] for group in STAGED)
    return not unseen and ("teacher" not in keys or taught)
