"""The loop of non-maximum suppression in machine code (Numba's, see `common.numerics.compiled`)."""

import numpy as np

from common.numerics.compiled import compiled


@compiled
def mark_kept(boxes: np.ndarray, there: np.ndarray, iou: np.floating, kept: np.ndarray) -> None:
    """Mark in `kept` which boxes of each group stay, see `common.detection.nms.suppress`.

    The numbers of each kind (left edges, ...) lie together, and what is done to a box is the same for all: so
    the processor compares several pairs at once. That is why a box is also compared with those before it,
    which are decided: a loop that begins elsewhere than at 0 takes eight times as long.

    Shapes: boxes [groups, k, 4] and `iou` of one type of floats; there and kept bool [groups, k].
    """
    groups, most = there.shape
    zero = boxes.dtype.type(0)
    x0, y0, x1, y1, area = np.empty((5, most), boxes.dtype)
    place = np.empty(most, np.int64)
    over = np.empty(most, np.bool_)
    for group in range(groups):
        count = 0
        for box in range(most):
            if there[group, box]:
                x0[count], y0[count], x1[count], y1[count] = boxes[group, box]
                area[count] = (x1[count] - x0[count]) * (y1[count] - y0[count])
                place[count], over[count] = box, False
                count += 1
        for i in range(count):
            if over[i]:
                continue
            kept[group, place[i]] = True
            left, top, right, bottom, own = x0[i], y0[i], x1[i], y1[i], area[i]
            for j in range(count):
                across = max(min(right, x1[j]) - max(left, x0[j]), zero)
                down = max(min(bottom, y1[j]) - max(top, y0[j]), zero)
                shared = across * down
                over[j] |= shared / (own + area[j] - shared) > iou
