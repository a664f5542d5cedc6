"""Weights: downloads from a real HTTP server on this machine, files by hand, and files that must not be trusted."""

import hashlib
import os
import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tlcache.backbones.backbone import Backbone, Checkpoint
from tlcache.backbones.downloads import download
from tlcache.backbones.sources import find
from tlcache.backbones.torchvision import checkpoint_path
from tlcache.backbones.weights import load_state, resolve
from tlcache.errors import UnknownNameError, WeightsError

CONTENT = b"weights " * 40_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if "absent" in self.path:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: len(CONTENT) // 2] if "cut" in self.path else CONTENT)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{httpd.server_port}"
        monkeypatch.setenv("TLCACHE_WEIGHTS_URL", address)
        yield address
        httpd.shutdown()
        thread.join()


def backbone(file: str) -> Backbone:
    return replace(find("resnet18"), checkpoints={"imagenet": Checkpoint("IMAGENET1K_V1", file, 0.0)})


@pytest.mark.usefixtures("server")
def test_a_download_is_kept_and_found_again() -> None:
    row = backbone(f"net-{SHA256[:8]}.pth")
    assert row.at_hand == []
    found = resolve(row, "imagenet")
    assert found.sha256 == SHA256
    assert found.path.read_bytes() == CONTENT
    assert row.at_hand == ["imagenet"]
    assert resolve(row, "imagenet") == found


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("net-00000000.pth", f"expected a sha256 that starts with 00000000, received {SHA256}"),
        (f"cut-{SHA256[:8]}.pth", f"was cut: expected {len(CONTENT):,} bytes, received {len(CONTENT) // 2:,}"),
        (f"absent-{SHA256[:8]}.pth", "Not Found"),
    ],
)
def test_a_failed_download_leaves_nothing(server: str, file: str, words: str) -> None:
    row = backbone(file)
    with pytest.raises(WeightsError, match=words) as caught:
        resolve(row, "imagenet")
    message, place = str(caught.value), checkpoint_path(row.checkpoints["imagenet"])
    assert f"{server}/{file}" in message
    assert f"Put the file at {place} by hand" in message
    assert "--weights FILE" in message
    assert "--weights random" in message
    assert list(place.parent.iterdir()) == []


def test_no_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"Could not download http://127.0.0.1:9/.*refused"):
        download("http://127.0.0.1:9/net.pth", tmp_path / "net.pth", "00")
    assert list(tmp_path.iterdir()) == []


def test_the_address_is_torchvisions_own_unless_a_mirror_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import ResNet18_Weights

    asked: list[str] = []
    monkeypatch.delenv("TLCACHE_WEIGHTS_URL")
    monkeypatch.setattr("tlcache.backbones.downloads.download", lambda url, *_: asked.append(url) or "00")
    resolve(find("resnet18"), "imagenet")
    assert asked == [ResNet18_Weights.IMAGENET1K_V1.url]


def test_a_damaged_file_in_the_cache_is_named() -> None:
    row = backbone(f"net-{SHA256[:8]}.pth")
    place = checkpoint_path(row.checkpoints["imagenet"])
    place.parent.mkdir(parents=True)
    place.write_bytes(b"half")
    with pytest.raises(WeightsError, match=f"is damaged: its sha256 should start with {SHA256[:8]}, found"):
        resolve(row, "imagenet")


def test_a_file_by_hand_and_names_that_do_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "mine.pth"
    path.write_bytes(CONTENT)
    found = resolve(find("resnet18"), str(path))
    assert (found.label, found.sha256) == ("file:mine.pth", SHA256)
    with pytest.raises(WeightsError, match=r"No weights at 'gone\.pth'"):
        resolve(find("resnet18"), "gone.pth")
    with pytest.raises(UnknownNameError, match="Did you mean 'imagenet'"):
        resolve(find("resnet18"), "imagenets")
    with pytest.raises(UnknownNameError, match="imagenet_v2"):
        resolve(find("resnet18"), "imagenet_v2")  # this backbone has no such weights


def test_random_weights_are_made_once() -> None:
    first = resolve(find("squeezenet1_1"), "random")
    stamp = first.path.stat().st_mtime_ns
    assert resolve(find("squeezenet1_1"), "random") == first
    assert first.path.stat().st_mtime_ns == stamp
    assert "features.0.weight" in load_state(first)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


@pytest.mark.parametrize("content", [pickle.dumps(Hostile()), b"", b"text"])
def test_code_in_weights_is_never_run(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a plain PyTorch state dict"):
        load_state(resolve(find("resnet18"), str(path)))
    assert not Path("executed").exists()
