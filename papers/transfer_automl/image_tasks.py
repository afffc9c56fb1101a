"""Sets of images as tasks, for the transfer of a controller of cells."""

from pathlib import Path
from typing import Any, ClassVar

from common.base.dataset import DataSet
from common.base.errors import UserError
from papers.transfer_automl.cells import CellNetworks, ImageObjective
from papers.transfer_automl.ground import DesignTasks, Ground, TrainedGround
from papers.transfer_automl.space import DesignSpace


class ImageTasks(DesignTasks):
    """Tasks on which each design of cells is trained.

    Args:
        kind: must be `design_tasks`.
        tasks: names out of `sets`.
        sets: data sets of images with labels, by name, each with a validation split.

    Raises:
        UserError: an unknown task, a set of another kind.
    """

    NAME: ClassVar = "image_tasks"

    def __init__(self, *, kind: str, tasks: list[str], sets: dict[str, Any]) -> None:
        super().__init__(kind=kind, all_names=list(sets), tasks=tasks)
        self.sets: dict[str, DataSet] = {name: sets[name] for name in self.names}
        for name, data in self.sets.items():
            if data.KIND != "image_classification":
                raise UserError(
                    f"dataset.sets.{name}: is of kind {data.KIND} (valid: a set of kind image_classification)"
                )

    def sources(self) -> dict[str, Path]:
        return {
            f"{name}/{key}": path for name, one in self.sets.items() for key, path in one.sources().items()
        }

    def ground(self, space: DesignSpace, seed: int, budget: float) -> Ground:
        if not isinstance(space, CellNetworks):
            raise UserError("dataset=image_tasks is for designs of cells (valid: model=cell_network)")
        objectives = {name: ImageObjective(space, data, seed, budget) for name, data in self.sets.items()}
        ground = TrainedGround(dict(objectives), space, 1)
        ground.unit = 100.0
        return ground
