"""`predict.py` on clouds of points: the classes that a network of a finished run gives them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.base.errors import UserError
from common.runs.predict_files import Answered, Asked, as_line, best_device, files_in

if TYPE_CHECKING:
    from common.runs.trained import Finished

LINES = "clouds.jsonl"
# clouds that go through the network at once
AT_ONCE = 16


def predict_clouds(run: "Finished", asked: Asked) -> Answered:
    """Tell the likeliest classes of clouds: files, and those in folders at any depth.

    As many points are drawn from each as the run had, by the name of its file. A file that is no cloud is
    told and has a line with its fault, and the others are done.

    Raises:
        UserError: a folder without clouds, or a run that left no network.
    """
    import torch

    from common.base.modes import evaluation_mode
    from common.data.clouds.cloud_data import PointClouds
    from common.data.clouds.own_clouds import read_centred
    from common.runs.trained import trained

    files = _listed(asked.paths, asked.to)
    found = trained(run)
    data, device = found.module.data, best_device()
    assert isinstance(data, PointClouds)
    network = found.network.to(device)
    names = found.facts["class_names"] or [f"class {label}" for label in range(found.facts["classes"])]
    asked.to.mkdir(parents=True, exist_ok=True)
    faults = 0
    with (
        (asked.to / LINES).open("w", encoding="utf-8") as lines,
        torch.no_grad(),
        evaluation_mode(network),
    ):
        for start in range(0, len(files), AT_ONCE):
            clouds, told = [], []
            for file in files[start : start + AT_ONCE]:
                one: dict[str, Any] = {"cloud": str(file)}
                told.append(one)
                try:
                    cloud = read_centred(file, file.name, data.points)
                except UserError as error:
                    one["error"] = str(error).removeprefix(f"{file}: ")
                    faults += 1
                    print(f"error: {error}", file=sys.stderr)
                    continue
                clouds.append(cloud.points)
                one["points"] = cloud.available
            if clouds:
                shares = iter(network(data.normalised(torch.stack(clouds)).to(device)).softmax(1).tolist())
                for one in told:
                    if "error" not in one:
                        one["classes"] = _ranked(next(shares), names, asked.top)
            lines.writelines(map(as_line, told))
            # what is done stays, whatever happens to the rest
            lines.flush()
    return Answered([asked.to / LINES], len(files) - faults, "cloud", faults)


def _ranked(shares: list[float], names: list[str], top: int) -> list[dict[str, Any]]:
    """The likeliest classes, the first of equal ones first."""
    order = sorted(range(len(shares)), key=lambda label: (-shares[label], label))
    return [
        {"class": names[label], "label": label, "probability": round(shares[label], 6)}
        for label in order[:top]
    ]


def _listed(paths: list[Path], left_out: Path) -> list[Path]:
    """The files named, and the clouds in folders at any depth but that for the answers, by name.

    Raises:
        UserError: a folder without clouds.
    """
    from common.data.clouds.cloud_file import SUFFIXES

    found: dict[Path, Path] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = [file for file in files_in(path, left_out) if file.suffix.lower() in SUFFIXES]
            if not inside:
                raise UserError(f"{path} holds no cloud (valid: {', '.join(SUFFIXES)}, at any depth)")
        for file in inside:
            found.setdefault(file.resolve(), file)
    return list(found.values())
