"""What comes before and after a network in its ONNX file does what torch does, for pictures of any size.

The networks are a line or two of ONNX themselves, so that a file costs no export.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from common.base.preparation import Preparation
from common.data.images.prepared import prepared
from common.detection.nms import STANDARD
from common.detection.priors import prior_boxes
from common.pictures.answers import Classes, Mask, Objects, answers_of
from common.runs.predictor import predictor
from common.runs.whole_onnx import with_ends

onnx = pytest.importorskip("onnx", reason="ONNX is an extra: pip install -e '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[dev]'")

SIZES = [(1, 1), (8, 8), (20, 20), (21, 17), (100, 33), (1, 50), (33, 100), (240, 320)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height + 1000 * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


def core(signature: str, body: str) -> Any:
    return onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 20]>\nnetwork {signature} {{\n{body}\n}}'
    )


def session(model: Any) -> Any:
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


PREPARATIONS = [
    Preparation("centre", (8, 8), 1, 16, resize=9),
    Preparation("centre", (20, 20), resize=23),
    Preparation("centre", (12, 20), resize=14),
    Preparation("stretch", (30, 20)),
    Preparation("stretch", (8, 8), 1, 1.0),
    Preparation("fit", (30, 40), fill=(124.0, 116.0, 104.0)),
    Preparation("fit", (32, 32), 1, 16, fill=(3.5,)),
]


@pytest.mark.parametrize(
    "preparation", PREPARATIONS, ids=lambda one: f"{one.frame}-{one.size}-{one.channels}"
)
def test_every_preparation_is_that_of_torch(preparation: Preparation) -> None:
    (height, width), channels = preparation.size, preparation.channels
    numbers = channels * height * width
    network = core(
        f"(float[b, {channels}, {height}, {width}] images) => (float[b, {numbers}] logits)",
        "small = Constant <value = float {0.01}> ()\n less = Mul (images, small)\n logits = Flatten (less)",
    )
    whole = session(with_ends(network, "classification", preparation, numbers, 0.3))
    assert [one.name for one in whole.get_inputs()] == ["picture"]
    for size in SIZES:
        picture = noise(*size)
        stored = prepared(torch.from_numpy(picture), preparation).stored
        (answer,) = answers_of(
            "classification", (stored * 0.01).flatten()[None], size=preparation.size, filled=[], wholes=[],
            classes=numbers, score=0.3,
        )  # fmt: skip
        assert isinstance(answer, Classes)
        (found,) = whole.run(["probabilities"], {"picture": picture})
        np.testing.assert_allclose(found, answer.probabilities, rtol=1e-4, atol=1e-7, err_msg=str(size))
        assert found.sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("frame", ["fit", "stretch"])
def test_pixels_get_the_class_that_torch_gives_them_whatever_the_pictures_size(
    frame: Any, stride: int
) -> None:
    preparation = Preparation(frame, (24, 36), fill=(9.0, 99.0, 0.0) if frame == "fit" else ())
    network = core(
        "(float[b, 3, 24, 36] images) => (float[b, 3, h, w] logits)",
        f"logits = AveragePool <kernel_shape = [{stride}, {stride}], strides = [{stride}, {stride}]>(images)",
    )
    # the third channel stands for no class
    whole = session(with_ends(network, "segmentation", preparation, 2, 0.3))
    for size in SIZES:
        picture = noise(*size)
        given = prepared(torch.from_numpy(picture), preparation)
        (answer,) = answers_of(
            "segmentation",
            functional.avg_pool2d(given.stored[None], stride),
            size=preparation.size,
            filled=[given.filled],
            wholes=[size],
            classes=2,
            score=0.3,
        )
        assert isinstance(answer, Mask)
        (found,) = whole.run(["classes"], {"picture": picture})
        assert found.shape == answer.classes.shape == size and found.dtype == np.uint8
        assert set(np.unique(found)) <= {0, 1, 255}
        # where two classes are equal but for rounding, either may be named
        assert (found != answer.classes).mean() < 1e-3


def test_the_mask_of_a_picture_that_fits_lies_on_its_classes_and_not_on_the_filling() -> None:
    preparation = Preparation("fit", (16, 16), fill=(0.0, 0.0, 255.0))
    network = core(
        "(float[b, 3, 16, 16] images) => (float[b, 3, 16, 16] logits)", "logits = Identity (images)"
    )
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[:, :30, 0], picture[:, 30:, 1] = 255, 255
    (found,) = session(with_ends(network, "segmentation", preparation, 3, 0.3)).run(
        None, {"picture": picture}
    )
    # blue, the filling, is nowhere; the border is where it was, to half a pixel of the network's
    assert np.array_equal(np.unique(found), [0, 1])
    assert abs(int((found == 0).sum(1)[20]) - 30) <= 3 and (found == found[:1]).all()


def detector(classes: int) -> tuple[Any, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A network whose answer is the same for every picture, and that answer."""
    generator = torch.Generator().manual_seed(classes)
    priors = prior_boxes([(6, 6), (3, 3)], (24, 24), [20.0, 50.0, 90.0], [2.0], whole_pixels=False)
    offsets = torch.randn(1, len(priors), 4, generator=generator)
    logits = 3 * torch.randn(1, len(priors), classes + 1, generator=generator)
    parts = {"offsets": offsets, "logits": logits, "priors": priors}
    network = core(
        f"(float[b, 3, 24, 24] images) => (float[b, {len(priors)}, 4] offsets, "
        f"float[b, {len(priors)}, {classes + 1}] logits, float[{len(priors)}, 4] priors)",
        "\n".join(f"{name} = Identity (the_{name})" for name in parts),
    )
    for name, tensor in parts.items():
        network.graph.initializer.append(onnx.numpy_helper.from_array(tensor.numpy(), f"the_{name}"))
    return network, offsets, logits, priors


@pytest.mark.parametrize("classes", [1, 3, 20])
@pytest.mark.parametrize("score", [0.01, 0.3, 0.9999999])
def test_boxes_are_decoded_suppressed_and_sorted_as_by_torch(classes: int, score: float) -> None:
    network, *outputs = detector(classes)
    preparation = Preparation("stretch", (24, 24))
    whole = session(with_ends(network, "detection", preparation, classes, score))
    for size in ((1, 1), (480, 640)):
        (answer,) = answers_of(
            "detection", outputs, size=(24, 24), filled=[], wholes=[size], classes=classes, score=score
        )
        assert isinstance(answer, Objects)
        boxes, scores, labels = whole.run(["boxes", "scores", "labels"], {"picture": noise(*size)})
        np.testing.assert_allclose(boxes, answer.boxes, atol=1e-5 * max(size))
        np.testing.assert_allclose(scores, answer.scores, rtol=1e-5)
        assert np.array_equal(labels, answer.labels)
        assert (
            len(scores) <= STANDARD["keep"]
            and (np.diff(scores) <= 0).all()
            and (scores > np.float32(score)).all()
        )
        assert boxes.min(initial=0) >= 0 and (boxes[:, [0, 2]] <= size[1]).all()
    assert len(scores) > 10 or score > 0.99


@pytest.mark.parametrize("whole", [True, False])
def test_a_detectors_file_is_asked_for_boxes_whole_or_in_parts(tmp_path: Path, whole: bool) -> None:
    network, *outputs = detector(3)
    preparation = Preparation("stretch", (24, 24))
    told = {"task": "detection", "classes": 3, "class_names": ["a", "b", "c"], "shape": [3, 24, 24]}
    told |= {"picture": preparation.as_json(), "whole": whole, "input_range": [0, 255], "score": 0.3}
    model = with_ends(network, "detection", preparation, 3, 0.3) if whole else network
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in told.items()}
    onnx.helper.set_model_props(model, texts)
    onnx.save(model, tmp_path / "net.onnx")
    asked = predictor([str(tmp_path / "net.onnx")])
    assert asked.told.class_names == ["a", "b", "c"]
    (found,) = asked.answers([noise(30, 50)], 0.5)
    (wanted,) = answers_of(
        "detection", outputs, size=(24, 24), filled=[], wholes=[(30, 50)], classes=3, score=0.5
    )
    assert isinstance(found, Objects) and isinstance(wanted, Objects) and len(found.scores) > 5
    np.testing.assert_allclose(found.boxes, wanted.boxes, atol=1e-3)
    np.testing.assert_allclose(found.scores, wanted.scores, rtol=1e-5)
    assert np.array_equal(found.labels, wanted.labels)
