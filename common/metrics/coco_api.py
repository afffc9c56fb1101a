"""COCO's average precision by its own code, the package pycocotools, which is its definition."""

import contextlib
import io
from typing import Any

import torch
from torch import Tensor

from common.base.errors import UserError
from common.metrics.average_precision import Found, Objects


def coco_api_ap(found: Found, objects: Objects, classes: int) -> Tensor:
    """As `common.metrics.average_precision.coco_ap`, by pycocotools: float64 [10, classes].

    Raises:
        UserError: pycocotools is not installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise UserError(
            "COCO's own evaluation needs the package pycocotools: pip install pycocotools"
        ) from error
    images = sorted({*found.image.tolist(), *objects.image.tolist()})
    truth: Any = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": image} for image in images],
        "categories": [{"id": label} for label in range(classes)],
        "annotations": [
            {**row, "id": number, "iscrowd": int(crowd)}
            for number, (row, crowd) in enumerate(zip(_rows(objects), objects.ignored, strict=True), 1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        scored = [{**row, "score": float(s)} for row, s in zip(_rows(found), found.scores, strict=True)]
        if not scored:
            wanted = torch.zeros(classes).index_fill(0, objects.label[~objects.ignored], 1.0)
            return torch.where(wanted > 0, 0.0, torch.nan).double().expand(10, -1)
        evaluation: Any = COCOeval(truth, truth.loadRes(scored), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # thresholds, recalls, classes, all areas, the 100 surest
    precision = torch.from_numpy(evaluation.eval["precision"])[:, :, :, 0, -1]
    return torch.where(precision < 0, torch.nan, precision).mean(dim=1)


def _rows(boxes: Found | Objects) -> list[dict[str, Any]]:
    """Boxes as COCO's files have them: x, y, width, height."""
    sides = boxes.boxes[:, 2:] - boxes.boxes[:, :2]
    rows = torch.cat([boxes.boxes[:, :2], sides], dim=1).tolist()
    areas = sides.prod(1).tolist()
    labels, images = boxes.label.tolist(), boxes.image.tolist()
    return [
        {"image_id": image, "category_id": label, "bbox": row, "area": area}
        for image, label, row, area in zip(images, labels, rows, areas, strict=True)
    ]
