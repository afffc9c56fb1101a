"""What the run of a result was made with, and whether that is what words say; nothing heavy is imported."""

import re
from typing import Any

import yaml

from common.runs.words import text_of

# what `value_at` gives of a key that a run does not have
NOTHING = object()
# words that ask for a run within a text, as those of a teacher
SEED_WORD = re.compile(r"(?<=\s)seed=(\d+)(?=\s|$)|^seed=(\d+)\s+")


def value_at(result: dict[str, Any], key: str) -> Any:
    """What the run of a result has at a key of its words; `NOTHING` where it has none."""
    if key in ("paper", "scale"):
        return result[key]
    if key in result["choices"]:
        return result["choices"][key]
    node: Any = result["config"]
    for part in re.split(r"[./@]", key):
        if not isinstance(node, dict) or part not in node:
            return NOTHING
        node = node[part]
    return node


def has(result: dict[str, Any], word: str) -> bool:
    """Whether a run has what a word says."""
    key, _, value = word.lstrip("+").partition("=")
    there = value_at(result, key)
    return there is not NOTHING and same(there, text_of(value) or value)


def same(there: Any, text: str) -> bool:
    """Whether a value of a config is what a text says."""
    if str(there) == text:
        return True
    try:
        said = yaml.safe_load(text)
        return bool(said == there) or float(said) == float(there)
    except (yaml.YAMLError, TypeError, ValueError):
        return False


def without_seed(node: Any, seed: int) -> Any:
    """A config without the run's seed, which stands in what draws by it, and in a teacher's words."""
    if isinstance(node, dict):
        return {k: without_seed(v, seed) for k, v in node.items() if not (k == "seed" and v == seed)}
    if isinstance(node, str) and "seed=" in node:
        return SEED_WORD.sub(lambda m: "" if (m[1] or m[2]) == str(seed) else m[0], node).strip()
    return node
