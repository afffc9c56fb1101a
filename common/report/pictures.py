"""Pictures of runs that papers draw themselves, in the colours of the reader's light or dark mode."""

import colorsys
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

from common.report.figures import DARK, MODES, Figure, rules_of, shared_name, themed, with_scale
from common.report.model import Row, Table
from common.runs.result import number
from common.tables.tables import metric_keys

# what the papers' pictures have beside the colours of figures, with what stands for it in dark mode
OWN = {
    "#000000": MODES["#1c2024"],
    "#2a7f3f": DARK[2],
    "#7a3fb5": DARK[3],
    "#0b7f86": DARK[5],
    "#8a6d00": DARK[6],
    "#57606a": DARK[7],
}
# in dark mode: no white plate; text of the colour that is not written down, black; images, such as a table of
# colours with text on its cells, with dark for light
DARK_RULES = (
    'path[style*="fill: #ffffff"]{fill:none!important}'
    f"text{{fill:{MODES['#1c2024']}}}"
    "image{filter:invert(1) hue-rotate(180deg)}"
    'text[style*="fill: #ffffff"]{fill:#1c2024!important}'
)
# of a pale area, such as a box with text in it: the least of its red, green and blue
PALE = 0xD0


def own_pictures(table: Table) -> Iterator[Figure]:
    """What `picture(result)` of the paper's own `pictures.py` draws of each row's first run at each scale.

    Rows of one run have one picture. A paper of the current folder, whose code no `import=` has brought, has
    none.
    """
    name = f"papers.{table.paper}.pictures"
    if find_spec(f"papers.{table.paper}") is None or find_spec(name) is None:
        return
    picture = import_module(name).picture
    drawn: dict[tuple[str, int], list[Row]] = {}
    for row in table.rows:
        for scale, runs in row.runs.items():
            drawn.setdefault((scale, id(runs[0])), []).append(row)
    for (scale, _), rows in drawn.items():
        svg = picture(rows[0].runs[scale][0])
        if svg is not None:
            yield _figure(table, rows, scale, themed(svg, _rules(svg)))


def _rules(svg: str) -> str:
    """What a browser draws in dark mode: other colours, and each pale area as dark as it was light."""
    areas = sorted(set(re.findall(r'<path[^>]*style="[^">]*fill: #(\w{6})', svg)) - {"ffffff"})
    pale = "".join(
        f'path[style*="fill: #{area}"]{{fill:{_darkened(area)}!important}}'
        for area in areas
        if min(bytes.fromhex(area)) >= PALE
    )
    return rules_of(MODES | OWN) + DARK_RULES + pale


def _darkened(colour: str) -> str:
    """A pale colour as a dark one of the same hue, a little above the ground of a dark page."""
    hue, light, saturation = colorsys.rgb_to_hls(*(part / 255 for part in bytes.fromhex(colour)))
    dark = colorsys.hls_to_rgb(hue, 1.1 - light, 0.6 * saturation)
    return f"#{bytes(round(255 * part) for part in dark).hex()}"


def _figure(table: Table, rows: list[Row], scale: str, svg: str) -> Figure:
    """A picture with the label of its rows, and with what each of them reads off the run."""
    run = rows[0].runs[scale][0]
    title = f"{table.id}: {shared_name([row.name for row in rows])}, seed {run['seed']}"
    parts = [f"{table.paper} {with_scale(title, scale)}."]
    for row in rows:
        keys = metric_keys(table.paper, table.id, row.name)
        said = [f"{metric} {number(run['metrics'].get(key))}" for metric, key in keys.items()]
        parts.append(f"{row.name}: {', '.join(said)}.")
    return Figure(f"{table.id}.{rows[0].name}.{scale}.picture", svg, title, " ".join(parts), scale, "picture")
