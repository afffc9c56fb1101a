"""The words of a command line, as Hydra's grammar wants them."""

import re
from collections.abc import Iterable

# a value that is itself made of overrides, as in teacher=model=resnet56 method=distillation/none
NESTED = re.compile(r"(?P<key>[^=]+)=(?P<value>[\w./@]+=.*)", re.DOTALL)

MULTIRUN = ("-m", "--multirun")


def quoted(words: Iterable[str]) -> list[str]:
    """The words, with quotes around values that are override strings: a shell takes those away."""
    return [_quoted(word) for word in words]


def _quoted(word: str) -> str:
    match = NESTED.fullmatch(word)
    if match is None:
        return word
    value = match["value"].replace("\\", "\\\\").replace("'", "\\'")
    return f"{match['key']}='{value}'"
