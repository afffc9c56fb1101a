"""Files that hold a cloud of points, or a surface to draw one from: .npy, .csv, .xyz, .pts, .txt and .off."""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from common.base.errors import UserError
from common.data.clouds.surface import Points, Triangles, sampled
from common.data.shared.download import reason
from common.data.shared.text_file import encoding_of, from_here

TEXTS = (".csv", ".xyz", ".pts", ".txt")
SUFFIXES = (".npy", ".off", *TEXTS)
SEPARATORS, BESIDE_COMMAS = re.compile(r"[\s,;]+"), re.compile(r"[\s;]+")
# no comma, or one with a digit on each side
WITH_COMMA = re.compile(r"[^,]*(\d,\d)?[^,]*")


def read_points(path: Path, count: int, random: np.random.Generator) -> tuple[Points, int]:
    """Points [count, 3] of a file, and how many there were to choose from.

    Of a surface (.off) they are drawn uniformly by area, and there are `count` to choose from. Of a cloud
    they are drawn without replacement; where it has fewer, each stands there equally often, but for a rest.
    The coordinates are the first three columns; a text may begin with a line of names, and a .pts file with
    the number of its points.

    Raises:
        UserError: no such file, another format, a coordinate that is not finite, fewer than two points that
            differ; with the line's number where the file is a text.
    """
    if path.suffix.lower() == ".off":
        vertices, triangles = read_off(path)
        try:
            return sampled(vertices, triangles, count, random), count
        except ValueError as error:
            raise UserError(f"{path}: {error} (valid: a surface of triangles)") from error
    cloud = read_cloud(path)
    return resampled(cloud, count, random), len(cloud)


def resampled(cloud: Points, count: int, random: np.random.Generator) -> Points:
    """`count` of the points of a cloud in random order, none more than once more often than another."""
    order = np.concatenate([random.permutation(len(cloud)) for _ in range(-(-count // len(cloud)))])
    return cloud[order[:count]]


def read_cloud(path: Path) -> Points:
    """All points [n, 3] of a file that is no surface; see `read_points`."""
    cloud = _npy(path) if path.suffix.lower() == ".npy" else _text(path)
    require_cloud(cloud, str(path))
    return cloud


def require_cloud(cloud: Points, name: str) -> None:
    """Refuse what is no cloud: a coordinate that is not finite, or fewer than two points that differ.

    Raises:
        UserError: see above, with the number of the first bad point.
    """
    bad = np.flatnonzero(~np.isfinite(cloud).all(axis=1))
    if len(bad):
        raise UserError(f"{name}: point {bad[0] + 1} is {cloud[bad[0]].tolist()} (valid: finite numbers)")
    if len(cloud) < 2 or not np.ptp(cloud, axis=0).max() > 0:
        what = "no point" if not len(cloud) else "one point" if len(cloud) == 1 else "one point many times"
        raise UserError(f"{name}: a cloud of {what} (valid: at least two points that differ)")


def _npy(path: Path) -> Points:
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise UserError(_unreadable(path, error)) from error
    except (ValueError, EOFError) as error:
        raise UserError(f"{path}: no array of numbers ({' '.join(str(error).split())})") from error
    if found.ndim != 2 or found.shape[1] < 3 or found.dtype.kind not in "fiu":
        raise UserError(
            f"{path}: an array {list(found.shape)} of {found.dtype} (valid: numbers [points, 3 or more])"
        )
    return found[:, :3].astype(np.float64)


def _text(path: Path) -> Points:
    rows: list[list[float]] = []
    width = 0
    first = True
    for number, line in _lines(path):
        cells = _cells(line)
        was_first, first = first, False
        if was_first and _is_heading(cells):
            continue
        width = width or len(cells)
        rows.append(_coordinates(path, number, cells, width))
    return np.array(rows, np.float64).reshape(-1, 3)


def _cells(line: str) -> list[str]:
    """What stands in a line between commas, semicolons and white space.

    Where the latter two separate three cells or more, a comma within one is a decimal mark: `1,5;2;3,25`.
    """
    cells = [cell for cell in BESIDE_COMMAS.split(line) if cell]
    if len(cells) >= 3 and "," in line and all(WITH_COMMA.fullmatch(cell) for cell in cells):
        return [cell.replace(",", ".") for cell in cells]
    return [cell for cell in SEPARATORS.split(line) if cell]


def _is_heading(cells: list[str]) -> bool:
    """Whether a first line holds names of columns, or the number of points alone."""
    try:
        return len([float(cell) for cell in cells]) == 1
    except ValueError:
        return True


def _coordinates(path: Path, number: int, cells: list[str], width: int) -> list[float]:
    if len(cells) != width or width < 3:
        raise UserError(
            f"{path}: line {number} has {len(cells)} numbers (valid: "
            f"{f'{width}, as the lines before' if width >= 3 else '3 or more, x, y and z first'})"
        )
    try:
        found = [float(cell) for cell in cells[:3]]
    except ValueError:
        found = [np.nan]
    if not np.isfinite(found).all():
        raise UserError(f"{path}: line {number} holds {' '.join(cells[:3])} (valid: finite numbers)")
    return found


def read_off(path: Path) -> tuple[Points, Triangles]:
    """The vertices [v, 3] and triangles [f, 3] of a surface in the Object File Format; larger faces are fans.

    Some files of ModelNet40 have their numbers right behind the word OFF.

    Raises:
        UserError: no such file, or a line that is not what it should be, with its number.
    """
    lines = _lines(path)
    number, first = lines[0] if lines else (1, "")
    word = re.match(r"(ST)?(C)?(N)?OFF\b|OFF(?=\d)", first)
    if word is None:
        raise UserError(f"{path}: line {number} is not OFF (valid: a surface in the Object File Format)")
    rest = first[word.end() :].strip()
    lines = [(number, rest), *lines[1:]] if rest else lines[1:]
    sizes = _whole(path, *(lines[0] if lines else (number, "")), least=2)
    vertex_count, face_count = sizes[:2]
    body = lines[1:]
    if len(body) < vertex_count + face_count:
        raise UserError(
            f"{path}: {len(body)} lines behind line {lines[0][0]}, which says {vertex_count} vertices and "
            f"{face_count} faces"
        )
    return _vertices(path, body[:vertex_count]), _triangles(
        path, body[vertex_count : vertex_count + face_count], vertex_count
    )


def _vertices(path: Path, lines: list[tuple[int, str]]) -> Points:
    found = _table(lines, 3)
    if found is None or not np.isfinite(found).all():
        rows = [_coordinates(path, at, line.split(), max(3, len(line.split()))) for at, line in lines]
        found = np.array(rows, np.float64).reshape(-1, 3)
    return found


def _triangles(path: Path, lines: list[tuple[int, str]], vertices: int) -> Triangles:
    found = _table(lines, 4)
    if found is not None and (found == found.round()).all() and (found[:, 0] == 3).all():
        corners = found[:, 1:]
        if corners.min() >= 0 and corners.max() < vertices:
            return corners.astype(np.int64)
    triangles: list[tuple[int, int, int]] = []
    for at, line in lines:
        fan = _face(path, at, line, vertices)
        triangles += [(fan[0], fan[i], fan[i + 1]) for i in range(1, len(fan) - 1)]
    return np.array(triangles, np.int64).reshape(-1, 3)


def _table(lines: list[tuple[int, str]], width: int) -> NDArray[np.float64] | None:
    """Lines that all hold so many numbers, single spaces between them, as one array; None: they are others.

    Files of models have 100,000 lines, so that this way is worth its while.
    """
    if not lines or any(line.count(" ") != width - 1 for _, line in lines):
        return None
    try:
        return np.array(" ".join(line for _, line in lines).split(" "), np.float64).reshape(-1, width)
    except ValueError:
        return None


def _face(path: Path, number: int, line: str, vertices: int) -> list[int]:
    cells = line.split()
    size = _whole(path, number, cells[0], least=1)[0] if cells else 0
    corners = _whole(path, number, " ".join(cells[1 : 1 + size]), least=size)
    if any(not 0 <= corner < vertices for corner in corners):
        raise UserError(
            f"{path}: line {number} names a vertex that is not there (valid: 0 to {vertices - 1})"
        )
    return corners


def _whole(path: Path, number: int, line: str, least: int) -> list[int]:
    try:
        found = [int(cell) for cell in line.split()]
    except ValueError:
        found = []
    if len(found) < least or min(found, default=0) < 0:
        raise UserError(f"{path}: line {number} is {line[:40]!r} (valid: {least} or more whole numbers)")
    return found


def _lines(path: Path) -> list[tuple[int, str]]:
    """The lines of a text with their numbers, without comments and empty ones."""
    try:
        content = path.read_bytes()
        text = content.decode(encoding_of(content, "utf-8"))
    except OSError as error:
        raise UserError(_unreadable(path, error)) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path}: line {line} is no text in UTF-8 (valid: numbers as text, or UTF-16 with its mark)"
        ) from error
    lines = ((number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in lines if line]


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path}: {reason(error)}{from_here(path)} (valid: {', '.join(SUFFIXES)})"
