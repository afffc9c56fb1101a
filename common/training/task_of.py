"""Which task a model is for."""

from importlib import import_module
from typing import Literal, cast

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.model import Model
from common.base.task import Task
from common.training.tasks import Classification, Online, Own, Reconstruction, Regression


def task_of(model: Model, data: DataSet, pixels: Literal["sum", "mean"]) -> Task:
    """The task that a model is for.

    One that has a module of its own, as `multi_task` with its class `MultiTask`, is imported where it is
    wanted. Nothing names it here: so the code that decides a run (`common.runs.code`) is that of its own task
    alone.

    Raises:
        UserError: an autoencoder on inputs outside [0, 1].
    """
    if model.task == "classification":
        assert data.classes is not None
        return Classification(data.classes)
    if model.task == "regression":
        return Regression()
    if model.task == "online":
        return Online()
    if model.task == "own":
        own_task = getattr(model, "own_task", None)
        return Own(model) if own_task is None else own_task(data)
    if model.task == "reconstruction":
        if data.normalise != "unit_interval":
            raise UserError(
                f"dataset.normalise={data.normalise}: an autoencoder needs [0, 1] (valid: unit_interval)"
            )
        return Reconstruction(pixels)
    module = import_module(f".{model.task}", __package__)
    name = model.task.title().replace("_", "")
    return cast(Task, getattr(module, name).of(model, data))
