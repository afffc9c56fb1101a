from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from common.runs.sweep import ForgetConfigs


def test_of_a_job_that_has_ended_its_value_is_kept_and_its_configs_are_not() -> None:
    config = OmegaConf.create({"seed": 3})
    ended = JobReturn(overrides=["seed=3"], cfg=config, hydra_cfg=config, status=JobStatus.COMPLETED)
    ended.return_value = 0.5
    ForgetConfigs().on_job_end(config, ended)
    assert (ended.cfg, ended.hydra_cfg, ended.return_value) == (None, None, 0.5)
