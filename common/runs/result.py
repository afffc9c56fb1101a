"""`result.json`: what a run measured, written once and atomically."""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common.base.files import whole


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file, whole or not at all, and flush it to disk."""
    with whole(path) as partial, partial.open("w") as file:
        file.write(as_text(content))
        file.flush()
        os.fsync(file.fileno())


def as_text(content: dict[str, Any]) -> str:
    """JSON with a line for each key, and for each key of what a key holds; deeper nodes stand on that line.

    So a person can read a result, and two of them differ in the lines of what differs. Keys keep their order.
    """

    def one_a_line(node: dict[str, Any], inner: Callable[[Any], str], indent: str) -> str:
        lines = [f"{indent}{json.dumps(key)}: {inner(value)}" for key, value in node.items()]
        return "{\n" + ",\n".join(lines) + f"\n{indent[1:]}}}"

    def second(node: Any) -> str:
        return one_a_line(node, json.dumps, "  ") if isinstance(node, dict) and node else json.dumps(node)

    return one_a_line(jsonable(content), second, " ") + "\n"


def jsonable(node: Any) -> Any:
    """Plain JSON data; tensors become lists, NaN and infinity null."""
    if isinstance(node, dict):
        return {str(key): jsonable(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [jsonable(value) for value in node]
    if hasattr(node, "tolist"):
        return jsonable(node.tolist())
    if isinstance(node, float) and not math.isfinite(node):
        return None
    return node


def read_result(path: Path) -> dict[str, Any] | None:
    """A finished run's result, or None where there is none or it is not whole."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, json.JSONDecodeError, UnicodeDecodeError):
        return None
    return content if isinstance(content, dict) and "metrics" in content else None


def made_at(result: dict[str, Any]) -> str:
    """The commit and date of a result, in a few words."""
    return f"commit {(result['commit'] or 'unknown')[:10]}, {result['finished']}"


def number(value: Any) -> str:
    """A metric as a person writes it."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    whole = isinstance(value, int) or 1e4 <= abs(value) < 1e12
    # -0.0 is 0
    return f"{value:,.0f}" if whole else f"{value + 0.0:.5g}"
