"""A list of jobs by one launcher: each job has words of its own, where a sweep of Hydra spans a grid."""

from collections.abc import Callable, Sequence
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from common.runs import catalogue
from common.runs.plugins import load_plugins
from common.runs.words import quoted

Job = Sequence[str]


class Batch:
    """What Hydra's multirun does between the command line and the launcher, for a list in place of a grid.

    Args:
        words: the overrides that all jobs share; `hydra/launcher=...` among them chooses the launcher.
        jobs: the overrides of each job.
    """

    def __init__(self, words: Sequence[str], jobs: Sequence[Job]) -> None:
        shared = [word for word in words if not word.lstrip("+").startswith("hydra")]
        self.jobs = [quoted([*shared, *job]) for job in jobs]
        load_plugins(list(words))
        catalogue.register([*words, *(word for job in jobs for word in job)])
        GlobalHydra.instance().clear()
        hydra.initialize_config_dir(str(catalogue.CONF), job_name="run", version_base="1.3")
        engine = GlobalHydra.instance().hydra
        assert engine is not None
        modes = [*words, *catalogue.searched(), "hydra.mode=MULTIRUN"]
        self.config = engine.compose_config("config", modes, run_mode=RunMode.MULTIRUN)
        self.context = HydraContext(engine.config_loader, Callbacks(self.config))

    def compose(self, job: list[str]) -> DictConfig:
        """A job's config, as its launcher will compose it.

        Raises:
            Exception: of Hydra, where its words do not fit.
        """
        return self.context.config_loader.load_sweep_config(self.config, job)

    def launch(self, jobs: list[list[str]], task: Callable[[DictConfig], Any]) -> None:
        """Hand jobs to the launcher, and return when all have ended."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task, config=self.config
        )
        for one in launcher.launch(jobs, initial_job_idx=0):
            # a job that raised gives its error only when it is asked for what it returned
            _ = one.return_value
