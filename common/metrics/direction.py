"""Whether a metric is better when it is higher or lower, by its name."""

from typing import Literal

Direction = Literal["higher", "lower"]

# parts of names between underscores
HIGHER = {
    "acc", "accuracy", "ap", "ap50", "ap75", "auc", "bleu", "certified", "compression", "correlation", "f1",
    "fps", "iou", "map", "map50", "map75", "miou", "precision", "psnr", "recall", "reduction", "reward",
    "spearman", "speed", "top1", "top2", "top3", "top5", "verified",
}  # fmt: skip
LOWER = {
    "calls", "cost", "density", "disagreement", "distance", "err", "error", "evaluations", "flops", "gap",
    "hours", "iterations", "kb", "kl", "loss", "macs", "madds", "mae", "mb", "memory", "minutes", "ms", "mse",
    "nll", "nonzero", "norm", "parameters", "params", "passes", "perplexity", "ppl", "regret", "rmse",
    "seconds", "steps", "variance",
}  # fmt: skip


def direction(metric: str) -> Direction | None:
    """Which way a metric is better; None where its name does not say.

    The last known part of the name counts: `test_acc_left` is an accuracy, `flops_reduction` a reduction,
    `calls_to_eps` a count of calls, and `relative_gap` no average precision.
    """
    for part in reversed(metric.lower().split("_")):
        if part in HIGHER:
            return "higher"
        if part in LOWER:
            return "lower"
    return None
