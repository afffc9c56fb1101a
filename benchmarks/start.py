"""CPU seconds of whole processes: `run.py` beside the bare import of what it stands on, in turn.

Run: python -m benchmarks.start [rounds=N]. A smoke run of the digits is to take at most 1.2 times
`python -c "import torch, pytorch_lightning"`; a command that shows a finished run under 1 s, and one that is
refused by its words under 0.3 s, of CPU time (user and system), which other work on the machine stretches
least. All processes keep their byte code in a folder of this benchmark, which a first round that does not
count fills.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.figures import Figure, command

ROOT = Path(__file__).resolve().parents[1]
ROUNDS, LIMIT = 5, 1.2
SMOKE = ["paper=yogi", "dataset=digits", "scale=smoke", "logger=none"]
PEER = "import torch, pytorch_lightning"
# beside the ratio: what it is, and the most seconds
BOUNDED = {
    "already done": ("a command whose run is done", 1.0),
    "refused word": ("a command with a wrong choice", 0.3),
    "refused key": ("a command with a wrong key", None),
}


def commands(folder: Path) -> dict[str, list[str]]:
    """What is measured, in the order of a round: the run that is done is the one before it."""
    words = [*SMOKE, f"output_dir={folder / 'outputs'}"]
    return {
        PEER: ["-c", PEER],
        "smoke run": ["run.py", *words, "force=true"],
        "already done": ["run.py", *words],
        "refused word": ["run.py", *SMOKE, "model=mlq"],
        "refused key": ["run.py", *SMOKE, "paper.epoch=1"],
    }


def cpu_seconds(arguments: list[str], environment: dict[str, str], fails: bool = False) -> float:
    """User and system seconds of a Python process and of what it starts.

    Raises:
        RuntimeError: it ended otherwise than it should.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if bool(ended.returncode) != fails:
        raise RuntimeError(f"{arguments}: exit code {ended.returncode}: {ended.stdout}{ended.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rounds: int, names: set[str] | None = None) -> dict[str, float]:
    """Median CPU seconds of each command (or of those named) over so many rounds, after one to warm up."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environment |= {"PYTHONPYCACHEPREFIX": f"{scratch}/bytecode", "OMP_NUM_THREADS": "1"}
        wanted = {name: what for name, what in commands(Path(scratch)).items() if not names or name in names}
        seconds: dict[str, list[float]] = {name: [] for name in wanted}
        for _ in range(rounds + 1):
            for name, arguments in wanted.items():
                seconds[name].append(cpu_seconds(arguments, environment, fails=name.startswith("refused")))
    return {name: statistics.median(times[1:]) for name, times in seconds.items()}


def main(tiny: bool = False, rounds: int = ROUNDS) -> dict[str, Figure]:
    """Measure each command; the tiny form leaves out those that import torch."""
    seconds = measure(1, {"refused word", "refused key"}) if tiny else measure(rounds)
    for name, value in seconds.items():
        print(f"{name:32} {value:6.2f} CPU s")
    found = {
        name: Figure(seconds[name], "CPU s", what, at_most=limit)
        for name, (what, limit) in BOUNDED.items()
        if name in seconds
    }
    if "smoke run" in seconds:
        ratio = seconds["smoke run"] / seconds[PEER]
        what = "a whole smoke run of the digits"
        found["smoke run"] = Figure(ratio, "x its time", what, f"`python -c '{PEER}'`", at_most=LIMIT)
    return found


if __name__ == "__main__":
    command(main)
