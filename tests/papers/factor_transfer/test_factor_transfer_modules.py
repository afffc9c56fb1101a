"""Paraphraser, translator and the two stages: shapes, counts, what is trained, what is refused."""

import copy
from functools import partial

import pytest
import torch
from factor_transfer_toys import (
    batch,
    digits,
    factor_transfer,
    net,
    paraphraser,
    stage,
    state,
    unchanged,
)
from torch import nn
from torch.nn import functional

from common.base.errors import UserError
from common.distillation.losses import kd_loss
from common.metrics.parameters import count_parameters
from common.models.features import forward_features
from common.models.resnet import CifarResNet
from common.models.vgg import VGG
from common.models.weightless import weightless
from common.models.wide_resnet import WideResNet
from common.runs.compose import compose
from common.runs.inheritance import stage_run, stage_words
from papers.factor_transfer.factor_transfer import (
    FactorTransfer,
    Paraphraser,
    ParaphraserModel,
    encoder,
    factor_channels,
    factor_loss,
)


def convolution(inputs: int, outputs: int) -> int:
    return 9 * inputs * outputs + outputs


def cifar(depth: int) -> CifarResNet:
    return CifarResNet(shape=(3, 32, 32), classes=10, depth=depth, block="basic", shortcut="B")


@pytest.mark.parametrize(("m", "rate"), [(64, 0.5), (64, 0.75), (64, 4.0), (512, 0.5)])
def test_parameters_are_those_of_six_and_of_three_convolutions(m: int, rate: float) -> None:
    k = factor_channels(m, rate)
    half = convolution(m, m) + convolution(m, k) + convolution(k, k)
    mirrored = convolution(k, k) + convolution(k, m) + convolution(m, m)
    assert count_parameters(Paraphraser(m, rate)) == half + mirrored
    assert count_parameters(encoder(16, k, False)) == convolution(16, 16) + convolution(16, k) + convolution(
        k, k
    )


def test_the_papers_factor_is_32_maps_of_8x8() -> None:
    model = Paraphraser(64, 0.5)
    feature = torch.randn(2, 64, 8, 8)
    assert model.encoder(feature).shape == (2, 32, 8, 8)
    assert model(feature).shape == feature.shape


def test_the_paraphraser_is_the_six_layers_of_the_authors_code() -> None:
    model = Paraphraser(6, 0.5)
    feature = torch.randn(2, 6, 4, 4)
    layers = [layer for half in (model.encoder, model.decoder) for layer in half]
    found = feature
    for number, layer in enumerate(layers[::2]):
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        convolve = functional.conv2d if number < 3 else functional.conv_transpose2d
        found = convolve(found, layer.weight, layer.bias, stride=1, padding=1)
        found = torch.where(found > 0, found, 0.1 * found)
    torch.testing.assert_close(model(feature), found)


def test_batch_normalisation_stands_between_convolution_and_activation() -> None:
    kinds = [type(layer) for layer in encoder(4, 2, True)]
    assert kinds == 3 * [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU]


def test_the_paraphrasers_loss_and_relative_error_are_means_of_absolute_errors() -> None:
    teacher = net(8, 0)
    model = paraphraser(teacher)
    images, _ = batch()
    feature, found = model(images)
    with torch.no_grad():
        expected = forward_features(teacher.eval(), images)[1]["stages.1"]
    torch.testing.assert_close(feature, expected)
    wrong = (found - feature).abs()
    torch.testing.assert_close(model.loss_of((feature, found), images, None), wrong.mean())
    metrics = model.metrics_of((feature, found), images, None)
    torch.testing.assert_close(metrics["loss"], wrong.mean())
    each = [w.sum() / x.abs().sum() for w, x in zip(wrong, feature, strict=True)]
    torch.testing.assert_close(metrics["relative_error"], torch.stack(each).mean())
    model.reconstruction = "mse"
    torch.testing.assert_close(model.loss_of((feature, found), images, None), wrong.square().mean())


def test_training_a_paraphraser_leaves_the_teacher_as_it_was() -> None:
    teacher = net(8, 0)
    before = state(teacher)
    model = paraphraser(teacher)
    own = state(model)
    assert all(name.startswith("paraphraser.") for name in own)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(5):
        optimizer.zero_grad()
        images, _ = batch()
        model.train()
        model.loss_of(model(images), images, None).backward()
        optimizer.step()
    assert unchanged(teacher, before)
    assert not unchanged(model, own)
    assert not teacher.training


def test_the_paraphrasers_error_falls() -> None:
    model = paraphraser(net(8, 0))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, _ = batch(20)
    losses = []
    for _ in range(200):
        optimizer.zero_grad()
        loss = model.loss_of(model(images), images, None)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize("kd_weight", [0.0, 0.9])
def test_the_objective_is_the_sum_of_its_terms(kd_weight: float) -> None:
    teacher, student = net(8, 0), net(4, 1)
    model = paraphraser(teacher)
    method = factor_transfer(teacher, model, ce_weight=0.3, kd_weight=kd_weight, beta=20.0)
    method.attach(student, lambda: net(4, 2), digits())
    images, labels = batch()
    before = state(student)
    loss = method.loss(student, images, labels)
    student.load_state_dict(before)
    logits, features = forward_features(student, images)
    with torch.no_grad():
        theirs, maps = forward_features(teacher.eval(), images)
        factor = model.paraphraser.encoder(maps["stages.1"])
    expected = 0.3 * functional.cross_entropy(logits, labels)
    own = method.translator(features["stages.1"])
    expected = expected + 20 * factor_loss(own, factor, 1, "mean")
    expected = expected + kd_weight * kd_loss(logits, theirs, 4.0, "sample")
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_training_a_student_changes_neither_teacher_nor_paraphraser(batch_norm: bool) -> None:
    teacher, student = net(8, 0), net(4, 1)
    model = paraphraser(teacher, batch_norm=batch_norm)
    method = factor_transfer(teacher, model, batch_norm=batch_norm, kd_weight=0.9)
    method.attach(student, lambda: net(4, 2), digits())
    before = [state(part) for part in (teacher, model, student, method)]
    parameters = [*student.parameters(), *method.parameters()]
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    method.train()
    for _ in range(3):
        optimizer.zero_grad()
        method.loss(student.train(), *batch()).backward()
        optimizer.step()
    assert unchanged(teacher, before[0])
    assert unchanged(model, before[1])
    assert not unchanged(student, before[2])
    assert not unchanged(method, before[3])
    assert all(p.grad is not None for p in parameters)
    frozen = [*teacher.parameters(), *model.paraphraser.encoder.parameters()]
    assert all(p.grad is None for p in frozen)


def test_only_the_translator_is_trained_beside_the_student() -> None:
    teacher, student = net(8, 0), net(4, 1)
    method = factor_transfer(teacher, paraphraser(teacher))
    assert method.attach(student, lambda: net(4, 2), digits()) is student
    assert method.deployed(student) is student
    assert {name.split(".")[0] for name in method.state_dict()} == {"translator"}
    assert count_parameters(method) == convolution(8, 8) + 2 * convolution(8, 8)


def test_two_optimizers_are_one() -> None:
    teacher = net(8, 0)
    model = paraphraser(teacher)
    students = [net(4, 1), net(4, 1)]
    methods = [factor_transfer(teacher, model), factor_transfer(teacher, model)]
    for student, method in zip(students, methods, strict=True):
        method.attach(student, lambda: net(4, 2), digits())
    methods[1].load_state_dict(methods[0].state_dict())
    make = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=5e-4)
    one = [make([*students[0].parameters(), *methods[0].parameters()])]
    two = [make(part.parameters()) for part in (students[1], methods[1])]
    for _ in range(4):
        for student, method, optimizers in zip(students, methods, (one, two), strict=True):
            for optimizer in optimizers:
                optimizer.zero_grad()
            method.loss(student, *batch()).backward()
            for optimizer in optimizers:
                optimizer.step()
    assert unchanged(students[0], state(students[1]))
    assert unchanged(methods[0], state(methods[1]))


def test_without_paraphraser_the_factor_is_the_teachers_last_feature() -> None:
    teacher, student = net(8, 0), net(4, 1)
    method = factor_transfer(teacher, None, rate=1)
    method.attach(student, lambda: net(4, 2), digits())
    images, labels = batch()
    before = state(student)
    loss = method.loss(student, images, labels)
    student.load_state_dict(before)
    logits, features = forward_features(student, images)
    with torch.no_grad():
        feature = forward_features(teacher.eval(), images)[1]["stages.1"]
    distance = factor_loss(method.translator(features["stages.1"]), feature, 1, "mean")
    torch.testing.assert_close(loss, functional.cross_entropy(logits, labels) + 500 * distance)


def test_without_both_and_with_p_2_the_loss_is_the_cosine_of_the_features() -> None:
    teacher, student = net(4, 0), net(4, 1)
    changes = {"rate": 1, "translator": False, "p": 2, "reduction": "norm", "beta": 1.0, "ce_weight": 0.0}
    method = factor_transfer(teacher, None, **changes)
    method.attach(student, lambda: net(4, 2), digits())
    assert not list(method.parameters())
    images, labels = batch(1)
    before = state(student)
    loss = method.loss(student, images, labels)
    student.load_state_dict(before)
    own, theirs = (forward_features(m, images)[1]["stages.1"].flatten() for m in (student, teacher.eval()))
    cosine = functional.cosine_similarity(own, theirs, dim=0)
    assert loss.item() ** 2 == pytest.approx(2 * (1 - cosine.item()), rel=1e-4)


def test_a_student_without_translator_needs_the_factors_shape() -> None:
    teacher, student = net(8, 0), net(4, 1)
    matching = factor_transfer(teacher, paraphraser(teacher, 0.5), translator=False)
    matching.attach(student, lambda: net(4, 2), digits())
    other = factor_transfer(teacher, paraphraser(teacher, 1.0), rate=1.0, translator=False)
    with pytest.raises(UserError, match=r"student's stages\.1 is 8x4x4, the teacher's factor 16x4x4"):
        other.attach(student, lambda: net(4, 2), digits())


def test_the_students_feature_is_its_last_of_the_factors_size() -> None:
    shape = (3, 32, 32)
    student = VGG(
        shape=shape,
        classes=10,
        widths=[[4, 4], [4, 4], [6, 6], [8, 8], [8, 8]],
        batch_norm=True,
        last_pool="max",
        pixels=1,
        hidden=[],
        dropout=0.0,
    )
    teacher = WideResNet(shape=shape, classes=10, depth=10, width=1)
    data = copy.copy(digits())
    data.shape = shape
    method = factor_transfer(teacher, None, rate=1)
    method.attach(student, lambda: student, data)
    assert method.students_feature == "stages.2"
    assert method.teachers_feature == "stages.2"


def test_beta_falls_linearly_if_asked_to() -> None:
    teacher, student = net(8, 0), net(4, 1)
    images, labels = batch()
    changes = {"ce_weight": 0.0, "beta_decay": "linear", "beta": 100.0}
    method = factor_transfer(teacher, paraphraser(teacher), **changes)
    method.attach(student.eval(), lambda: net(4, 2), digits())
    method.epochs = 4.0
    weights = []
    for epoch in range(4):
        method.start_epoch(epoch)
        weights.append(method.loss(student, images, labels).item())
    assert [weight / weights[0] for weight in weights] == pytest.approx([1, 0.75, 0.5, 0.25])


def test_reference_size_makes_up_for_the_size_of_the_factor() -> None:
    teacher, student = net(8, 0), net(4, 1)
    images, labels = batch()
    losses = []
    for reference in (None, 128, 512):
        method = factor_transfer(teacher, paraphraser(teacher), ce_weight=0.0, reference_size=reference)
        torch.manual_seed(5)
        method.attach(student.eval(), lambda: net(4, 2), digits())
        losses.append(method.loss(student, images, labels).item())
    # D = 8 * 4 * 4 = 128
    assert losses[1] == pytest.approx(losses[0])
    assert losses[2] == pytest.approx(losses[0] / 2)


def test_the_factor_loss_of_the_test_split_is_its_mean_over_images() -> None:
    teacher, student, data = net(8, 0), net(4, 1), digits()
    method = factor_transfer(teacher, paraphraser(teacher), ce_weight=0.0, beta=1.0)
    method.attach(student, lambda: net(4, 2), data)
    student.train()
    before = state(student)
    found = method.evaluate(student, data, "test")
    assert method.evaluate(student, data, "train") == {}
    assert unchanged(student, before)
    assert student.training
    inputs, targets = data.batch("test", slice(None), augment=False)
    assert found["test_factor_loss"] == pytest.approx(method.loss(student.eval(), inputs, targets).item())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rate": 1.0}, r"method\.rate=1\.0: the paraphraser was made with 0\.5"),
        ({"paraphraser": None}, r"method\.rate=0\.5: without a paraphraser"),
        ({"paraphraser": stage(net(4, 0))}, r"method\.paraphraser=words: gives a ResNet"),
        ({"teacher": None}, r"method\.teacher=null"),
        ({"temperature": 0.0}, r"method\.temperature=0\.0: must be positive"),
        ({"reference_size": 0}, r"method\.reference_size=0: must be positive"),
    ],
)
def test_a_distiller_of_parts_that_do_not_fit_is_refused(changes: dict[str, object], message: str) -> None:
    teacher = net(8, 0)
    with pytest.raises(UserError, match=message):
        factor_transfer(teacher, paraphraser(teacher), **changes)


@pytest.mark.parametrize(
    ("changes", "student", "message"),
    [
        ({"feature": "stages.9"}, net(4, 1), r"feature=stages\.9: no such feature \(valid: stages\.0 4x8x8"),
        ({"feature": "stages.0"}, net(4, 1), r"factor is 8x4x4, .* stages\.0 4x8x8, stages\.1 8x4x4"),
        ({}, net(4, 1, blocks=1), r"feature=null: the teacher's factor is 8x4x4, .* stages\.0 4x8x8"),
        ({"teacher": stage(net(6, 0))}, net(4, 1), r"feature stages\.1 with 16 channels"),
    ],
)
def test_features_that_do_not_fit_are_refused_with_their_sizes(
    changes: dict[str, object], student: nn.Module, message: str
) -> None:
    teacher = net(8, 0)
    method = factor_transfer(teacher, paraphraser(teacher), **changes)
    with pytest.raises(UserError, match=message):
        method.attach(student, lambda: student, digits())


def test_a_paraphraser_of_no_channels_or_of_no_feature_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.rate=0\.01: 16 channels give 0"):
        paraphraser(net(8, 0), rate=0.01)
    with pytest.raises(UserError, match=r"model\.feature=layer3: no such feature"):
        paraphraser(net(8, 0), feature="layer3")
    with pytest.raises(UserError, match=r"model\.teacher=null"):
        ParaphraserModel(
            shape=(1, 8, 8),
            classes=10,
            teacher=None,
            rate=0.5,
            reconstruction="l1",
            feature=None,
            batch_norm=False,
        )


def test_a_paraphraser_may_be_of_an_earlier_feature() -> None:
    teacher, student = net(8, 0), net(4, 1)
    method = factor_transfer(teacher, paraphraser(teacher, feature="stages.0"))
    assert isinstance(method, FactorTransfer)
    method.attach(student, lambda: net(4, 2), digits())
    assert method.students_feature == "stages.0"
    assert method.loss(student, *batch()).isfinite()


# table 1 prints them in millions, cut off after two digits; the authors' code has option B
COUNTS = [(20, 272_474, 0.27), (56, 855_770, 0.85), (110, 1_730_714, 1.73)]


@pytest.mark.parametrize(("depth", "parameters", "millions"), COUNTS)
def test_the_resnets_have_the_parameters_of_the_authors_code(
    depth: int, parameters: int, millions: float
) -> None:
    assert count_parameters(cifar(depth)) == parameters
    assert int(parameters / 1e4) == round(100 * millions)


@pytest.mark.parametrize(
    ("depth", "width", "parameters", "printed"),
    [(16, 1, 175_066, 0.17), (16, 2, 691_674, 0.69), (40, 1, 563_930, 0.56), (46, 4, 10_499_290, 10)],
)
def test_the_wide_resnets_have_the_parameters_of_table_1(
    depth: int, width: int, parameters: int, printed: float
) -> None:
    with weightless():
        model = WideResNet(shape=(3, 32, 32), classes=10, depth=depth, width=width)
    assert count_parameters(model) == parameters
    last_digit = 1.0 if isinstance(printed, int) else 0.01
    assert 0 <= parameters / 1e6 - printed < last_digit


@pytest.mark.parametrize(("scale", "clip"), [("smoke", 1.0), ("laptop", None)])
def test_only_at_smoke_scale_the_paraphrasers_gradients_are_limited(scale: str, clip: float | None) -> None:
    words = ["entry=factor_transfer.table1.c10_resnet20_from_resnet56_ft", f"scale={scale}", "logger=none"]
    config, request = compose(words)
    text = stage_words(config, "method", "paraphraser")
    assert text is not None
    its, _ = stage_run(text, "paraphraser", config, request)
    assert (its.clip, config.clip) == (clip, None)


@pytest.mark.parametrize("size", [1.0, 1e3, 1e6])
def test_with_limited_gradients_a_paraphraser_survives_features_of_any_size(size: float) -> None:
    """After a step or two a deep teacher has no statistics yet, and its features grow with its depth."""
    torch.manual_seed(0)
    model = Paraphraser(8, 0.5)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    features = size * torch.randn(16, 8, 8, 8).relu()
    for _ in range(6):
        loss = functional.l1_loss(model(features), features)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        assert loss.isfinite() and loss < 10 * size
