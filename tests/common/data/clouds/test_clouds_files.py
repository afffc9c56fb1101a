"""Files of clouds and surfaces, read as others write them; what is none is one line with its number."""

from pathlib import Path

import numpy as np
import pytest

from common.base.errors import UserError
from common.data.clouds.cloud_file import read_cloud, read_off, read_points, resampled

POINTS = np.array([[0, 0, 0], [1, 2, 3], [-1.5, 0.25, 1e-3]])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.xyz", "0 0 0\n1 2 3\n-1.5 0.25 1e-3\n"),
        ("a.csv", "x,y,z,label\n0,0,0,7\n1,2,3,7\n-1.5,0.25,1e-3,7\n"),
        ("a.txt", "# by hand\n0; 0; 0\n\n1;\t2; 3 # the second\n-1.5;0.25;1e-3"),
        ("a.pts", "3\n0 0 0\n1 2 3\n-1.5 0.25 1e-3\n"),
        ("a.XYZ", "\ufeff0 0 0\r\n1 2 3\r\n-1.5 0.25 1e-3\r\n"),
    ],
)
def test_texts_give_their_first_three_columns(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_bytes(text.encode())
    assert np.array_equal(read_cloud(path), POINTS)


def test_arrays_give_their_first_three_columns_and_execute_nothing(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.concatenate([POINTS, POINTS], 1).astype(np.float32))
    assert np.array_equal(read_cloud(tmp_path / "a.npy"), POINTS.astype(np.float32))
    np.save(tmp_path / "b.npy", np.array([{}, {}]), allow_pickle=True)
    with pytest.raises(UserError, match="no array of numbers"):
        read_cloud(tmp_path / "b.npy")


@pytest.mark.parametrize(
    "text",
    [
        "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n3 0 1 2\n3 0 2 3\n",
        "OFF4 1 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n",
        "COFF # colours\n4 1 4\n0 0 0 255 0 0\n1 0 0 9 9 9\n1 1 0 9 9 9\n0 1 0 9 9 9\n4 0 1 2 3 1 1 1\n",
    ],
)
def test_surfaces_give_triangles(tmp_path: Path, text: str) -> None:
    vertices, triangles = read_off(written(tmp_path / "a.off", text))
    assert np.array_equal(vertices, [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    assert np.array_equal(triangles, [[0, 1, 2], [0, 2, 3]])
    points, available = read_points(tmp_path / "a.off", 500, np.random.default_rng(0))
    assert available == 500 and (points[:, 2] == 0).all() and points.min() >= 0 and points.max() <= 1


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.xyz", "0 0 0\n", "one point"),
        ("a.xyz", "", "no point"),
        ("a.xyz", "1 2 3\n1 2 3\n", "one point many times"),
        ("a.xyz", "0 0 0\n\n1 nan 0\n", "line 3 holds 1 nan 0"),
        ("a.xyz", "0 0 0\n1 inf 0\n", "line 2 holds 1 inf 0"),
        ("a.csv", "x,y,z\n0,0,0\n1,,0\n", "line 3 has 2 numbers"),
        ("a.csv", "x,y,z\n0,0,0\n1,two,0\n", "line 3 holds 1 two 0"),
        ("a.csv", "0,0\n1,1\n", "line 1 has 2 numbers .*3 or more"),
        ("a.xyz", "0 0 0\n1 1 1 1\n", "line 2 has 4 numbers .*3, as the lines before"),
        ("a.off", "ply\n", "line 1 is not OFF"),
        ("a.off", "OFF\n3 1\n0 0 0\n1 0 0\n0 1 0\n3 0 1 3\n", "line 6 names a vertex that is not there"),
        ("a.off", "OFF\n3 1\n0 0 0\n1 0 0\n0 nan 0\n3 0 1 2\n", "line 5 holds 0 nan 0"),
        (
            "a.off",
            "OFF\n3 2 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n",
            "4 lines behind line 2, which says 3 vertices",
        ),
        ("a.off", "OFF\n3 1 0\n0 0 0\n0 0 0\n0 0 0\n3 0 1 2\n", "no area"),
        ("a.off", "OFF\nthree 1 0\n", "line 2 is 'three 1 0'"),
        ("a.off", "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 1e400\n", "line 6 is '0 1 1e400'"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_is_no_cloud_is_one_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    path = written(tmp_path / name, text)
    with pytest.raises(UserError, match=told) as caught:
        read_points(path, 10, np.random.default_rng(0))
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.npy", "a.xyz", "a.off"])
def test_a_missing_file_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="No such file"):
        read_points(tmp_path / name, 10, np.random.default_rng(0))


def test_another_encoding_is_one_line_with_its_number(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"0,0,0\nh\xf6he,1,2\n")
    with pytest.raises(UserError, match="line 2 is no text in UTF-8"):
        read_cloud(tmp_path / "a.csv")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_text_with_a_mark_of_its_encoding_is_read(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "a.csv").write_bytes("größe,y,z\r\n1,2,3\r\n4,5,6\r\n".encode(encoding))
    assert read_cloud(tmp_path / "a.csv").tolist() == [[1, 2, 3], [4, 5, 6]]


@pytest.mark.parametrize(
    "array", [np.zeros((4, 2)), np.zeros(6), np.array([["a", "b", "c"]]), np.full((3, 3), np.nan)]
)
def test_arrays_of_another_form_are_one_line(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match="valid: "):
        read_cloud(tmp_path / "a.npy")


def test_of_more_points_none_stands_twice_and_of_fewer_all_stand_equally_often() -> None:
    cloud = np.arange(30.0).reshape(10, 3)
    few = resampled(cloud, 7, np.random.default_rng(0))
    assert len(np.unique(few, axis=0)) == 7
    many = resampled(cloud, 25, np.random.default_rng(0))
    assert sorted(set(np.unique(many, axis=0, return_counts=True)[1])) == [2, 3] and len(many) == 25


@pytest.mark.parametrize("text", ["1,5;2;-3,25\n0;1;2\n", "1,5 2 -3,25\n0 1 2\n", "1.5, 2, -3.25\n0, 1, 2\n"])
def test_commas_are_decimal_marks_where_other_signs_separate(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    assert read_cloud(tmp_path / "a.csv").tolist() == [[1.5, 2.0, -3.25], [0.0, 1.0, 2.0]]
