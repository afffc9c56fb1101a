"""Runs that count and time: sizes are the tables', times are measured, nothing is trained."""

from typing import Any

import pytest
from dcp_networks import built, shape_of

from common.base.errors import UserError
from common.runs.compose import compose
from common.runs.runner import execute
from papers.dcp.complexity import complexity
from papers.dcp.counting import Count


@pytest.fixture
def count(tmp_path: Any) -> Any:
    """A run of the command line that counts a small network, and its result."""

    def run(*words: str) -> dict[str, Any]:
        own = [f"output_dir={tmp_path}", "logger=none", "trainer=cpu"]
        config, request = compose(["paper=dcp", "method=pruning/count", "start=null", *own, *words])
        result = execute(config, request).result
        metrics: dict[str, Any] = result["metrics"]
        return metrics

    return run


WORDS = ("dataset=digits", "model=convnet_digits", "method.batch=2", "method.repeats=3")


def test_a_run_counts_and_times(count: Any) -> None:
    found = count(*WORDS, "method.rate=0.5")
    # 9 (1 x 8 + 8 x 8 + 8 x 16 + 16 x 32) weights, 2 a channel of normalisation, 33 of each of 10 logits
    assert found["parameters"] == 9 * (8 + 64 + 128 + 512) + 2 * 64 + 330
    assert found["kept_channels"] == [8, 8, 16]
    assert found["params_reduction"] == pytest.approx(16_794 / found["parameters"])
    assert found["cpu_fwd_s"] > 0
    assert found["cpu_bwd_s"] > 0
    assert "test_error" not in found


def test_a_rate_of_0_counts_the_network_as_it_is(count: Any) -> None:
    found = count(*WORDS, "method.rate=0")
    assert (found["parameters"], found["params_reduction"], found["kept_channels"]) == (16_794, 1, [])


def test_one_block_alone_can_be_counted(count: Any) -> None:
    found = count(*WORDS, "method.rate=0.5", "method.layers=[layers.2]")
    assert found["kept_channels"] == [8]


def test_nothing_is_read_of_the_data(count: Any) -> None:
    model = ("model=preact_resnet20", "dataset=cifar10", "data_dir=/nowhere", "dataset.source=synthetic")
    found = count(*model, "method.rate=0.7", "method.batch=1", "method.repeats=1")
    whole = complexity(built("preact_resnet20"), shape_of("preact_resnet20"))
    assert found["macs"] < whole.macs
    assert found["flops_reduction"] == pytest.approx(whole.macs / found["macs"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["method.rate=1"], "rate"),
        (["method.rate=-0.1"], "rate"),
        (["method.layers=[layers.9]"], "layers.9"),
    ],
)
def test_what_cannot_be_pruned_is_said_in_one_line(count: Any, words: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        count(*WORDS, *words)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("key", ["batch", "repeats"])
def test_at_least_one_example_passes_once(key: str) -> None:
    settings = {"rate": 0.5, "layers": None, "batch": 1, "repeats": 1} | {key: 0}
    with pytest.raises(UserError, match=rf"method\.{key}=0"):
        Count(**settings)
