"""The report of a certification run: a page of examples, the sandwich of bounds, all bounds as JSON."""

import base64
import html
import io
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
from torch import Tensor

from papers.sdp_cert.verdicts import Judged

PAGE, SANDWICH, BOUNDS = "examples.html", "sandwich.svg", "bounds.json"
# the examples that the page shows; bounds.json has all
SHOWN = 200
# from below to above, as in the proof: PGD <= exact <= SDP with cuts <= LP <= CROWN <= IBP
ORDER = ("pgd", "exact", "sdp", "lp", "crown", "ibp", "grad_cert")
COLOURS = dict(
    zip(ORDER, ("#b5123f", "#1c2024", "#0b63c4", "#b8480b", "#157a3c", "#8a2fd6", "#7d5308"), strict=True)
)
STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;max-width:75em}table{border-collapse:collapse}
td,th{padding:.3em .7em;border-bottom:1px solid
#8884;text-align:right}img{image-rendering:pixelated;width:56px}
.certified{color:#157a3c}.refuted,.wrong{color:#b5123f}.open{color:#b8480b}"""


def write_pictures(folder: Path, judged: list[Judged], images: Tensor, eps: float) -> None:
    """Write all three into a folder; images [n, 1, h, w] or [n, 3, h, w] in [0, 1]."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / BOUNDS).write_text(json.dumps([asdict(one) for one in judged], indent=1))
    (folder / PAGE).write_text(page(judged, images, eps))
    (folder / SANDWICH).write_text(sandwich(judged, eps))


def page(judged: list[Judged], images: Tensor, eps: float) -> str:
    """HTML: each example with its image, verdict, and the worst bound over the targets by each method."""
    names = [name for name in ORDER if any(one.worst(name) is not None for one in judged)]
    head = "".join(f"<th>{name}</th>" for name in names)
    rows = "".join(_row(one, image, names) for one, image in zip(judged[:SHOWN], images, strict=False))
    more = f"<p>{len(judged) - SHOWN} more in {BOUNDS}.</p>" if len(judged) > SHOWN else ""
    return (
        f"<!doctype html><meta charset=utf-8><title>certificates</title><style>{STYLE}</style>"
        f"<h1>Certificates at eps = {eps:g}</h1><p>Bounds on the largest margin of a wrong class over the "
        "box: below 0 is certified. pgd bounds it from below, exact is its value, the others bound it from "
        "above.</p><table><tr><th></th><th>image</th><th>label</th><th>predicted</th><th>verdict</th>"
        f"{head}</tr>{rows}</table>{more}"
    )


def _row(one: Judged, image: Tensor, names: list[str]) -> str:
    bounds = "".join(f"<td>{'' if (x := one.worst(name)) is None else f'{x:.4g}'}</td>" for name in names)
    verdict = html.escape(one.verdict)
    return (
        f'<tr><td><img alt="test image {one.index}" src="{_png(image)}"></td><td>{one.index}</td>'
        f'<td>{one.label}</td><td>{one.predicted}</td><td class="{verdict}">{verdict}</td>{bounds}</tr>'
    )


def _png(image: Tensor) -> str:
    from PIL import Image

    pixels = (image.clamp(0, 1).permute(1, 2, 0).cpu().numpy() * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def sandwich(judged: list[Judged], eps: float) -> str:
    """SVG: each example's worst bound by each method, in the order of the tightest upper bound."""
    import matplotlib
    from matplotlib.figure import Figure

    right = [one for one in judged if one.verdict != "wrong"]
    names = [name for name in ORDER if any(one.worst(name) is not None for one in right)]

    def tightest(one: Judged) -> float:
        found = [x for name in names if name != "pgd" and (x := one.worst(name)) is not None]
        return min(found, default=one.worst("pgd") or 0.0)

    right.sort(key=tightest)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "reprise", "font.size": 9}):
        canvas = Figure(figsize=(7, 4), facecolor="white")
        axes = canvas.add_axes((0.1, 0.14, 0.87, 0.76))
        axes.axhline(0, color="#8b949e", lw=0.8)
        for name in names:
            ys = [float("nan") if (x := one.worst(name)) is None else x for one in right]
            axes.plot(range(len(ys)), ys, ".-", ms=4, lw=0.8, color=COLOURS[name], label=name)
        axes.set_yscale("symlog", linthresh=1.0)
        axes.set_xlabel("examples with the right clean prediction")
        axes.set_ylabel("largest margin of a wrong class")
        axes.set_title(f"eps = {eps:g}: certified below 0", loc="left")
        if names:
            axes.legend(frameon=False, ncols=4)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
