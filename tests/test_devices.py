"""Runs on a device that is not the CPU: on one that any machine has, and on a GPU where there is one."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from other_device import DEVICE, Machine, runs_there

from common.runs.compose import compose
from common.runs.runner import execute
from common.tables.tables import papers, runnable

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::UserWarning")]
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is available")

# of each family that puts tensors on the device by itself: data, streams of random numbers, states, curves
OWN = [
    "ablr.fig1.quadratic_ablr_nn",
    "accelegrad.fig1.p2_accelegrad",
    "accelegrad.fig_appendix_nn.mnist_accelegrad",
    "maxacq.fig4.levy_d4_q4_n2e12_rs_joint",
    "meta_bo.fig3a.pem_bo_ucb_p01",
    "meta_bo.extra_baselines.tlsm",
    "nasbot.table3.blog_rand",
    "pmf_automl.fig_regret.pmf_it10",
    "qff.fig_benchmarks.gp_sample_d5_exact_gp_ucb",
    "qff.fig_readme.readme_qff",
    "saddle.table_bench.b1_quartic_ball_fw",
    "sdp_cert.table1.grad_nn_sdp_cert",
    "sensitivity.table1.s_low",
    "spider.ifo.synthetic_logistic_n1e3_spider_sfo_opt1_eps0p01",
    "yogi.counterexample.adam",
]


def made(entry: str, folder: Path, *words: str) -> dict[str, Any]:
    """An entry's run at the size of a smoke run, on data that need no file."""
    asked = [f"entry={entry}", "scale=smoke", "logger=none", f"output_dir={folder}", *words]
    config, request = compose(asked)
    if config.dataset.get("source") == "real":
        config, request = compose([*asked, "dataset.source=synthetic"])
    return execute(config, request).result


def by_method_and_data() -> list[str]:
    """The first entry of each method and of each data set of every paper."""
    found = []
    for paper in papers():
        seen: set[tuple[str, str | None]] = set()
        for entry in runnable(paper):
            own = {(group, entry.choose.get(group)) for group in ("method", "dataset")}
            if own - seen:
                found.append(entry.name)
            seen |= own
    return found


def test_tensors_of_two_devices_do_not_mix() -> None:
    with Machine():
        there = torch.arange(3.0, device=DEVICE)
        assert there.device.type == "elsewhere"
        assert (there + 1.0).cpu().tolist() == [1.0, 2.0, 3.0]
        with pytest.raises(RuntimeError, match="same device"):
            there + torch.ones(3)
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()


@pytest.mark.parametrize("entry", OWN)
def test_a_run_elsewhere_gives_the_numbers_of_the_cpu(entry: str, tmp_path: Path) -> None:
    """Rounding may differ by the order of sums, and nothing else: the numbers are held on the CPU."""
    here = made(entry, tmp_path / "here", "trainer=cpu")
    with runs_there():
        there = made(entry, tmp_path / "there", "trainer=cpu")
    assert there["device"] == "elsewhere"
    timed = ("seconds", "minutes", "hours", "_ms")
    for name, value in here["metrics"].items():
        if isinstance(value, float) and not any(word in name for word in timed):
            assert there["metrics"][name] == pytest.approx(value, rel=1e-3, abs=1e-6), name


@gpu
@pytest.mark.parametrize("entry", by_method_and_data() if torch.cuda.is_available() else [])
def test_a_run_on_a_gpu_ends_with_numbers(entry: str, tmp_path: Path) -> None:
    result = made(entry, tmp_path, "trainer=gpu")
    assert result["device"] == torch.cuda.get_device_name()
    for name, value in result["metrics"].items():
        assert not isinstance(value, float) or math.isfinite(value), name
