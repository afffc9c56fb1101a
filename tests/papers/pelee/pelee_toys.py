"""Detectors from conf/model, built without Hydra."""

from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hydra.utils import get_object

from common.detection.ssd import SSD

CONF = Path(__file__).parents[3] / "conf" / "model"
VOC, COCO = 20, 80
SHAPE = (3, 304, 304)


def peleenet(name: str) -> dict[str, Any]:
    """The settings of a PeleeNet of conf/model."""
    settings: dict[str, Any] = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    del settings["_target_"]
    return settings


def detector(name: str, shape: tuple[int, ...] = SHAPE, classes: int = VOC, **changed: Any) -> SSD:
    """A detector of conf/model; `changed` are its own settings."""
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    (backbone,) = [default["/model@backbone"] for default in config.pop("defaults") if default != "_self_"]
    settings = yaml.safe_load((CONF / f"{backbone}.yaml").read_text()) | config.pop("backbone")
    del settings["_partial_"]
    make = partial(get_object(settings.pop("_target_")), **settings)
    target = get_object(config.pop("_target_"))
    return target(shape=shape, classes=classes, backbone=make, **(config | changed))
