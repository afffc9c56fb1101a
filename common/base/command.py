"""What every command does around its `main`: readers that stop reading, text in UTF-8, errors in one line."""

import errno
import locale
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from common.base.errors import UserError

OURS = tuple(Path(__file__).resolve().parents[2] / name for name in ("common", "papers"))

UNWRITABLE = (
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT),
    *(errno.EEXIST, errno.ENOTDIR),
)


def os_line(error: OSError) -> str:
    """What the system refused, and what of, in one line; where nothing can be written, what is valid."""
    if error.filename is None or error.strerror is None:
        return " ".join(str(error).split())
    line = f"{error.filename}: {error.strerror}"
    if error.errno in UNWRITABLE:
        line += " (valid: a folder with room that can be written to, as by output_dir=FOLDER or into=FOLDER)"
    return line


def needs_package(package: str) -> str:
    """What to do about a package that is not installed and that only a part of the project needs."""
    return f"needs the package {package}: make setup-full (or pip install -e '.[papers]')"


def missing_line(error: BaseException) -> str | None:
    """Of a package that a module of this project imports and that is not there; None for other errors."""
    package = (error.name or "").split(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    if package in ("", *(folder.name for folder in OURS)) or not frames:
        return None
    importer = Path(frames[-1].f_code.co_filename)
    ours = any(importer.is_relative_to(folder) for folder in OURS)
    return f"this {needs_package(package)}" if ours else None


def in_one_line(work: Callable[[], int | None]) -> int:
    """The exit code of a command's work; 1, and one line on stderr, where the user can mend what is wrong.

    For commands that make no runs; `common.runs.cli.guarded` knows Hydra's errors too.
    """
    try:
        return work() or 0
    except BrokenPipeError:
        # not of the work, but of whom it is told to: `command` sees to it
        raise
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"error: {os_line(error)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        line = missing_line(error)
        if line is None:
            raise
        print(f"error: {line}", file=sys.stderr)
        return 1


def refuse_options(words: Iterable[str], valid: Sequence[str] = ()) -> None:
    """Refuse words that look like options, but for the valid ones.

    Raises:
        UserError: the first of them.
    """
    for word in words:
        if word.startswith("-") and word not in valid:
            raise UserError(f"{word}: no such option (valid: {', '.join([*valid, '--help'])}, and words)")


def run_or_help(
    help_text: str,
    work: Callable[[list[str]], int | None],
    told: Callable[[Callable[[], int | None]], int] = in_one_line,
    needs_words: bool = False,
) -> int:
    """The exit code of a command, by the words of its command line: what it does, or its help.

    Args:
        help_text: printed where -h or --help is among the words.
        work: what the command does with its words.
        told: how its errors are told.
        needs_words: whether a command without words is a mistake: it gets the help, and exit code 1.
    """
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words) or (needs_words and not words):
        print(help_text)
        return 0 if words else 1
    return told(lambda: work(words))


def command(main: Callable[[], int | None]) -> int | None:
    """The exit code of a command; 0 where its reader has gone before its end, as of `... | head`.

    Where the locale is not UTF-8, Python begins anew in its UTF-8 mode: files and names hold any text.
    """
    if not (sys.flags.utf8_mode or locale.getencoding().lower() in ("utf-8", "utf8")):
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    # Hydra prints by way of logging, which would tell of each line that has no reader
    logging.raiseExceptions = False
    try:
        code = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # the interpreter flushes once more at its end: that must go somewhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code
