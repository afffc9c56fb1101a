"""Which task a model is for."""

from typing import Literal

from common.base.dataset import DataSet
from common.base.errors import UserError
from common.base.model import Model
from common.base.task import Task
from common.training.tasks import Classification, Online, Own, Reconstruction, Regression


def task_of(model: Model, data: DataSet, pixels: Literal["sum", "mean"]) -> Task:
    """The task that a model is for; those with modules of their own are imported where they are wanted.

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
    if model.task == "segmentation":
        from common.training.segmentation import Segmentation

        return Segmentation.of(model, data)
    if model.task == "detection":
        from common.training.detection import Detection

        return Detection(data)
    if model.task == "tagging":
        from common.training.tagging import Tagging

        return Tagging.of(model, data)
    if model.task == "multi_task":
        from common.training.multi_task import MultiTask

        return MultiTask.of(model, data)
    if model.task == "translation":
        from common.training.translation import Translation

        return Translation.of(model, data)
    if model.task == "own":
        own_task = getattr(model, "own_task", None)
        return Own(model) if own_task is None else own_task(data)
    if data.normalise != "unit_interval":
        raise UserError(
            f"dataset.normalise={data.normalise}: an autoencoder needs [0, 1] (valid: unit_interval)"
        )
    return Reconstruction(pixels)
