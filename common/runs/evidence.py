"""All results that there are: those of `outputs/` on this machine, and the committed ones of `results/`.

A result is found by the words by which its run was asked for, in a normal form (`asked`).
"""

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.runs.code import served_settings
from common.runs.neutral import NEUTRAL_IN
from common.runs.result import read_result
from common.runs.words import quoted
from common.tables.tables import ROOT

# what a file must hold to count as a result
REQUIRED = {
    *("entries", "overrides", "paper", "choices", "scale", "seed", "metrics", "reported", "history"),
    *("config", "code", "device", "wall_seconds", "finished"),
}
# words that do not change a result; with a dot at the end, all keys below
NEUTRAL = {
    "checkpoint_every",
    "data_dir",
    "force",
    "import",
    "logger",
    "logger.",
    "objective",
    "output_dir",
    "pause",
    "record",
    "results_dir",
    "trainer",
    # which class trains is the trainer's choice, and no word of its own
    *(f"{group}.{key}" for group, keys in NEUTRAL_IN.items() for key in keys if key != "_target_"),
}


def key_of(word: str) -> str:
    """`paper.eps` of `paper.eps=0.1` and of `++paper.eps=0.1`."""
    return word.split("=", 1)[0].lstrip("+~")


def values_of(words: Iterable[str]) -> dict[str, str]:
    """The values of words by their keys."""
    return {key_of(word): word.partition("=")[2] for word in words}


def folders_of(given: Mapping[str, str]) -> tuple[Path, Path]:
    """Where results are read: `output_dir` and `results_dir` of what is given by key, or the usual ones."""
    outputs, results = given.get("output_dir", "outputs"), given.get("results_dir", "results")
    return Path(outputs).expanduser(), results_folder(results)


def results_folder(results_dir: str) -> Path:
    """Where the committed evidence lies: `results_dir`, as seen from the project's folder."""
    return ROOT / Path(results_dir).expanduser()


def last_of_each_key(words: Iterable[str]) -> tuple[str, ...]:
    """The words without those that a later one with the same key overrides."""
    return tuple({key_of(word): word for word in words}.values())


def neutral(word: str) -> bool:
    """Whether a word does not change what a run measures."""
    key = key_of(word)
    group = key.split(".")[0]
    return key in NEUTRAL or f"{group}." in NEUTRAL or group.split("/")[0] == "hydra" or key.startswith("-")


def asked(words: Iterable[str]) -> tuple[str, ...]:
    """The words that decide a result, the last of each key, sorted: equal where the same is asked for."""
    return tuple(sorted(word for word in last_of_each_key(quoted(words)) if not neutral(word)))


def asked_forms(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """The normal forms by which a result was asked for; results of older versions kept only their first."""
    return [tuple(words) for words in result.get("asked", [])] or [asked(result["overrides"])]


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Two results of one run as one: the numbers of `new`, and all that either served.

    Those are its entries with what was reported for them, the words that asked for it, and what these set.
    """
    entries = list(dict.fromkeys([*old["entries"], *new["entries"]]))
    reported = {**old["reported"], **new["reported"]}
    forms = list(dict.fromkeys([*asked_forms(old), *asked_forms(new)]))
    settings = {**served_settings(old), **served_settings(new)}
    both = {"entries": entries, "reported": reported, "asked": [list(words) for words in forms]}
    return {**new, **both, "settings": settings}


@dataclass(frozen=True)
class Evidence:
    """Results by their run keys, which are recorded, and how many records `outputs/` stands in for."""

    by_key: dict[str, dict[str, Any]]
    recorded: frozenset[str]
    by_words: dict[tuple[str, ...], str]
    by_entry: dict[str, list[str]]
    replaced: int = 0

    @classmethod
    def read(cls, outputs: Path, results: Path) -> "Evidence":
        """All results below `outputs` (`<paper>/<hex>/result.json`) and `results` (`<paper>/<hex>.json`).

        Where both hold a run, the numbers of `outputs` count, which were made here, and the entries and
        words of both (`joined`). Debug runs are none. A file that is no result is passed over, which one line
        says.
        """
        committed = read_all({f"{p.parent.name}/{p.stem}": p for p in sorted(results.glob("*/*.json"))})
        local = {
            f"{p.parent.parent.name}/{p.parent.name}": p for p in sorted(outputs.glob("*/*/result.json"))
        }
        found = read_all(local)
        both = {key: joined(committed[key], found[key]) for key in committed.keys() & found.keys()}
        evidence = cls.of(committed | found | both, frozenset(committed))
        other = sum(found[key]["finished"] != committed[key]["finished"] for key in both)
        return replace(evidence, replaced=other)

    def say_replaced(self) -> None:
        """Say on stderr whose numbers count where a run was made anew here, if one was."""
        if self.replaced:
            runs = "1 run was" if self.replaced == 1 else f"{self.replaced} runs were"
            text = f"{runs} made anew in outputs: those numbers count, not the committed ones"
            print(text, file=sys.stderr)

    @classmethod
    def of(cls, by_key: dict[str, dict[str, Any]], recorded: frozenset[str] = frozenset()) -> "Evidence":
        """The evidence of some results by their run keys; of two asked for alike, the newer one is found."""
        by_words: dict[tuple[str, ...], str] = {}
        by_entry: dict[str, list[str]] = {}
        for key, result in sorted(by_key.items(), key=lambda item: item[1]["finished"]):
            by_words |= dict.fromkeys(asked_forms(result), key)
            for entry in result["entries"]:
                by_entry.setdefault(entry, []).append(key)
        return cls(by_key, recorded, by_words, by_entry)

    def find(self, words: Iterable[str]) -> dict[str, Any] | None:
        """The result of the run that these words ask for, if it is there."""
        key = self.key(words)
        return None if key is None else self.by_key[key]

    def key(self, words: Iterable[str]) -> str | None:
        """The run key of what these words ask for, if its result is there."""
        return self.by_words.get(asked(words))

    def all(self) -> list[dict[str, Any]]:
        """Every result."""
        return list(self.by_key.values())

    def of_entry(self, name: str) -> list[dict[str, Any]]:
        """The results that serve an entry, oldest first."""
        return [self.by_key[key] for key in self.by_entry.get(name, [])]


def read_all(paths: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """Results by some name; a file that is none is passed over, said on stderr, and so are debug runs."""
    found = {}
    for key, path in paths.items():
        result = read_result(path)
        if result is None or not set(result) >= REQUIRED:
            print(f"passed over, as it is no result: {path}", file=sys.stderr)
        elif "debug" not in result["config"]:
            found[key] = result
    return found
