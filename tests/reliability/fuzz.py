"""Override strings that a user might mistype: valid ones, mutated."""

import re
import time
from pathlib import Path
from typing import Any

from calls import HANGS, Calls, Ended
from hypothesis import HealthCheck
from hypothesis import strategies as st

from common.runs import catalogue

# quick runs of every shape; a mutation changes one to three of their words
BASES = [
    ["paper=saddle", "dataset=b1", "model=ball", "method=escape/framework_leq", "paper.max_iterations=50"],
    ["paper=saddle", "dataset=b6", "model=simplex", "scale=smoke", "paper.eps=0.2", "paper.gamma=0.5"],
    ["paper=spider", "dataset=digits", "scale=smoke", "paper.repeats=2", "method=variance_reduction/svrg"],
    ["paper=yogi", "dataset=digits", "model=lenet_300_100", "scale=smoke", "method=optimizer/yogi"],
    ["paper=yogi", "dataset=digits", "dataset.validation=0.1", "dataset.limit=200", "paper.epochs=1"],
    ["entry=yogi.table_ae.mnist_yogi", "scale=smoke", "dataset.source=synthetic", "seed=3"],
    ["paper=accelegrad", "dataset=synthetic_regression", "method=convex/universal_fgm", "paper.epochs=5"],
    ["paper=accelegrad", "dataset=digits", "scale=smoke", "method.D=2.0", "method.G=0.0"],
    ["paper=moonshine", "dataset=digits", "scale=smoke", "method=distillation/none"],
    ["paper=one", "dataset=digits", "scale=smoke", "schedule=constant"],
    ["entry=spider.saddle_escape.saddle_spider_sfo_plus_neon2", "scale=smoke"],
    ["-m", "paper=saddle", "scale=smoke", "paper.eps=0.1,0.2"],
]
VALUES = [
    *("", "null", "true", "nan", "inf", "-inf", "-1", "0", "0.0", "1", "2", "0.5", "-0.5", "1e-300", "1e999"),
    *("[]", "[1]", "[1,2,3]", "{}", "{a: 1}", "'", "''", '"a b"', "a b", "a,b", "é", "${seed}", "${nothing}"),
    *(
        "../..",
        "/dev/null",
        "a/b/c",
        "%s",
        "\\n",
        "*",
        "glob(*)",
        "range(0,3)",
        "choice(a)",
        "x=y",
        "=",
        "0x10",
    ),
]
GROUPS = ("paper", "dataset", "model", "method", "schedule", "scale", "trainer", "logger")
# what makes a run long or large may be mistyped, but not grow
BUDGETS = re.compile(r"epochs|passes|iterations|repeats|evaluations|steps|limit|batch|checkpoint")


@st.composite
def commands(draw: st.DrawFn) -> list[str]:
    """A mutated command line."""
    words = list(draw(st.sampled_from(BASES)))
    for _ in range(draw(st.integers(1, 3))):
        words = draw(_mutated(words))
    return words


def _mutated(words: list[str]) -> st.SearchStrategy[list[str]]:
    return st.one_of(
        _another_value(words), _another_choice(words), _typo(words), _order(words), _extra(words)
    )


@st.composite
def _another_value(draw: st.DrawFn, words: list[str]) -> list[str]:
    index = draw(st.integers(0, len(words) - 1))
    key, _, _ = words[index].partition("=")
    value = draw(st.sampled_from(VALUES))
    return [*words[:index], f"{key}={value}", *words[index + 1 :]]


@st.composite
def _another_choice(draw: st.DrawFn, words: list[str]) -> list[str]:
    group = draw(st.sampled_from([group for group in GROUPS if group not in ("trainer", "logger")]))
    return [*words, f"{group}={draw(st.sampled_from(sorted(catalogue.names(group))))}"]


@st.composite
def _typo(draw: st.DrawFn, words: list[str]) -> list[str]:
    index = draw(st.integers(0, len(words) - 1))
    word = words[index]
    place = draw(st.integers(0, max(0, len(word) - 1)))
    change = draw(st.sampled_from(["drop", "double", "swap", "insert"]))
    head, tail = word[:place], word[place:]
    if change == "drop":
        word = head + tail[1:]
    elif change == "double":
        word = head + tail[:1] + tail
    elif change == "swap":
        word = head + tail[1:2] + tail[:1] + tail[2:]
    else:
        word = head + draw(st.sampled_from(list(" .,=-_/~+@:'\"[]{}()$\\é0x"))) + tail
    return [*words[:index], word, *words[index + 1 :]]


@st.composite
def _order(draw: st.DrawFn, words: list[str]) -> list[str]:
    return list(draw(st.permutations(words)))


@st.composite
def _extra(draw: st.DrawFn, words: list[str]) -> list[str]:
    keys = ["paper", "method", "model", "dataset", "hydra", "trainer", "logger", "schedule", "settings"]
    leaves = ["lr", "eps", "kind", "_target_", "seed", "nothing", "momentum", "run.dir", "devices", "d"]
    sign = draw(st.sampled_from(["", "+", "++", "~"]))
    word = f"{sign}{draw(st.sampled_from(keys))}.{draw(st.sampled_from(leaves))}"
    return [*words, word if sign == "~" else f"{word}={draw(st.sampled_from(VALUES))}"]


def too_large(words: list[str]) -> bool:
    """Whether a budget grew beyond what a test can wait for."""
    for word in words:
        key, _, value = word.partition("=")
        if BUDGETS.search(key) and re.fullmatch(r"[\d.]*\d{3,}[\d.]*|inf|1e999", value):
            return True
    return False


def fault(words: list[str], ended: Ended) -> str | None:
    """What is wrong with how a call ended, None if nothing is."""
    text = f"exit code {ended.code}: {' '.join(words)}\n{ended.errors[-2000:]}"
    if "Traceback" in ended.errors + ended.out or "(trace: " in ended.errors:
        return f"a traceback; {text}"
    if ended.code not in (0, 1):
        return text
    lines = [line for line in ended.errors.splitlines() if line.startswith("error: ")]
    if ended.code == 1 and not lines and "sweep:" not in ended.out:
        return f"no line says why; {text}"
    return None


def check(calls: Calls, words: list[str], folder: Path, seconds: float = HANGS) -> None:
    """Make a call, and hold it against the promise. One that is under way, and says so, need not end.

    Raises:
        AssertionError: it broke it; or it hung.
    """
    call = calls.start(words if "logger" in str(words) else [*words, "logger=none"], folder)
    end = time.monotonic() + seconds
    while (ended := calls.wait(call, 5)) is None:
        under_way = "ETA" in (folder / "stderr").read_text(errors="replace")
        if under_way or time.monotonic() > end:
            calls.kill(call)
            assert under_way, f"no word after {seconds} s: {' '.join(words)}"
            return
    wrong = fault(words, ended)
    assert wrong is None, wrong


def settings(examples: int) -> dict[str, Any]:
    """How hypothesis is to search: no deadline and no database; the examples follow from its seed."""
    return {
        "max_examples": examples,
        "deadline": None,
        "database": None,
        "suppress_health_check": list(HealthCheck),
    }
