"""A run that is done already, found without what makes runs: neither torch nor Lightning is imported."""

from pathlib import Path

from omegaconf import DictConfig

from common.runs.catalogue import accepted_datasets
from common.runs.check import check_parts, check_top_level
from common.runs.code import code_changes
from common.runs.evidence import asked, asked_forms, key_of, neutral
from common.runs.keys import STAGED, run_key
from common.runs.request import Outcome, Request
from common.runs.result import read_result


def finished(config: DictConfig, request: Request) -> Outcome | None:
    """The result of a run that is done and has nothing to note; None where the runner must see to it.

    The run key covers what decides a result, so the run that is done had it checked. What the key does not
    cover is checked by the runner, and so are words that no run was asked for by.

    Raises:
        UserError: a part is missing, or a key of the top level does not fit.
    """
    if config.force or config.record or config.trainer.get("strategy") == "ddp":
        return None
    # a debug run is made because something has changed
    if config.get("debug") is not None:
        return None
    check_parts(config)
    if not _judged_by_key(config, request):
        return None
    check_top_level(config)
    path = Path(config.output_dir) / run_key(config) / "result.json"
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
    """Whether the run key says all about the words of a request that a run could be refused for."""
    keys = [key_of(word) for word in request.overrides]
    unseen = any(
        "." in key and (neutral(word) or key.endswith("._target_"))
        for key, word in zip(keys, request.overrides, strict=True)
    )
    taught = any("teacher" in config[group] for group in STAGED)
    paper = str(config.paper["_target_"]).split(".")[1]
    fits = request.choices["dataset"] in accepted_datasets(paper)
    fits = fits and request.choices["method"].split("/")[0] in config.accepts.methods
    return fits and not unseen and ("teacher" not in keys or taught)
