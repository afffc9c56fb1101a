"""Pictures with what a network says of them: the likeliest classes, boxes, or the colours of pixels' classes.

Text, lines and margins follow the size of the picture; a small one is enlarged first (whole pixels stay
whole), as no letter would fit into it.
"""

import colorsys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from common.data.images.decoding import Picture
from common.pictures.answers import NO_CLASS, Answer, Classes, Mask, Objects

# the longer side in pixels that a picture is enlarged to at least, in whole multiples
LEAST_SIDE = 384
# letters' height against the longer side, and at least, in pixels
LETTERS, LEAST_LETTERS = 1 / 42, 13
# of a box, against the longer side
LINES = 1 / 300
# how much of a pixel's colour is its class's
TINT = 0.55
# classes that stay as they are: what is nothing of interest
UNTINTED = ("background", "void", "unlabelled")
# classes of pixels in a legend, at most
LEGEND = 12
# turns of the colour wheel between two labels: the golden ratio leaves the largest gaps; each five have a
# lightness of their own
GOLDEN = 0.618034
INK, PAPER = (0, 0, 0), (255, 255, 255)
BAR = (150, 190, 230)

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont
# left, top, right, bottom in pixels
Area = tuple[float, float, float, float]


def colour_of(label: int) -> Colour:
    """The colour of a class, the same for every picture; neighbours in number are far apart in hue."""
    hue = (0.03 + label * GOLDEN) % 1
    saturation, value = ((0.85, 0.95), (0.65, 0.75), (0.95, 0.65))[label // 5 % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)


def ink_on(colour: Colour) -> Colour:
    """Black or white, whichever is read better on a colour."""
    red, green, blue = colour
    return INK if 0.299 * red + 0.587 * green + 0.114 * blue > 140 else PAPER


def drawn(picture: Picture, answer: Answer, names: Sequence[str], top: int) -> Image.Image:
    """A picture with an answer drawn into it or below it.

    Args:
        picture: uint8 [H, W, 3].
        answer: of the network.
        names: of the classes.
        top: classes that are named, at most.
    """
    times = max(1, -(-LEAST_SIDE // max(picture.shape[:2])))
    image = Image.fromarray(picture)
    if times > 1:
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    if isinstance(answer, Classes):
        return _with_bars(image, answer, names, top)
    if isinstance(answer, Objects):
        return _with_boxes(image, answer, names, times)
    return _with_mask(image, answer, names, times)


def ranked(probabilities: Sequence[float] | np.ndarray, top: int) -> list[int]:
    """The labels of the largest probabilities, the largest first; of equal ones the lower label first."""
    order = np.argsort(-np.asarray(probabilities), kind="stable")[:top]
    return [int(label) for label in order]


def shares(mask: Mask) -> dict[int, int]:
    """The number of pixels of each class that occurs, the most frequent first; `NO_CLASS` is none."""
    counts = np.bincount(mask.classes.ravel(), minlength=NO_CLASS + 1)[:NO_CLASS]
    return {int(label): int(counts[label]) for label in np.argsort(-counts, kind="stable") if counts[label]}


def _with_bars(image: Image.Image, answer: Classes, names: Sequence[str], top: int) -> Image.Image:
    """Below the picture a line for each of the likeliest classes: its name, and its probability as a bar."""
    font, space = _font(_letters(image)), _letters(image) // 2
    width, line = max(image.width, LEAST_SIDE), _letters(image) + space
    labels = ranked(answer.probabilities, top)
    canvas = Image.new("RGB", (width, image.height + line * len(labels) + space), PAPER)
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for row, label in enumerate(labels):
        share, y = float(answer.probabilities[label]), image.height + space + row * line
        percent = f"{share:.1%}"
        room = width - 2 * space - draw.textlength("100.0%", font) - space
        draw.rectangle((space, y, space + room, y + line - space // 2), fill=(236, 236, 236))
        draw.rectangle((space, y, space + room * share, y + line - space // 2), fill=BAR)
        name = _cut(names[label], room - 2 * space, font, draw)
        middle = y + (line - space // 2) / 2
        draw.text((2 * space, middle), name, INK, font, anchor="lm")
        draw.text((width - space, middle), percent, INK, font, anchor="rm")
    return canvas


def _with_boxes(image: Image.Image, answer: Objects, names: Sequence[str], times: int) -> Image.Image:
    """A frame around each object, the surest last, and at each its class and its probability.

    Where a text would cover that of a surer object it is left out: colours tell classes, and a picture that
    is full of texts cannot be seen.
    """
    image = image.copy()
    draw, size = ImageDraw.Draw(image), _letters(image)
    font, line, pad = _font(size), max(2, round(max(image.size) * LINES)), size // 4
    found = list(zip((answer.boxes * times).tolist(), answer.scores, answer.labels, strict=True))
    for (x0, y0, x1, y1), _, label in found[::-1]:
        frame = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(frame, outline=colour_of(int(label)), width=line)
    taken: list[Area] = []
    for (x0, y0, _, y1), score, label in found:
        colour = colour_of(int(label))
        text = f"{_cut(names[label], image.width / 2, font, draw)} {score:.0%}"
        wide, high = draw.textlength(text, font) + 2 * pad, size + 2 * pad
        # never beyond the edges; above the box, within it, or below it
        left = max(0.0, min(x0, image.width - wide))
        tops = [top for top in (y0 - high, y0, y1) if 0 <= top <= image.height - high] or [0.0]
        places = [(left, top, left + wide, top + high) for top in tops]
        place = next((one for one in places if not any(_meet(one, other) for other in taken)), None)
        if place is not None:
            taken.append(place)
            draw.rectangle(place, fill=colour)
            middle = left + pad, place[1] + high / 2
            draw.text(middle, text, ink_on(colour), font, anchor="lm")
    return image


def _meet(one: Area, other: Area) -> bool:
    """Whether two areas share a pixel."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _with_mask(image: Image.Image, answer: Mask, names: Sequence[str], times: int) -> Image.Image:
    """The picture tinted by class, and below it the colours of the classes that are seen most."""
    classes = answer.classes.repeat(times, 0).repeat(times, 1)
    colours = np.zeros((NO_CLASS + 1, 3), np.float32)
    tint = np.zeros((NO_CLASS + 1, 1), np.float32)
    counts = shares(answer)
    for label in counts:
        colours[label] = colour_of(label)
        tint[label] = 0 if names[label].lower() in UNTINTED else TINT
    pixels = np.asarray(image, dtype=np.float32)
    mixed = pixels + (colours[classes] - pixels) * tint[classes]
    tinted = Image.fromarray(np.rint(mixed).astype(np.uint8))
    total = answer.classes.size
    entries = [
        (colour_of(label) if tint[label] else None, f"{names[label]} {count / total:.1%}")
        for label, count in list(counts.items())[:LEGEND]
    ]
    return _with_legend(tinted, entries)


def _with_legend(image: Image.Image, entries: list[tuple[Colour | None, str]]) -> Image.Image:
    """Below the picture a field of colour and a text for each entry, as many in a line as fit."""
    size = _letters(image)
    font, space = _font(size), size // 2
    width = max(image.width, LEAST_SIDE)
    measure = ImageDraw.Draw(image)
    texts = [_cut(text, width - size - 3 * space, font, measure) for _, text in entries]
    wide = [size + space + measure.textlength(text, font) + 2 * space for text in texts]
    places, x, row = [], float(space), 0
    for length in wide:
        if x > space and x + length > width:
            x, row = float(space), row + 1
        places.append((x, row))
        x += length
    line = size + space
    canvas = Image.new("RGB", (width, image.height + (row + 1) * line + space), PAPER)
    canvas.paste(image, ((width - image.width) // 2, 0))
    draw = ImageDraw.Draw(canvas)
    for (left, row_), (colour, _), text in zip(places, entries, texts, strict=True):
        y = image.height + space + row_ * line
        draw.rectangle((left, y, left + size, y + size), fill=colour, outline=INK)
        draw.text((left + size + space, y + size / 2), text, INK, font, anchor="lm")
    return canvas


def _letters(image: Image.Image) -> int:
    """The height of letters in pixels."""
    return max(LEAST_LETTERS, round(max(image.size) * LETTERS))


def _cut(text: str, room: float, font: Font, draw: ImageDraw.ImageDraw) -> str:
    """A text of one line, its end left out where it is too long."""
    text = " ".join(text.split())
    if draw.textlength(text, font) <= room:
        return text
    while text and draw.textlength(text + "…", font) > room:
        text = text[:-1]
    return text + "…"


@lru_cache(maxsize=16)
def _font(size: int) -> Font:
    """DejaVu Sans, which comes with matplotlib and has the letters of most of the world's alphabets."""
    from matplotlib import get_data_path

    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"), size)
