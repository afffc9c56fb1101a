"""Checksums are compared and said, folders are made once and whole, archives stay inside their folder."""

import hashlib
import io
import multiprocessing
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from common.base.errors import UserError
from common.data.shared.download import DamagedError
from common.data.shared.prepare import Checksum, bar, check_content, check_file, prepare, unpack

CONTENT = b"content"
MD5 = hashlib.md5(CONTENT).hexdigest()
OTHER = "0" * 32


def fault(act: Callable[[], object]) -> str:
    with pytest.raises(DamagedError) as error:
        act()
    message = str(error.value)
    assert message and "\n" not in message
    return message


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    return path


def test_the_right_checksum_passes_and_says_nothing(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verify in (True, False):
        check_file(file, Checksum(MD5, True), verify)
        check_file(file, None, verify)
        check_content(file, CONTENT, [Checksum(OTHER, True), Checksum(MD5, False)], verify)
        check_content(file, CONTENT, [], verify)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("confirmed", [True, False])
def test_another_checksum_is_damage_and_an_unconfirmed_one_is_said_to_be_so(
    file: Path, confirmed: bool
) -> None:
    for act in (
        lambda: check_file(file, Checksum(OTHER, confirmed), True),
        lambda: check_content(file, CONTENT, [Checksum(OTHER, confirmed)], True),
    ):
        message = fault(act)
        assert message.startswith(f"md5 {MD5} instead of {OTHER}")
        assert ("unconfirmed" in message and "dataset.verify=false" in message) != confirmed


def test_without_verify_another_checksum_is_one_line_on_stderr(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_file(file, Checksum(OTHER, True), verify=False)
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith(f"{file}: md5 {MD5} instead of {OTHER}") and "dataset.verify=false" in err


def make_together(parent: Path, start: Barrier) -> None:
    def fill(scratch: Path) -> None:
        with (parent / "log").open("a") as log:
            log.write("made\n")
        (scratch / "a").write_text("1")
        (scratch / "b").write_text("2")

    start.wait()
    folder = prepare(parent / "set", fill)
    assert sorted(path.name for path in folder.iterdir()) == ["a", "b"]


def test_of_processes_at_once_one_makes_the_folder_and_all_find_it_whole(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(3)
    children = [fork.Process(target=make_together, args=(tmp_path, start)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=600)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert (tmp_path / "log").read_text() == "made\n"


@pytest.mark.parametrize("error", [DamagedError("bad"), UserError("bad"), KeyboardInterrupt()])
def test_a_make_that_fails_leaves_nothing_and_its_error_goes_on(tmp_path: Path, error: BaseException) -> None:
    def fill(scratch: Path) -> None:
        (scratch / "a").write_text("1")
        raise error

    with pytest.raises(type(error)):
        prepare(tmp_path / "set", fill)
    assert [path.name for path in tmp_path.iterdir()] == [".set.lock"]
    assert prepare(tmp_path / "set", lambda scratch: None) == tmp_path / "set"


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / ".set.partial").mkdir()
    (tmp_path / ".set.partial" / "half").write_text("1")
    prepare(tmp_path / "set", lambda scratch: None)
    assert not list((tmp_path / "set").iterdir())


def test_a_folder_that_is_there_is_not_made_again(tmp_path: Path) -> None:
    def refuse(scratch: Path) -> None:
        raise AssertionError("made again")

    (tmp_path / "set").mkdir()
    assert prepare(tmp_path / "set", refuse) == tmp_path / "set"
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/set cannot be made \(File exists"):
        prepare(tmp_path / "file" / "set", lambda scratch: None)


MEMBERS = {"set/a.txt": b"a" * 10_000, "set/deep/b.txt": os.urandom(100_000)}


def tarred(mode: str, members: dict[str, bytes], *links: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w{mode}") as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        for link in links:
            tar.addfile(link)
    return buffer.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in members.items():
            packed.writestr(name, content)
    return buffer.getvalue()


ARCHIVES = {mode: tarred(mode, MEMBERS) for mode in ("", ":gz", ":bz2", ":xz")} | {"zip": zipped(MEMBERS)}


def unpacked(tmp_path: Path, content: bytes) -> Path:
    """The folder `inside/target`, into which an archive of this content was unpacked."""
    archive = tmp_path / "archive"
    archive.write_bytes(content)
    target = tmp_path / "inside" / "target"
    target.mkdir(parents=True)
    unpack(archive, target, "set")
    return target


@pytest.mark.parametrize("kind", ARCHIVES)
def test_every_member_is_unpacked_as_it_is(tmp_path: Path, kind: str) -> None:
    target = unpacked(tmp_path, ARCHIVES[kind])
    assert {name: (target / name).read_bytes() for name in MEMBERS} == MEMBERS
    assert len([path for path in target.rglob("*") if path.is_file()]) == len(MEMBERS)


@pytest.mark.parametrize("kind", ARCHIVES)
@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.97])
def test_a_truncated_archive_is_damaged(tmp_path: Path, kind: str, kept: float) -> None:
    content = ARCHIVES[kind][: int(kept * len(ARCHIVES[kind]))]
    fault(lambda: unpacked(tmp_path, content))


def test_a_tar_that_ends_between_two_members_is_damaged(tmp_path: Path) -> None:
    # a header and 20 blocks: the first member
    assert "the end" in fault(lambda: unpacked(tmp_path, ARCHIVES[""][: 21 * 512]))


@pytest.mark.parametrize(
    "content", [b"<html>404 not found</html>" * 100, b"PK", b"\x1f\x8b", b"BZh9" + b"x" * 99]
)
def test_a_file_that_is_no_archive_is_damaged(tmp_path: Path, content: bytes) -> None:
    assert "cannot be unpacked" in fault(lambda: unpacked(tmp_path, content))


@pytest.mark.parametrize("kind", [":gz", ":bz2", ":xz", "zip"])
def test_a_changed_byte_is_damaged(tmp_path: Path, kind: str) -> None:
    content = bytearray(ARCHIVES[kind])
    content[len(content) // 2] ^= 255
    fault(lambda: unpacked(tmp_path, bytes(content)))


def link(kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo("set/link")
    member.type, member.linkname = kind, target
    return member


OUTSIDE = {
    "tar ..": tarred("", {"../escaped": b"x"}),
    "tar.gz deep ..": tarred(":gz", {"set/../../escaped": b"x"}),
    "tar absolute": tarred("", {"/tmp/reprise-escaped": b"x"}),
    "tar symlink": tarred("", {}, link(tarfile.SYMTYPE, "../../escaped")),
    "tar absolute symlink": tarred("", {}, link(tarfile.SYMTYPE, "/etc")),
    "tar hard link": tarred("", {}, link(tarfile.LNKTYPE, "../escaped")),
    "zip ..": zipped({"../escaped": b"x"}),
    "zip absolute": zipped({"/tmp/reprise-escaped": b"x"}),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_leads_outside_is_damage_and_writes_nothing_there(tmp_path: Path, name: str) -> None:
    assert "outside" in fault(lambda: unpacked(tmp_path, OUTSIDE[name])) or "absolute" in name
    assert not Path("/tmp/reprise-escaped").exists()
    assert not [path for path in tmp_path.rglob("*") if path.name in ("escaped", "link")]


def test_links_within_the_folder_are_kept(tmp_path: Path) -> None:
    target = unpacked(tmp_path, tarred("", MEMBERS, link(tarfile.SYMTYPE, "a.txt")))
    assert (target / "set" / "link").read_bytes() == MEMBERS["set/a.txt"]


def test_a_special_file_is_damage(tmp_path: Path) -> None:
    fault(lambda: unpacked(tmp_path, tarred("", {}, link(tarfile.FIFOTYPE, ""))))


def test_a_missing_archive_is_an_error_of_the_system(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "none", tmp_path, "set")


def test_the_bar_gives_the_items_and_is_silent_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bar(range(5), "counting", 5)) == list(range(5))
    assert list(bar(iter("abc"), "letters", None)) == list("abc")
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
def test_on_a_terminal_the_bar_is_shown_on_stderr_alone() -> None:
    leader, follower = os.openpty()
    code = "from common.data.shared.prepare import bar; print(sum(bar(range(5), 'counting', 5)))"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=follower, timeout=600)
    os.close(follower)
    assert done.stdout == b"10\n"
    shown = os.read(leader, 10_000).decode()
    assert "counting" in shown and "100%" in shown
