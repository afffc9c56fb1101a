"""Files are found, checked, fetched once when damaged, and never replaced by anything bad."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from common.base.errors import UserError
from common.data.shared import download
from common.data.shared.download import DamagedError, obtain

GOOD = b"the real content"


def read(path: Path) -> bytes:
    content = path.read_bytes()
    if content != GOOD:
        raise DamagedError(f"{len(content)} bytes")
    return content


def message_of(path: Path, url: str) -> str:
    with pytest.raises(UserError) as refusal:
        obtain(path, url, read, "what to do")
    message = str(refusal.value)
    assert "\n" not in message
    return message


def test_a_good_local_file_needs_no_network_and_no_writing(tmp_path: Path) -> None:
    (tmp_path / "set").write_bytes(GOOD)
    assert obtain(tmp_path / "set", "http://127.0.0.1:9/set", read, "") == GOOD
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("present", [None, b"truncated"])
def test_a_missing_or_damaged_file_is_fetched_once(
    tmp_path: Path, server: Any, present: bytes | None
) -> None:
    (server.folder / "set").write_bytes(GOOD)
    path = tmp_path / "new" / "set"
    if present is not None:
        path.parent.mkdir()
        path.write_bytes(present)
    assert obtain(path, f"{server.url}/set", read, "") == GOOD
    assert path.read_bytes() == GOOD and server.requests == ["/set"]
    assert not list(path.parent.glob(".download-*"))
    recorded = json.loads((path.parent / download.MANIFEST).read_text())
    assert recorded == {"set": hashlib.md5(GOOD).hexdigest()}


def test_a_bad_download_is_refused_and_leaves_the_old_file(tmp_path: Path, server: Any) -> None:
    (server.folder / "set").write_bytes(b"wrong")
    (tmp_path / "set").write_bytes(b"old")
    message = message_of(tmp_path / "set", f"{server.url}/set")
    assert f"{tmp_path}/set is damaged (3 bytes)" in message and "gave a damaged file (5 bytes)" in message
    assert message.endswith("what to do") and server.requests == ["/set"]
    assert (tmp_path / "set").read_bytes() == b"old"
    assert download.remembered(tmp_path) == {}


def test_offline_the_message_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/set"
    message = message_of(tmp_path / "set", url)
    assert message == f"{tmp_path}/set is missing, and {url} could not be fetched (no connection): what to do"


def test_an_http_error_is_named(tmp_path: Path, server: Any) -> None:
    assert "could not be fetched (HTTP 404)" in message_of(tmp_path / "set", f"{server.url}/set")


class Answers:
    """What a server of ill will answers, by path."""

    @staticmethod
    def breaks_off(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(GOOD)

    @staticmethod
    def redirects_to_nowhere(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", "http://127.0.0.1:9/set")
        handler.end_headers()

    @staticmethod
    def redirects_for_ever(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", handler.path)
        handler.end_headers()

    @staticmethod
    def says_nothing(handler: http.server.BaseHTTPRequestHandler) -> None:
        # until the client has gone: nothing more comes from it
        handler.rfile.read(1)

    @staticmethod
    def speaks_gibberish(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"\0\1\2 gibberish")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("breaks_off", "no connection"),
        ("redirects_to_nowhere", "no connection"),
        ("redirects_for_ever", "no connection"),
        ("says_nothing", "timed out"),
        ("speaks_gibberish", "no connection"),
    ],
)
def test_a_server_of_ill_will_gets_one_line_and_leaves_the_old_file(
    answer: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a slow machine is no silent server
    patience = 1 if answer == "says_nothing" else 600
    monkeypatch.setattr(download, "TIMEOUT", (patience, patience))

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            getattr(Answers, answer)(self)

        def log_message(self, *args: Any) -> None:
            pass

    (tmp_path / "set").write_bytes(b"old")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        message = message_of(tmp_path / "set", f"http://127.0.0.1:{listening.server_port}/set")
        listening.shutdown()
    assert f"could not be fetched ({reason})" in message
    assert (tmp_path / "set").read_bytes() == b"old"
    assert not list(tmp_path.glob(".download-*"))


def test_a_failed_connection_is_tried_again(
    tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "RETRIES", 1)
    message_of(tmp_path / "set", f"{server.url}/set")
    assert server.requests == ["/set", "/set"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "what to do" in message_of(tmp_path / "file" / "set", "http://127.0.0.1:9/set")


def test_a_full_disk_is_one_line(tmp_path: Path, server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(url: str, path: Path) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(download, "fetch", full)
    assert "the disk is full" in message_of(tmp_path / "set", f"{server.url}/set")


CHILD = """
import sys
from pathlib import Path
from common.data.shared.download import obtain, DamagedError
def read(path):
    content = path.read_bytes()
    if content != b"the real content": raise DamagedError("differs")
    return content
print("ready", flush=True)
sys.stdin.readline()
print(obtain(Path(sys.argv[1]), sys.argv[2], read, "").decode())
"""


@pytest.mark.slow
def test_of_processes_at_once_one_downloads_and_all_read_it(tmp_path: Path, server: Any) -> None:
    (server.folder / "set").write_bytes(GOOD)
    root = Path(__file__).resolve().parents[4]
    command = [sys.executable, "-c", CHILD, str(tmp_path / "set"), f"{server.url}/set"]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(3)
    ]
    # they have imported everything, and go off together
    assert [child.stdout.readline() for child in children if child.stdout] == ["ready\n"] * 3
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    assert [child.communicate(timeout=600)[0].strip() for child in children] == [GOOD.decode()] * 3
    assert server.requests == ["/set"]


def test_the_manifest_adds_up_and_survives_rubbish(tmp_path: Path) -> None:
    (tmp_path / download.MANIFEST).write_text("{ rubbish")
    download.remember(tmp_path, {"a": "1"})
    download.remember(tmp_path, {"b": "2"})
    assert download.remembered(tmp_path) == {"a": "1", "b": "2"}
