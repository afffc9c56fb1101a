"""`predict.py`: any network on any picture, in whatever form the network is; what goes wrong is one line."""

import json
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pages import blocks, chapter, commands
from PIL import Image
from sklearn.datasets import load_digits

from common.base.errors import UserError
from common.runs import pictures as reading
from common.runs.compose import compose
from common.runs.export import Options as Export
from common.runs.export import export
from common.runs.own import opt_in
from common.runs.predict import OF_FILES, OF_PICTURES, Options, divided, main, predict
from common.runs.predict_files import TAKES
from common.runs.runner import execute
from common.runs.whole_onnx import ANSWERS

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
]
WORDS = ["scale=smoke", "logger=none", "trainer=cpu"]
# the stated tolerance of an ONNX file against predict.py: of probabilities, of boxes in pixels, and the share
# of pixels whose class may be another
PROBABILITY, BOXES, PIXELS = 1e-4, 0.1, 1e-3


def made(folder: Path, *words: str) -> tuple[list[str], Path]:
    """Make a run; its words and its folder."""
    asked = [*words, *WORDS, f"output_dir={folder}"]
    return asked, execute(*compose(asked)).path.parent


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A classifier that has learnt something."""
    words = ["paper=yogi", "dataset=digits", "dataset.limit=400", "model=mlp", "method.lr=0.01"]
    return made(tmp_path_factory.mktemp("digits"), *words, "paper.epochs=8")


@pytest.fixture(scope="module")
def masks(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """A segmenter, whose logits are coarser than the picture."""
    folder = tmp_path_factory.mktemp("masks")
    file = folder / "net_of_pixels.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n    def __init__(self, classes):\n"
        "        super().__init__(nn.Conv2d(1, 8, 5, 2, 2), nn.ReLU(), nn.Conv2d(8, classes, 3, padding=1))\n"
    )
    opt_in(str(file))
    words = ["paper=moonshine", "dataset=digit_masks", "method=distillation/none", "dataset.limit=64"]
    words += ["dataset.side=24", f"import={file}", "model._target_=net_of_pixels.Net"]
    return made(folder, *words)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Pictures of digits of several sizes and modes."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    images = [
        Image.fromarray((image * 255 / 16).astype(np.uint8)) for image in load_digits().images[1400:1406]
    ]
    images[0].save(folder / "small.png")
    images[1].resize((300, 240), Image.Resampling.BICUBIC).convert("RGB").save(folder / "large.jpg")
    images[2].resize((50, 90)).convert("CMYK").save(folder / "more" / "large.jpg")
    Image.new("LA", (1, 1), (200, 9)).save(folder / "more" / "one.png")
    return folder


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def asked(tmp_path: Path, network: list[str], *given: Path, **options: Any) -> list[dict[str, Any]]:
    """The lines of answers."""
    options = {"to": tmp_path / "out"} | options
    done = predict(network, list(given), Options(**options))
    found = lines(options["to"])
    assert len(found) == done.pictures + len(done.faults)
    return found


def probabilities(found: list[dict[str, Any]]) -> np.ndarray:
    """Of all classes by their label: [pictures, classes]."""
    return np.array(
        [
            [one["probability"] for one in sorted(line["classes"], key=lambda one: one["label"])]
            for line in found
        ]
    )


def test_a_run_is_named_by_its_words_its_folder_or_its_result(
    tmp_path: Path, photos: Path, digits: tuple[list[str], Path]
) -> None:
    words, folder = digits
    found = asked(tmp_path, words, photos)
    assert [Path(line["picture"]).name for line in found] == [
        "large.jpg",
        "small.png",
        "large.jpg",
        "one.png",
    ]
    # small.png is a picture of the test set, as it is stored there
    assert found[1]["classes"][0]["class"] == "2" and len(found[1]["classes"]) == 5
    assert found[1]["width"] == found[1]["height"] == 8
    for network in ([str(folder)], [str(folder / "result.json")]):
        assert asked(tmp_path, network, photos) == found


def test_every_exported_form_gives_what_the_run_gives(
    tmp_path: Path, photos: Path, digits: tuple[list[str], Path]
) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    words, _ = digits
    own = probabilities(asked(tmp_path, words, photos, top=10))
    assert own.shape == (4, 10) and np.ptp(own) > 0.1
    forms = {
        "whole": Export("both", tmp_path / "whole" / "net", latency=False),
        "batches": Export("onnx", tmp_path / "batches.onnx", latency=False, whole=False),
        "bare": Export("onnx", tmp_path / "bare.onnx", latency=False, normalise=False),
    }
    files = {name: export(words, options).files for name, options in forms.items()}
    for network in (*files["whole"], *files["batches"], *files["bare"], tmp_path / "whole"):
        found = probabilities(asked(tmp_path, [str(network)], photos, top=10))
        np.testing.assert_allclose(found, own, atol=PROBABILITY)
    # and onnxruntime alone, on a picture as Pillow decodes it
    session = onnxruntime.InferenceSession(str(files["whole"][1]))
    picture = np.asarray(Image.open(photos / "large.jpg").convert("RGB"))
    (alone,) = session.run(None, {"picture": picture})
    np.testing.assert_allclose(alone, own[0], atol=PROBABILITY)
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["class_names"]) == list("0123456789") and told["task"] == "classification"
    assert json.loads(told["whole"]) is True and "of any size" in told["inputs"]
    assert "white is 16" in told["preparation"]


def test_a_segmenter_names_each_pixel_of_the_picture_and_so_does_its_file(
    tmp_path: Path, photos: Path, masks: tuple[list[str], Path]
) -> None:
    words, _ = masks
    own = asked(tmp_path, words, photos)
    seen = {line["mask"]: np.asarray(Image.open(line["mask"])) for line in own}
    for line in own:
        mask = seen[line["mask"]]
        assert mask.shape == (line["height"], line["width"]) and mask.dtype == np.uint8
        counts = {one["label"]: one["pixels"] for one in line["classes"]}
        assert counts == {int(k): int((mask == k).sum()) for k in np.unique(mask)}
        assert sum(one["share"] for one in line["classes"]) == pytest.approx(1, abs=1e-4)
        assert list(counts.values()) == sorted(counts.values(), reverse=True)
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    (state, onnx) = export(words, Export("both", tmp_path / "net", latency=False)).files
    for network in (state, onnx):
        for line in asked(tmp_path, [str(network)], photos, to=tmp_path / "again"):
            twin = seen[str(line["mask"]).replace("again", "out")]
            assert (np.asarray(Image.open(line["mask"])) != twin).mean() < PIXELS


def test_a_broken_file_among_good_ones_is_named_and_the_others_are_done(
    tmp_path: Path,
    photos: Path,
    digits: tuple[list[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (photos / "broken.jpg").write_bytes((photos / "large.jpg").read_bytes()[:300])
    (photos / "empty.png").touch()
    (photos / "notes.txt").write_text("left out")
    monkeypatch.setattr(sys, "argv", ["predict.py", str(digits[1]), str(photos), f"to={tmp_path / 'out'}"])
    assert main() == 1
    out, errors = capsys.readouterr()
    assert "4 pictures in " in out and "images a second" in out
    assert out.splitlines()[-1] == f"predictions: {tmp_path / 'out' / 'predictions.jsonl'}"
    named = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert [Path(line.split(": ")[1]).name for line in named] == ["broken.jpg", "empty.png"]
    assert "damaged" in named[0] and "left out, as no pictures: 1 .txt" in errors
    found = lines(tmp_path / "out")
    assert [Path(line["picture"]).name for line in found if "error" in line] == ["broken.jpg", "empty.png"]
    assert all(Path(line["annotated"]).is_file() for line in found if "error" not in line)
    # all broken: nothing is done, and that is said too
    monkeypatch.setattr(
        sys, "argv", ["predict.py", str(digits[1]), str(photos / "empty.png"), f"to={tmp_path}"]
    )
    assert main() == 1


def test_annotated_pictures_lie_as_the_pictures_do_and_never_over_them(
    tmp_path: Path, photos: Path, digits: tuple[list[str], Path]
) -> None:
    network = [str(digits[1])]
    other = tmp_path / "other"
    shutil.copytree(photos / "more", other)
    Image.new("L", (9, 9)).save(other / "small.webp")
    # a file that is named twice is answered once
    found = asked(tmp_path, network, photos, photos / "small.png", other)
    targets = [str(Path(line["annotated"]).relative_to(tmp_path / "out")) for line in found]
    photos_own = ["large.jpg", "small.png", "more/large.jpg", "more/one.png"]
    assert targets == [*photos_own, "large-2.jpg", "one.png", "small-2.png"]
    before = (photos / "large.jpg").read_bytes()
    with pytest.raises(
        UserError, match=r"would replace the picture .*large\.jpg itself \(valid: another folder"
    ):
        asked(tmp_path, network, photos, to=photos)
    assert (photos / "large.jpg").read_bytes() == before
    # what was written into a folder of pictures is no picture of the next call
    first = asked(tmp_path, network, photos, to=photos / "out")
    assert asked(tmp_path, network, photos, to=photos / "out") == first


def test_animations_are_taken_frame_by_frame(tmp_path: Path, digits: tuple[list[str], Path]) -> None:
    frames = [
        Image.fromarray((image * 255 / 16).astype(np.uint8)).resize((80, 80))
        for image in load_digits().images[1400:1407]
    ]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    found = asked(tmp_path, [str(digits[1])], tmp_path / "clip.gif", every=3)
    assert [line["frame"] for line in found] == [0, 3, 6]
    assert [Path(line["annotated"]).parent.name for line in found] == ["clip"] * 3
    singles = []
    for number in (0, 3, 6):
        frames[number].convert("RGB").save(tmp_path / f"{number}.png")
        singles += asked(tmp_path, [str(digits[1])], tmp_path / f"{number}.png", top=10)
    every = asked(tmp_path, [str(digits[1])], tmp_path / "clip.gif", every=3, top=10)
    np.testing.assert_allclose(probabilities(every), probabilities(singles), atol=0.02)


def test_a_video_without_a_reader_is_one_line_and_the_pictures_beside_it_are_done(
    tmp_path: Path, photos: Path, digits: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "film.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    monkeypatch.setattr(reading, "find_spec", lambda name: None)
    found = asked(tmp_path, [str(digits[1])], photos)
    (fault,) = [line["error"] for line in found if "error" in line]
    assert "pip install av" in fault and "animated GIF" in fault
    assert len(found) == 5


@pytest.mark.parametrize("reader", list(reading.READERS))
def test_a_videos_frames_are_read_where_a_package_for_it_is_installed(tmp_path: Path, reader: str) -> None:
    pytest.importorskip(reader, reason=f"pip install {reading.READERS[reader]}")
    path = tmp_path / "film.mp4"
    _film(path)
    frames = list({"av": reading._by_av, "cv2": reading._by_opencv}[reader](path))
    assert len(frames) == 5 and frames[0].shape == (48, 64, 3)
    # a red that grows
    assert np.diff([int(frame[24, 32, 0]) for frame in frames]).min() > 20
    path.write_bytes(b"no film")
    with pytest.raises(reading.DamagedError, match="not a video"):
        list({"av": reading._by_av, "cv2": reading._by_opencv}[reader](path))


def _film(path: Path) -> None:
    """Five frames of 64 x 48 whose red grows."""
    av = pytest.importorskip("av", reason="pip install av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(5):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[..., 0] = 50 * number
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_a_network_of_ones_own_and_a_pruned_one_go_by_the_files_that_export_wrote(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.runs.own._opted", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    file = tmp_path / "own_to_predict.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self, classes):\n        super().__init__(nn.Flatten(), nn.Linear(64, classes))\n"
    )
    opt_in(str(file))
    imported = f"import={file}"
    words, folder = made(
        tmp_path, "paper=yogi", "dataset=digits", imported, "model._target_=own_to_predict.Net"
    )
    own = asked(tmp_path, [str(folder), imported], photos)
    (state,) = export(words, Export("state_dict", tmp_path / "deployed" / "net", latency=False)).files
    assert asked(tmp_path, [imported, str(state)], photos) == own
    monkeypatch.setattr("common.runs.own._opted", {})
    with pytest.raises(UserError, match=r"net\.json: .*own_to_predict\.Net.*import="):
        asked(tmp_path, [str(state)], photos)
    start = "start=method=optimizer/adam"
    words, folder = made(
        tmp_path,
        "paper=yogi",
        "dataset=digits",
        "model=resnet8",
        "method=pruning/channels",
        "method.rate=0.5",
        start,
    )
    own = asked(tmp_path, [str(folder)], photos)
    export(words, Export("state_dict", tmp_path / "small" / "net.pt", latency=False))
    assert asked(tmp_path, [str(tmp_path / "small")], photos) == own


def test_networks_that_are_not_for_pictures_are_refused_with_what_is(tmp_path: Path, photos: Path) -> None:
    words, _ = made(tmp_path, "paper=yogi", "dataset=wine")
    with pytest.raises(UserError, match=r"takes rows of a table: .*evaluate\.py \.\.\. dataset=table"):
        asked(tmp_path, words, photos)
    words, _ = made(tmp_path, "paper=yogi", "model=autoencoder_digits", "dataset.normalise=unit_interval")
    with pytest.raises(UserError, match=r"is for reconstruction: predict\.py is for classification, segment"):
        asked(tmp_path, words, photos)
    with pytest.raises(UserError, match="trains no network"):
        asked(tmp_path, ["paper=spider", f"output_dir={tmp_path}"], photos)


def test_an_option_that_the_network_does_not_heed_is_one_line(
    tmp_path: Path, photos: Path, digits: tuple[list[str], Path]
) -> None:
    network, pictures, options = divided([str(digits[1]), str(photos), "score=0.5", f"to={tmp_path / 'out'}"])
    line = r"^score= does nothing for a network for classification \(valid: to=, top=, every=\)$"
    with pytest.raises(UserError, match=line):
        predict(network, pictures, options)
    assert not options.to.exists()
    told = Options(said=("to", "top"))
    told.refuse_idle(OF_FILES["point_cloud_classification"], "clouds")
    with pytest.raises(UserError, match=r"^top= does nothing for texts \(valid: to=, encoding=\)$"):
        told.refuse_idle(OF_FILES["translation"], "texts")


def test_options_are_known_of_all_that_is_answered() -> None:
    assert set(OF_PICTURES) == set(ANSWERS)
    assert set(OF_FILES) == set(TAKES)


def test_what_is_asked_wrongly_is_one_line(
    tmp_path: Path, photos: Path, digits: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = [str(digits[1])]
    for words, said in {
        "": "name a network first",
        "paper=yogi": r"paper=yogi is the network; name files after it",
        "net.onnx": r"net\.onnx is the network; name files",
        "paper=yogi photos top=0": r"top=0: give a whole number of at least 1",
        "paper=yogi photos score=2": r"score=2: give a probability",
        "paper=yogi photos every=x": r"every=x: give a whole number",
    }.items():
        with pytest.raises(UserError, match=said):
            divided(shlex.split(words))
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        asked(tmp_path, network, Path("nowhere"))
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match=r"bare holds no picture \(valid: \.jpg"):
        asked(tmp_path, network, tmp_path / "bare")
    with pytest.raises(UserError, match=r"bare: no finished run there"):
        asked(tmp_path, ["bare"], photos)
    (tmp_path / "x.onnx").write_bytes(b"no network")
    with pytest.raises(UserError, match=r"x\.onnx is no ONNX file"):
        asked(tmp_path, ["x.onnx"], photos)
    torch.save({}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"x\.json, which says how its network is built, is missing"):
        asked(tmp_path, ["x.pt"], photos)
    (tmp_path / "x.json").write_text(
        json.dumps(
            {
                "task": "classification",
                "classes": 2,
                "shape": [3, 4, 4],
                "network": {"_target_": "os.system"},
                "picture": {"frame": "stretch", "size": [4, 4], "fill": []},
            }
        )
    )
    with pytest.raises(UserError, match=r"x\.json: network\._target_=os\.system: configs may only name"):
        asked(tmp_path, ["x.pt"], photos)
    told = json.loads((tmp_path / "x.json").read_text())
    settings = {"_target_": "common.models.linear.LogisticRegression", "shape": [3, 4, 4], "classes": 3}
    for given, said in {
        "wrong": r"takes no 'wrong'",
        "alpha": "holds no weights of the network that",
    }.items():
        known = {**settings, "regulariser": "none", "bias": True, "alpha": 0.0, given: 0.0}
        (tmp_path / "x.json").write_text(json.dumps({**told, "network": known}))
        with pytest.raises(UserError, match=said):
            asked(tmp_path, ["x.pt"], photos)
    with pytest.raises(UserError, match=r"y\.onnx: no such file"):
        asked(tmp_path, ["y.onnx"], photos)
    with pytest.raises(UserError, match=r"name x\.pt alone, not with seed=1"):
        asked(tmp_path, ["x.pt", "seed=1"], photos)


def test_the_page_on_pictures_holds_as_written(
    tmp_path: Path,
    photos: Path,
    digits: tuple[list[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    monkeypatch.chdir(tmp_path)
    photos.joinpath("large.jpg").rename(photos / "seven.jpg")
    frames = [Image.new("L", (20, 20), shade) for shade in (0, 90, 180)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:])
    words, folder = digits
    mine = Path("outputs/yogi/0123456789ab")
    page = chapter("Pictures in, answers out")
    shown, code = blocks("", page)[0], blocks("python", page)[0]
    # what other pages say of it stands here too
    assert set(commands("python predict.py")) == set(commands("python predict.py", shown))
    for command in commands("python", shown):
        program, *given = shlex.split(command)[1:]
        if program == "run.py":
            # as the fixture has made it, but for its length
            assert given == ["paper=yogi", "dataset=digits"]
            continue
        given = [str(folder) if word == str(mine) else word for word in given]
        given = [more for word in given for more in (words if word == "paper=yogi" else [word])]
        if program == "export.py":
            from common.runs.export import main as exporting

            monkeypatch.setattr(sys, "argv", ["export.py", *given, "latency=false"])
            assert exporting() == 0
            continue
        monkeypatch.setattr(sys, "argv", ["predict.py", *given])
        assert main() == 0, command
        assert "images a second" in capsys.readouterr().out
    scope: dict[str, Any] = {}
    exec(code, scope)
    (line,) = asked(tmp_path, words, photos / "seven.jpg", top=10)
    np.testing.assert_allclose(scope["probabilities"], probabilities([line])[0], atol=PROBABILITY)
    assert scope["names"][int(scope["probabilities"].argmax())] == line["classes"][0]["class"]


def same(found: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether two objects are one, within the stated tolerance."""
    return (
        found["label"] == wanted["label"]
        and abs(found["score"] - wanted["score"]) <= PROBABILITY
        and float(np.abs(np.subtract(found["box"], wanted["box"])).max()) <= BOXES
    )


def test_a_detector_gives_boxes_in_pixels_of_the_picture_and_so_does_its_file(
    tmp_path: Path, photos: Path
) -> None:
    words = [
        "paper=yogi",
        "dataset=digit_scenes",
        "model=ssd_digits",
        "method=optimizer/adam",
        "method.lr=0.003",
    ]
    words += ["dataset.limit=64", "dataset.batch_size=16", "dataset.source=synthetic", "paper.epochs=4"]
    words, _ = made(tmp_path, *words)
    score = 0.1
    own = asked(tmp_path, words, photos, score=score)
    assert sum(len(line["objects"]) for line in own) > 0
    for line in own:
        scores = [one["score"] for one in line["objects"]]
        assert scores == sorted(scores, reverse=True) and min(scores, default=1) > score
        for one in line["objects"]:
            x0, y0, x1, y1 = one["box"]
            assert 0 <= x0 <= x1 <= line["width"] and 0 <= y0 <= y1 <= line["height"]
            assert one["class"] == str(one["label"])
    pytest.importorskip("onnxscript", reason="ONNX is an extra: pip install -e '.[export]'")
    pytest.importorskip("onnxruntime", reason="pip install -e '.[export]'")
    whole = export(words, Export("both", tmp_path / "net", latency=False, score=score)).files
    for network in whole:
        for line, twin in zip(asked(tmp_path, [str(network)], photos, score=score), own, strict=True):
            for one, other in ((line, twin), (twin, line)):
                # but for those that are at the threshold
                sure = [found for found in one["objects"] if found["score"] > score + 1e-3]
                assert all(any(same(found, wanted) for wanted in other["objects"]) for found in sure)
    with pytest.raises(UserError, match=r"score=0\.05: .*net\.onnx gives boxes above 0\.1 alone"):
        asked(tmp_path, [str(whole[1])], photos, score=0.05)
