"""Where and by which code a run was made: device, memory, versions, commit."""

import platform
import resource
import subprocess
import sys
import time
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from common.tables.tables import ROOT

PACKAGES = ("torch", "pytorch-lightning", "hydra-core", "numpy", "scipy", "scikit-learn", "torchmetrics")


@cache
def commit() -> str | None:
    """The git commit of the code, with `+` where the work tree differs from it."""
    try:
        head = _git("rev-parse", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def environment(device: torch.device) -> dict[str, Any]:
    """Where a run was made: device, memory, versions, commit."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "cpu": cpu(),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": round(_peak_memory_mb(device), 1),
        "versions": versions(),
        "commit": commit(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


@cache
def cpu() -> str:
    """The processor and the instructions that torch uses of it: others round otherwise."""
    wanted = ("model name", "cpu family", "model")
    try:
        first = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        fields = {
            name.strip(): text.strip()
            for name, _, text in (line.partition(":") for line in first.splitlines())
        }
        name = " ".join(fields[field] for field in wanted if field in fields)
    except OSError:
        name = ""
    return f"{name or platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


def _peak_memory_mb(device: torch.device) -> float:
    """Peak resident memory of this process; on a GPU, the device memory that tensors took."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


@cache
def versions() -> dict[str, str]:
    """Python's, and those of the packages that compute."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
