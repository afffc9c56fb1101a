"""Keys that a run may change without changing its result; known before any config is composed."""

# what a run may change without changing its result
NEUTRAL = {
    "hydra",
    "accepts",
    "scale",
    "data_dir",
    "output_dir",
    "force",
    "checkpoint_every",
    "record",
    "results_dir",
    "logger",
    "objective",
    "pause",
    "teacher",
    "gpu_precision",
    # the code of what it names enters the code hash
    "import",
}
# the same of groups
NEUTRAL_IN = {
    "dataset": {"data_dir", "output_dir", "launcher", "verify", "workers"},
    "model": {"data_dir"},
    "trainer": {"accelerator", "devices", "strategy", "_target_"},
    # of searches: who trains what they propose
    "paper": {"processes", "launcher", "threads"},
}
