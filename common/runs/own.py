"""Modules of the user's own: what `import=` on the command line opts in to, for this process alone.

`import=my_nets` is a file `my_nets.py` or a folder `my_nets` of the current folder, or an installed package;
`import=code/my_nets.py` a file by its path; `import=papers.mine` a paper in the current folder's `papers/`.
Several are separated by commas. Only a command line opts in: a config, a result or a checkpoint that names
such a module, or holds such a word, has nothing imported.
"""

import importlib
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

from common.base.errors import UserError
from common.runs.words import modules_of

OURS = ("common.", "papers.")
# names that the command line has opted in to, each with its folder (None: an installed package)
_opted: dict[str, Path | None] = {}
# where the sources of results are looked for
_places: list[Path] = []


@dataclass(frozen=True)
class Own:
    """A module to import: its name, and its file (None: an installed package)."""

    name: str
    file: Path | None


def opted_in(target: str) -> bool:
    """Whether `import=` names the module that a target belongs to."""
    return any(target.startswith(f"{name}.") for name in _opted)


def imported() -> list[str]:
    """The names of the modules that `import=` has named."""
    return list(_opted)


def named(text: str | None) -> list[Own]:
    """What the value of `import=` names, found but not imported.

    Raises:
        UserError: a module that is not there, a file that is none of Python's, a name of this project's.
    """
    return [_found(part) for part in modules_of(text or "")]


def opt_in(text: str | None) -> None:
    """Import what the value of `import=` names, and let configs of this process name its classes.

    Raises:
        UserError: as `named`, or whatever goes wrong in the module, with the file and the line.
    """
    for own in named(text):
        if own.name in _opted:
            continue
        try:
            _import(own)
        except UserError:
            raise
        except SystemExit as stop:
            raise UserError(
                f"import={own.name}: it ends the program when it is imported ({stop!r})"
            ) from stop
        except Exception as error:
            if isinstance(error, ImportError) and "relative import" in str(error):
                raise UserError(f"import={own.name}: {where(error)}{error}{_as_package(own)}") from error
            raise UserError(f"import={own.name}: {where(error)}{type(error).__name__}: {error}") from error
        _opted[own.name] = None if own.file is None else _folder(own)


def _found(part: str) -> Own:
    if _is_path(part):
        path = Path(part).expanduser()
        path = path / "__init__.py" if path.is_dir() else path
        if not path.is_file() or path.suffix != ".py":
            raise UserError(f"import={part}: no such file (valid: a Python file, or the name of a module)")
        return Own(
            _identifier(part, path.parent.name if path.stem == "__init__" else path.stem), path.resolve()
        )
    _identifier(part, part)
    file = _file_in(Path.cwd(), part)
    if file is None and (part.startswith(OURS) or not _installed(part)):
        raise UserError(
            f"import={part}: neither {part.replace('.', '/')}.py nor such a folder with Python files is in "
            f"{Path.cwd()}, and no package of this name is installed (valid: its path, as code/my_nets.py)"
        )
    return Own(part, file)


def _identifier(part: str, name: str) -> str:
    if not all(piece.isidentifier() for piece in name.split(".")) or name in ("common", "papers"):
        raise UserError(
            f"import={part}: {name} cannot be the name of a module of yours (valid: letters, digits "
            "and _, not common or papers)"
        )
    return name


def _file_in(folder: Path, name: str) -> Path | None:
    """The file of a module; of a folder without `__init__.py`, the folder."""
    base = folder.joinpath(*name.split("."))
    if base.with_suffix(".py").is_file():
        return base.with_suffix(".py")
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    return base if base.is_dir() and any(base.glob("*.py")) else None


def _installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _import(own: Own) -> None:
    """Import a module by its name; the file that was found counts, not another one of the same name."""
    if own.file is None:
        importlib.import_module(own.name)
        return
    folder = _folder(own)
    if own.name.startswith("papers."):
        # the folder `papers` of the user continues ours
        paths = importlib.import_module("papers").__path__
        if str(folder / "papers") not in paths:
            paths.append(str(folder / "papers"))
        importlib.import_module(own.name)
        return
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    if own.file.is_dir() or "." in own.name:
        importlib.import_module(own.name)
        return
    there = sys.modules.get(own.name)
    if there is not None:
        if Path(getattr(there, "__file__", None) or "").resolve() != own.file:
            raise UserError(
                f"import={own.name}: another module of this name is in use ({there}); rename {own.file.name}"
            )
        return
    places = [str(own.file.parent)] if own.file.name == "__init__.py" else None
    spec = spec_from_file_location(own.name, own.file, submodule_search_locations=places)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[own.name] = module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[own.name]
        raise


def _folder(own: Own) -> Path:
    """The folder that holds the module, or the package that it is part of."""
    assert own.file is not None
    path = own.file.parent if own.file.name == "__init__.py" else own.file
    return path.parents[own.name.count(".")]


def _as_package(own: Own) -> str:
    """What to write for a file that was named by its path, and imports relative to a package."""
    if own.file is None:
        return ""
    file, here = own.file, Path.cwd()
    inside = file.relative_to(here) if file.is_relative_to(here) else Path(file.name)
    if len(inside.parts) > 1:
        name = ".".join(inside.with_suffix("").parts).removesuffix(".__init__")
        return f" (valid: import={name}, and {name}.CLASS as the target)"
    top = file.parent
    while (top / "__init__.py").is_file():
        top = top.parent
    if top == file.parent:
        return " (valid: from NAME import ... without a dot, as the file lies in no package)"
    name = ".".join(file.relative_to(top).with_suffix("").parts).removesuffix(".__init__")
    return f" (valid: from the folder {top}: import={name}, and {name}.CLASS as the target)"


def where(error: Exception) -> str:
    """The file and the line where a module stumbled."""
    if isinstance(error, SyntaxError):
        return f"{error.filename}, line {error.lineno}: "
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}: "


def line_of(error: BaseException | None) -> str:
    """The file and the line within what `import=` names that led to an error, or to what caused it.

    Nothing where none did. Of a `UserError` its causes alone count: it says itself what is wrong, wherever
    the user's code stood on its way.
    """
    seen: list[BaseException] = []
    # a cause that is raised from what wrapped it causes itself
    while error is not None and error not in seen:
        seen.append(error)
        frames = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
            if opted_in(f"{frame.f_globals.get('__name__')}.")
        ]
        if frames and not isinstance(error, UserError):
            return f"{frames[-1][0]}, line {frames[-1][1]}"
        error = error.__cause__
    return ""


def places_of(words: Iterable[str]) -> tuple[Path, ...]:
    """The folders of the files that an `import=` among words names, of those that are there.

    Nothing is imported, nor looked for by its name: a result's words may say where the source lies by which
    its code is known again, and no more.
    """
    found = []
    for part in (part for word in words if word.startswith("import=") for part in modules_of(word[7:])):
        if _is_path(part):
            with suppress(UserError):
                found.append(_folder(_found(part)))
    return tuple(dict.fromkeys(found))


def _is_path(part: str) -> bool:
    return part.endswith(".py") or "/" in part


@contextmanager
def looking_in(places: tuple[Path, ...]) -> Iterator[None]:
    """Let `source` look in some folders too, before the current one."""
    before = list(_places)
    _places[:] = places
    try:
        yield
    finally:
        _places[:] = before


def source(module: str) -> Path | None:
    """The file of a module of the user's own, whether it is imported or not; None where there is none.

    It is looked for where `import=` found its own, where `looking_in` says, and in the current folder.
    """
    folders = [folder for folder in _opted.values() if folder is not None]
    for folder in dict.fromkeys([*folders, *_places, Path.cwd()]):
        file = _file_in(folder, module)
        if file is not None and file.is_file():
            return file
    return None
