"""A small object store on loopback: S3's list, ranges and ETags of the files in a folder, and faults when asked for."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape


class Store(ThreadingHTTPServer):
    """Serves a folder, whose folders are buckets; `fault` is what goes wrong with the next `times` answers.

    Faults: a status such as 500, "cut" (half of the body), "slow" (it takes a second), "silent" (no answer at all).
    """

    daemon_threads, request_queue_size = True, 128

    def __init__(self, root: Path) -> None:
        self.root, self.fault, self.times = root, "", 0
        self.requests = Counter[str]()
        self.at_once = self.most_at_once = 0
        self.delay_s = 0.0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:  # a client that does not wait any longer
        pass


class _Handler(BaseHTTPRequestHandler):
    protocol_version, wbufsize, disable_nagle_algorithm = "HTTP/1.1", 1 << 16, True
    server: Store

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        parts = urlsplit(self.path)
        path, asked = unquote(parts.path), dict(parse_qsl(parts.query))
        with server.lock:
            server.requests["list" if "list-type" in asked else self.command] += 1
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            fault = server.fault if server.times else ""
            server.times -= bool(server.times)
        try:
            time.sleep(1 if fault == "slow" else server.delay_s)
            if fault == "silent":
                server.closing.wait(60)
            elif fault.isdigit():
                self._answer(int(fault), b"<Error><Code>Broken</Code></Error>")
            elif "list-type" in asked:
                self._answer(200, self._listing(path.strip("/"), asked).encode(), cut=fault == "cut")
            else:
                self._file(server.root / path.lstrip("/"), fault == "cut")
        finally:
            with server.lock:
                server.at_once -= 1

    def _file(self, path: Path, cut: bool) -> None:
        if not path.is_file():
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        data = path.read_bytes()
        headers = {"ETag": _etag(data), "Last-Modified": self.date_time_string(path.stat().st_mtime)}
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(data)}"
            data = data[start:stop]
        self._answer(206 if asked else 200, data, headers, cut)

    def _answer(self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: bool = False) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        self.close_connection = self.close_connection or cut

    def _listing(self, bucket: str, asked: dict[str, str]) -> str:
        top, after = self.server.root / bucket, asked.get("continuation-token", "")
        keys = sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())
        left = [key for key in keys if key.startswith(asked.get("prefix", "")) and key > after]
        page = left[:1000]
        more = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(left) > len(page) else ""
        rows = (
            f"<Contents><Key>{escape(key)}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
            f"<ETag>{_etag((top / key).read_bytes())}</ETag><Size>{(top / key).stat().st_size}</Size></Contents>"
            for key in page
        )
        truncated = "true" if more else "false"
        return f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{more}{''.join(rows)}</ListBucketResult>"


def _serve_until_killed(root: Path, wanted: int, told: int) -> None:
    with Store(root) as store, os.fdopen(wanted) as lines:
        os.write(told, f"{store.url}\n".encode())
        threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        for line in lines:
            store.fault, _, times = line.removesuffix("\n").partition(" ")
            store.times = int(times)
            os.write(told, b"done\n")


@contextmanager
def serving_apart(root: Path) -> Iterator[tuple[str, Callable[[str, int], None]]]:
    """Serve a folder from a process of its own, as a process with threads cannot fork: yield its URL, and how to fail.

    That is called with a fault and how many answers it spoils.
    """
    wanted, told = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            _serve_until_killed(root, wanted[0], told[1])
        finally:
            os._exit(1)
    answers = os.fdopen(told[0])

    def fail(fault: str, times: int) -> None:
        os.write(wanted[1], f"{fault} {times}\n".encode())
        assert answers.readline() == "done\n"

    try:
        yield answers.readline().strip(), fail
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _etag(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


@contextmanager
def serving(root: Path) -> Iterator[Store]:
    """Serve a folder while the context lasts."""
    with Store(root) as store:
        thread = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield store
        finally:
            store.closing.set()
            store.shutdown()
            thread.join()
