"""By which code and settings a result was made, and whether those have changed since."""

import ast
import hashlib
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from common.runs import own
from common.tables.tables import ROOT, in_roots, load_tables, roots

# what a table says beside how its rows are run
TEXTS = {"about", "metrics", "reported", "source"}
OURS = ("common.", "papers.")


def code_hash(paper: str, choices: dict[str, str], config: dict[str, Any]) -> str:
    """A hash over what decides the result of a run beside its words.

    That is the source files of what the config names by `_target_` and of all that these import in turn,
    the settings of the paper's tables, its config, its recipes, and the config files of the choices. The
    machinery that starts runs and writes their results is no part of it, as it is imported by none of them.

    Args:
        paper: its name.
        choices: the choice of each config group, as `{"dataset": "digits"}`.
        config: the resolved config, as in `result.json`.
    """
    digest = hashlib.sha256(_settings_hash(paper).encode())
    for path in sorted(_sources(frozenset(_targets(config)))):
        digest.update(_file_hash(path).encode())
    for group, choice in sorted(choices.items()):
        digest.update(f"{group}={choice}{_file_hash(in_roots(f'conf/{group}/{choice}.yaml'))}".encode())
    return digest.hexdigest()[:12]


@cache
def _settings_hash(paper: str) -> str:
    digest = hashlib.sha256(json.dumps(_settings(load_tables(paper)), default=str).encode())
    recipes = sorted(path for root in roots() for path in root.glob(f"conf/recipe/{paper}/**/*.yaml"))
    for path in [in_roots(f"conf/paper/{paper}.yaml"), *recipes]:
        digest.update(_file_hash(path).encode())
    return digest.hexdigest()


def _settings(node: Any) -> Any:
    """Tables without what only says what was reported."""
    if isinstance(node, dict):
        return {key: _settings(value) for key, value in node.items() if key not in TEXTS}
    return [_settings(value) for value in node] if isinstance(node, list) else node


def _targets(node: Any) -> Iterator[str]:
    """The modules of this project, and of the user's own, that a config names."""
    if isinstance(node, dict):
        module = str(node.get("_target_", "")).rpartition(".")[0]
        if _file(module) is not None:
            yield module
        for value in node.values():
            yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


@cache
def _sources(modules: frozenset[str]) -> frozenset[Path]:
    """The files of these modules and of all that they import, in this project or beside them, in turn too.

    Of a package of the user's own, all files count.
    """
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        path = _file(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += _imports(path)
            found |= _rest_of_package(path)
    return frozenset(found)


def _file(module: str) -> Path | None:
    if not module.startswith(OURS):
        return own.source(module) if module else None
    base = ROOT.joinpath(*module.split("."))
    files = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in files if path.exists()), own.source(module))


def _rest_of_package(path: Path) -> set[Path]:
    """Of a file of the user's own that is part of a package, all files of it; else nothing."""
    if _is_ours(path) or not (path.parent / "__init__.py").exists():
        return set()
    return set(path.parent.rglob("*.py"))


def _is_ours(path: Path) -> bool:
    return any(path.is_relative_to(ROOT / folder) for folder in ("common", "papers"))


@cache
def _imports(path: Path) -> tuple[str, ...]:
    """What a file imports from this project, inside functions too; of a package, its members as well.

    Of a file of the user's own, what lies beside it too.
    """
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    ours = _is_ours(path)
    return tuple(name for name in names if name.startswith(OURS) or (not ours and own.source(name)))


@cache
def _file_hash(path: Path) -> str:
    """Of a file's name and content; of a missing one nothing."""
    if not path.exists():
        return ""
    # of the user's own without its folder, which may move
    name = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    return hashlib.sha256(name.encode() + b"\0" + path.read_bytes()).hexdigest()


def stale(result: dict[str, Any]) -> bool:
    """Whether the code or the settings that made a result, or a run that it needed, have changed since."""
    changed = result["code"] != code_hash(result["paper"], result["choices"], result["config"])
    return changed or any(stale(stage) for stage in result.get("stages", {}).values())
