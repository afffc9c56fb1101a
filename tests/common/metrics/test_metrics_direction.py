import pytest

from common.metrics.direction import direction


@pytest.mark.parametrize(
    ("metric", "better"),
    [
        ("test_accuracy", "higher"),
        ("test_acc_left", "higher"),
        ("validation_miou", "higher"),
        ("test_map50", "higher"),
        ("flops_reduction", "higher"),
        ("test_error", "lower"),
        ("validation_loss", "lower"),
        ("calls_to_eps", "lower"),
        ("top1_error", "lower"),
        ("relative_gap", "lower"),
        ("generalisation_gap", "lower"),
        ("grad_norm_final", "lower"),
        ("wall_seconds", "lower"),
        ("zest", None),
        ("soap", None),
    ],
)
def test_the_last_known_part_of_a_name_says_which_way_is_better(metric: str, better: str | None) -> None:
    assert direction(metric) == better
