"""The files of a saved pipeline in a run's folder; it imports nothing that only pipelines need."""

from pathlib import Path

PIPELINE, ABOUT = "pipeline.skops", "pipeline.json"


def is_saved(folder: Path) -> bool:
    """Whether a run's folder holds a pipeline."""
    return (folder / ABOUT).is_file()
