"""The loops of SSD's augmentation in machine code (Numba's, see `common.numerics.compiled`).

Constants are float32, as Numba would compute with float64 where one of two numbers is.
"""

import numpy as np
from numba.extending import register_jitable

from common.numerics.compiled import compiled

ZERO, ONE, TWO, THREE, FOUR, SIX, WHITE = (np.float32(number) for number in (0, 1, 2, 3, 4, 6, 255))
CHANNELS = 3


@register_jitable
def within(number: np.float32, least: np.float32, most: np.float32) -> np.float32:
    """The nearest number from `least` to `most`."""
    return min(max(number, least), most)


@compiled
def distort(
    pixels: np.ndarray,
    found: np.ndarray,
    delta: np.float32,
    before: np.float32,
    saturation: np.float32,
    sixths: np.float32,
    after: np.float32,
) -> None:
    """`common.data.detection.augment.recoloured`, with the hue's turn in sixths of its circle.

    A row after the other, and each in three loops over numbers side by side: so the processor does several at
    once.

    Shapes: pixels and found uint8 [h, 3 w], red, green and blue of each pixel; the latter is written.
    """
    height, width = pixels.shape
    levels = np.empty(width, np.float32)
    for row in range(height):
        given, made = pixels[row], found[row]
        for place in range(width):
            levels[place] = within(np.rint((np.float32(given[place]) + delta) * before), ZERO, WHITE)
        for pixel in range(width // CHANNELS):
            at = CHANNELS * pixel
            red, green, blue = levels[at], levels[at + 1], levels[at + 2]
            largest = max(max(red, green), blue)
            spread = largest - min(min(red, green), blue)
            if largest == red:
                ahead = green - blue
            elif largest == green:
                ahead = blue - red + TWO * spread
            else:
                ahead = red - green + FOUR * spread
            # grey has no hue, and no spread either
            hue = ahead / max(spread, ONE) + sixths
            hue -= SIX * np.floor(hue / SIX)
            wanted = min(spread * saturation, largest)
            least = largest - wanted
            levels[at] = least + wanted * within(abs(hue - THREE) - ONE, ZERO, ONE)
            levels[at + 1] = least + wanted * within(TWO - abs(hue - TWO), ZERO, ONE)
            levels[at + 2] = least + wanted * within(TWO - abs(hue - FOUR), ZERO, ONE)
        for place in range(width):
            made[place] = np.uint8(within(np.rint(np.rint(levels[place]) * after), ZERO, WHITE))


@compiled
def take_nearest(pixels: np.ndarray, found: np.ndarray) -> None:
    """`common.data.detection.augment.nearest`.

    Columns are unsigned: those that might be negative, and count from the end, take twice the time.

    Shapes: pixels uint8 [h, w, 3]; found uint8 [height, width, 3], which is written.
    """
    old_height, old_width, _ = pixels.shape
    height, width, _ = found.shape
    down, across = np.float32(old_height / height), np.float32(old_width / width)
    columns = np.empty(width, np.uint64)
    for column in range(width):
        columns[column] = min(int(np.float32(column) * across), old_width - 1)
    for row in range(height):
        given, made = pixels[min(int(np.float32(row) * down), old_height - 1)], found[row]
        for column in range(width):
            old = columns[column]
            made[column, 0], made[column, 1], made[column, 2] = given[old, 0], given[old, 1], given[old, 2]


@compiled
def largest_overlaps(windows: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """The largest IoU of each window with a box, the very numbers of `boxes.iou_matrix`.

    Shapes: windows int64 [n, 4], boxes float32 [k, 4 or more], k at least 1 -> float32 [n].
    """
    found = np.zeros(len(windows), np.float32)
    corners = windows.astype(np.float32)
    for window in range(len(windows)):
        left, top, right, bottom = corners[window]
        for box in boxes:
            across = max(min(right, box[2]) - max(left, box[0]), ZERO)
            down = max(min(bottom, box[3]) - max(top, box[1]), ZERO)
            shared = across * down
            own = max(right - left, ZERO) * max(bottom - top, ZERO)
            union = own + max(box[2] - box[0], ZERO) * max(box[3] - box[1], ZERO) - shared
            if union > 0:
                found[window] = max(found[window], shared / union)
    return found
