"""The words of a command line, as Hydra's grammar wants them."""

import re
from collections.abc import Iterable

# a value that is itself made of overrides, as in teacher=model=resnet56 method=distillation/none
# inner=distillation/kd: the method within the method, in Hydra's words method@method.inner=distillation/kd
INNER = re.compile(r"inner((?:\.inner)*)=(?P<choice>.*)", re.DOTALL)
NESTED = re.compile(r"(?P<key>[^=]+)=(?P<value>[\w./@]+=.*)", re.DOTALL)


def quoted(words: Iterable[str]) -> list[str]:
    """The words, with quotes around values that are override strings: a shell takes those away.

    The short form of an inner method is written out: `inner=distillation/kd`, and `inner.inner=...` of the
    one within that.
    """
    return [_quoted(_written_out(word)) for word in words]


def _written_out(word: str) -> str:
    match = INNER.fullmatch(word)
    if match is None:
        return word
    # the config's defaults have a place for the first one alone
    added = "+" if match[1] else ""
    return f"{added}method@method.inner{match[1]}={match['choice']}"


def _quoted(word: str) -> str:
    match = NESTED.fullmatch(word)
    if match is None:
        return word
    value = match["value"].replace("\\", "\\\\").replace("'", "\\'")
    return f"{match['key']}='{value}'"
