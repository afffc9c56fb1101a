import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.data.shared.decode import OWN_FORMATS, decode_rgb
from common.data.shared.download import DamagedError
from common.data.shared.unreadable import NAMED, fault_of, listed_faults, unreadable

Damage = Callable[[bytes], bytes]
DAMAGES: dict[str, Damage] = {
    "none": lambda content: content,
    "cut in the head": lambda content: content[:30],
    "cut in the middle": lambda content: content[: len(content) // 2],
    "without its last byte": lambda content: content[:-1],
    "without its last tenth": lambda content: content[: -len(content) // 10],
    "empty": lambda content: b"",
    "a page of the net": lambda content: b"<html>404</html>",
    "zeros in the middle": lambda content: (
        content[: len(content) // 3] + bytes(40) + content[len(content) // 3 + 40 :]
    ),
    "something behind it": lambda content: content + b"more",
}


def encoded(form: str, mode: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, form)
    return buffer.getvalue()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "P"), ("WEBP", "RGB"),
     ("GIF", "P"), ("BMP", "RGB"), ("TIFF", "RGB"), ("PPM", "RGB")],
)  # fmt: skip
def test_a_picture_has_a_fault_exactly_where_training_could_not_read_it(
    tmp_path: Path, form: str, mode: str, damage: str
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(DAMAGES[damage](encoded(form, mode)))
    try:
        decode_rgb(str(path), (32, 32), None, lambda what: None, upright=True, formats=OWN_FORMATS)
        read = True
    except DamagedError:
        read = False
    fault = fault_of(str(path), OWN_FORMATS)
    assert (fault is None) == read
    assert fault is None or "\n" not in fault


def test_a_missing_file_and_one_of_another_format_say_so(tmp_path: Path) -> None:
    assert fault_of(str(tmp_path / "none.png")) == "missing"
    (tmp_path / "x").write_bytes(encoded("WEBP", "RGB"))
    assert fault_of(str(tmp_path / "x")) == "not a JPEG or PNG image"
    assert fault_of(str(tmp_path / "x"), OWN_FORMATS) is None
    assert fault_of(str(tmp_path)) == "Is a directory"


@pytest.mark.parametrize("threads", [1, 4])
def test_all_of_many_are_found_whatever_the_number_of_threads(tmp_path: Path, threads: int) -> None:
    content = encoded("JPEG", "RGB")
    paths = [tmp_path / f"{number}.jpg" for number in range(50)]
    for number, path in enumerate(paths):
        path.write_bytes(content[:-500] if number % 7 == 3 else content)
    found = unreadable([str(path) for path in paths], "a test", threads)
    assert sorted(found) == sorted(str(path) for i, path in enumerate(paths) if i % 7 == 3)


def test_of_very_many_the_first_are_named_and_the_rest_counted() -> None:
    found = {f"/data/{number:03}.png": "empty" for number in range(NAMED + 5)}
    text = listed_faults(found, Path("/data"))
    assert text.startswith("000.png (empty), 001.png (empty)") and text.endswith("and 5 more")
