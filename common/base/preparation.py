"""How a decoded picture of any size becomes an input of a network: plain data, for torch and ONNX alike."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

# of 8 bits, as pictures are decoded
PICTURE_WHITE = 255
# of a grey value in red, green and blue (ITU-R BT.601, as Pillow's)
GREY = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Preparation:
    """What the evaluation of a run does to a picture before its normalisation.

    The picture, uint8 [H, W, 3] in RGB, is resized bilinearly over the area that a pixel stands for
    (antialiased), in float32 and without rounding; then made grey where the network has one channel, and
    scaled from 0..255 to 0..`white`. The result is float32 [channels, *size], as the data set stores inputs.

    Attributes:
        frame: "centre": of the picture whose shorter side were made `resize` long, the middle of `size` is
            kept (a picture of `size` already is kept whole); "fit": it is scaled to fit into `size`, and what
            is missing at the right and at the bottom is `fill`; "stretch": it is stretched to `size`.
        size: (height, width) of the input.
        channels: 3, or 1 for grey, 0.299 R + 0.587 G + 0.114 B.
        white: the value of a white pixel where inputs are stored.
        resize: of "centre", see there.
        fill: of "fit": one value a channel, as stored.
    """

    frame: Literal["centre", "fit", "stretch"]
    size: tuple[int, int]
    channels: int = 3
    white: float = PICTURE_WHITE
    resize: int = 0
    fill: tuple[float, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As plain JSON data."""
        return asdict(self)

    @classmethod
    def of_json(cls, told: dict[str, Any]) -> "Preparation":
        """What `as_json` gave."""
        return cls(**{**told, "size": tuple(told["size"]), "fill": tuple(told["fill"])})

    def in_words(self) -> str:
        """For the metadata of a file."""
        height, width = self.size
        size = f"{width} x {height}"
        how = {
            "centre": f"if it is not {size} already, its centre, {height}/{self.resize} of its shorter side "
            f"wide and high, scaled to {size}"
            if height == width
            else f"if it is not {size} already, its centre, scaled to {size}",
            "fit": f"scaled to fit into {size}, the rest at the right and at the bottom filled with "
            f"{', '.join(f'{value:g}' for value in self.fill)}",
            "stretch": f"stretched to {size}",
        }[self.frame]
        grey = "" if self.channels == 3 else "; grey, 0.299 R + 0.587 G + 0.114 B"
        white = "" if self.white == PICTURE_WHITE else f"; scaled so that white is {self.white:g}"
        return (
            "the picture as RGB, turned upright by its orientation mark, what is transparent on white; "
            f"{how} (bilinear, antialiased){grey}{white}"
        )


def usual_preparation(kind: str, shape: tuple[int, ...], white: float) -> Preparation | None:
    """The preparation for sets of a kind whose images have one size and need none; None for no pictures.

    Classes are found in the largest square of a picture, masks and boxes in all of it.
    """
    if len(shape) != 3 or shape[0] not in (1, 3):
        return None
    channels, height, width = shape
    if kind == "segmentation":
        return Preparation("fit", (height, width), channels, white, fill=(0.0,) * channels)
    if kind == "detection":
        return Preparation("stretch", (height, width), channels, white)
    return Preparation("centre", (height, width), channels, white, resize=min(height, width))
