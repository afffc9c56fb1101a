"""Data sets built from their YAML files, and servers that stand in for the internet."""

import functools
import http.server
import importlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from common.data.shared import download
from common.data.shared.in_memory import TensorData

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches beyond this machine; failures come at once."""
    get = requests.get

    def get_here(url: str, **options: Any) -> requests.Response:
        if not url.startswith("http://127.0.0.1:"):
            raise requests.ConnectionError(f"no test may ask for {url}")
        return get(url, **options)

    monkeypatch.setattr(requests, "get", get_here)
    monkeypatch.setattr(download, "RETRIES", 0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., TensorData]:
    """A data set from conf/dataset/<name>.yaml with a few keys overridden."""

    def build(name: str, **overrides: Any) -> TensorData:
        config = yaml.safe_load((ROOT / "conf" / "dataset" / f"{name}.yaml").read_text())
        fixed = {"data_dir": str(tmp_path), "seed": 0}
        config |= {key: value for key, value in fixed.items() if key in config} | overrides
        module, _, cls = config.pop("_target_").rpartition(".")
        return getattr(importlib.import_module(module), cls)(**config)

    return build


@dataclass
class Server:
    """A web server of one folder on this machine, and the paths it was asked for."""

    url: str
    folder: Path
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running `Server` over an empty folder."""
    folder = tmp_path_factory.mktemp("served")
    running = Server("", folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            running.requests.append(self.path)
            super().do_GET()

        def log_message(self, *args: Any) -> None:
            pass

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        running.url = f"http://127.0.0.1:{listening.server_port}"
        yield running
        listening.shutdown()
