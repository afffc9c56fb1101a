"""Tab completion for bash: `eval "$(python run.py -sc install=bash)"`.

It reads file names and YAML alone, and imports neither Hydra nor torch, so that a press of Tab takes little
longer than Python's own start. Hydra's completion would know neither the kinds of methods, nor entries, nor
which data sets a paper takes.
"""

import os
import shlex
import sys
from collections.abc import Iterable
from typing import Any

from common.base.errors import UserError
from common.base.files import read_yaml
from common.runs.catalogue import CONF, GROUPS, names, read
from common.tables.tables import SCALES, in_roots, papers, roots, runnable

# groups whose keys are set below their name: `method.lr=`
BUILT = tuple(group for group in GROUPS if group != "scale")
LAUNCHERS = ("basic", "joblib", "submitit_local", "submitit_slurm", "ray")
SWEEPERS = ("basic", "optuna")
OPTIONS = ("-sc", "--shell-completion")
# those that take the words of a run
SCRIPTS = ("run.py", "export.py", "evaluate.py", "predict.py")

INSTALL = r"""_reprise_complete()
{
    local IFS=$'\n' script=${COMP_WORDS[1]##*/}
    COMPREPLY=()
    case $script in %(scripts)s) ;; *) return ;; esac
    local python=${COMP_WORDS[0]/#\~/$HOME} folder=${COMP_WORDS[1]%%"$script"}
    local typed=${COMP_LINE:0:COMP_POINT} word
    word=${typed##* } folder=${folder:-.}
    COMPREPLY=($("$python" "$folder/run.py" -sc query=bash "$typed" 2> /dev/null))
    # one candidate that is no whole word yet gets no space after it
    [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=.] ]] && compopt -o nospace 2> /dev/null
    # readline replaces what follows the last break of words
    [[ $COMP_WORDBREAKS == *=* && $word == *=* ]] && COMPREPLY=("${COMPREPLY[@]#"${word%%%%=*}="}")
}
complete -o bashdefault -o default -F _reprise_complete python python3"""
UNINSTALL = "complete -r python python3; unset -f _reprise_complete"


def wanted(words: list[str]) -> bool:
    """Whether a command line asks for completion."""
    return bool(set(words) & set(OPTIONS))


def main(words: list[str]) -> int:
    """Print bash's code, or what the end of a line may become, one a line; the exit code.

    Args:
        words: `-sc install=bash`, `-sc uninstall=bash` or `-sc query=bash LINE`.
    """
    asked = [word for word in words if word not in OPTIONS]
    if asked == ["install=bash"]:
        print(INSTALL % {"scripts": "|".join(SCRIPTS)})
    elif asked == ["uninstall=bash"]:
        print(UNINSTALL)
    elif asked[:1] == ["query=bash"]:
        line = asked[1] if len(asked) > 1 else os.environ.get("COMP_LINE", "")
        print("\n".join(candidates(line)))
    else:
        print(f"error: -sc {' '.join(asked)}: valid: install=bash, uninstall=bash", file=sys.stderr)
        return 1
    return 0


def candidates(line: str) -> list[str]:
    """What the last word of a line may become: whole words, or their next part where they go on.

    Args:
        line: what is typed so far, `python run.py ` included; a space at its end begins a new word.
    """
    *before, word = line.split(" ")
    sign = word[: len(word) - len(word.lstrip("+~"))]
    given = dict(part.lstrip("+").split("=", 1) for part in _words(" ".join(before)) if "=" in part)
    bare = word.removeprefix(sign)
    key, equals, value = bare.partition("=")
    try:
        found = _values(key, value, given) if equals else _keys(bare, given)
    except (UserError, OSError):
        found = []
    return [sign + offer for offer in sorted(set(found))]


def _words(line: str) -> list[str]:
    """The words of a line; those of a line with an open quote as they stand."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _values(key: str, value: str, given: dict[str, str]) -> list[str]:
    """`key=value` for each value that begins so; of a sweep's (`paper=yogi,o`) the last is completed."""
    done, comma, last = value.rpartition(",")
    return [f"{key}={done}{comma}{name}" for name in _choices(key, last, given) if name.startswith(last)]


def _choices(key: str, begun: str, given: dict[str, str]) -> Iterable[str]:
    if key == "entry":
        return _entries(begun)
    if key == "hydra/launcher":
        return LAUNCHERS
    if key == "hydra/sweeper":
        return SWEEPERS
    if key == "dataset":
        return _datasets(given)
    if key == "method":
        return _methods(given)
    if key in GROUPS:
        return _names(key)
    value = _setting(key, given)
    return ("true", "false") if isinstance(value, bool) else ()


def _names(group: str) -> list[str]:
    if group == "scale":
        return list(SCALES)
    return names(group)


def _entries(begun: str) -> list[str]:
    """Papers, then the tables of the paper that is named, then the rows of its table."""
    paper, *table = begun.split(".")
    if not table:
        return [f"{name}." for name in papers()]
    found = runnable(paper)
    return [entry.name if table[1:] else f"{entry.paper}.{entry.table}." for entry in found]


def _accepts(given: dict[str, str]) -> dict[str, Any] | None:
    paper = given.get("paper", given.get("entry", "").split(".")[0])
    return read("paper", paper)["accepts"] if paper in papers() else None


def _datasets(given: dict[str, str]) -> list[str]:
    """The data sets that the paper takes: by kind, or by a recipe of its own."""
    accepts = _accepts(given)
    if accepts is None:
        return _names("dataset")
    paper = given.get("paper", given.get("entry", "").split(".")[0])
    own = {path.stem for root in roots() for path in root.glob(f"conf/recipe/{paper}/*.yaml")}
    return [name for name in _names("dataset") if name in own or _kind(name) in accepts["datasets"]]


def _kind(dataset: str) -> str:
    """The kind of a data set; its line alone is read, as parsing all files would take too long."""
    for line in in_roots(f"conf/dataset/{dataset}.yaml").read_text().splitlines():
        if line.startswith("kind: "):
            return line.removeprefix("kind: ").strip()
    return ""


def _methods(given: dict[str, str]) -> list[str]:
    accepts = _accepts(given)
    return [name for name in _names("method") if accepts is None or name.split("/")[0] in accepts["methods"]]


def _keys(begun: str, given: dict[str, str]) -> list[str]:
    """The keys that begin so: groups, keys of the top level, and, after a dot, those of a group's choice."""
    group, dot, _ = begun.partition(".")
    if dot:
        found = [f"{group}.{key}=" for key in _node(group, given) if not key.startswith("_")]
    else:
        top = [key for key, value in _config().items() if not isinstance(value, list | dict)]
        found = [f"{name}=" for name in ("entry", "hydra/launcher", "hydra/sweeper", *GROUPS, *top)]
        # a group's keys are offered when its name is whole
        found += [f"{begun}."] if begun in BUILT else []
    return [name for name in found if name.startswith(begun)]


def _node(group: str, given: dict[str, str]) -> dict[str, Any]:
    """The keys and values of the config of a group's choice, as its own file has them."""
    if group not in BUILT:
        return {}
    if group == "paper":
        return dict(read("paper", given["paper"]).get("paper", {})) if given.get("paper") else {}
    choice = given.get(group, _default(group, given))
    return read(group, choice) if choice else {}


def _default(group: str, given: dict[str, str]) -> str | None:
    """The choice of a group where the line names none: the paper's, or that of `conf/config.yaml`."""
    lists = [_config()["defaults"]]
    if given.get("paper") in papers():
        lists.append(read("paper", given["paper"]).get("defaults", []))
    chosen = None
    for entry in (entry for entries in lists for entry in entries if isinstance(entry, dict)):
        for name, choice in entry.items():
            if name.removeprefix("override ").lstrip("/") == group:
                chosen = choice
    return chosen


def _setting(key: str, given: dict[str, str]) -> Any:
    group, dot, leaf = key.partition(".")
    return _node(group, given).get(leaf) if dot else _config().get(key)


def _config() -> dict[str, Any]:
    config: dict[str, Any] = read_yaml(CONF / "config.yaml")
    return config
