"""Images far away: many requests are under way at a time, and what a store says has not changed is not read again."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tlcache.datasets.source import Images
from tlcache.files import cache_folder, write_whole
from tlcache.keys import hash_json

__all__ = ["FarImages"]

_AT_ONCE = 32  # requests; a single one at a time waits for its answer, and nothing else is done
_MOST, _MOST_BYTES = 256, 64 << 20  # images that are there before they are asked for


class FarImages(Images):
    """The images of a store.

    Parameters
    ----------
    source, read, exists
        As for `Images`.
    stamps
        Gives path -> what the store says changes with the image (ETag and size); those of which it says nothing are
        left out.
    """

    far = True

    def __init__(
        self,
        source: str,
        read: Callable[[str], bytes],
        exists: Callable[[], bool],
        stamps: Callable[[], Mapping[str, str]],
    ) -> None:
        self._ahead, self._stamps = _Ahead(read), stamps
        super().__init__(source, self._ahead.read, exists)

    def expect(self, paths: Iterable[str]) -> None:
        """Begin to fetch images that will be read in about this order."""
        self._ahead.expect(paths)

    def told(self) -> Mapping[str, str]:
        """Return path -> sha256 of the images that are, by the word of the store, as when they were last read."""
        kept = _kept(self._file)
        now = self._stamps() if kept else {}
        return {path: sha256 for path, (stamp, sha256) in kept.items() if stamp == now.get(path)}

    def remember(self, paths: Sequence[str], sha256: Sequence[str]) -> None:
        """Keep the hashes of images that were read, for `told`; one that is empty is not known."""
        if not (now := self._stamps()):
            return
        known = _kept(self._file)
        known |= {path: [now[path], each] for path, each in zip(paths, sha256, strict=True) if each and path in now}
        with suppress(OSError):  # it is read again
            write_whole(self._file, json.dumps({"sha256": hash_json(known), "known": known}).encode())

    @property
    def _file(self) -> Path:
        return cache_folder() / "hashes" / f"{hash_json(self.source)[:16]}.json"


def _kept(path: Path) -> dict[str, list[str]]:
    """Return path -> stamp and sha256; nothing where they were not kept, or are damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        found = json.loads(path.read_bytes())
        known: dict[str, list[str]] = found["known"]
        if hash_json(known) == found["sha256"]:
            return known
    return {}


class _Ahead:
    """Reads what will be asked for before it is: so much, that neither the network nor memory is the limit."""

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._fetch = read
        self._lock = threading.Lock()
        self._next = OrderedDict[str, None]()
        self._coming: dict[str, Future[bytes]] = {}
        self._held = 0  # bytes of those that are there
        self._pool: ThreadPoolExecutor | None = None

    def expect(self, paths: Iterable[str]) -> None:
        with self._lock:
            self._pool = self._pool or ThreadPoolExecutor(_AT_ONCE, "fetch")
            self._next.update(dict.fromkeys(paths))
            self._fill(self._pool)

    def read(self, path: str) -> bytes:
        with self._lock:
            coming = self._coming.pop(path, None)
            self._next.pop(path, None)
        data = b""
        try:
            data = coming.result() if coming else self._fetch(path)
        finally:
            with self._lock:
                self._held -= len(data) if coming else 0
                if self._pool:
                    self._fill(self._pool)
        return data

    def _fill(self, pool: ThreadPoolExecutor) -> None:
        most = _AT_ONCE if self._held > _MOST_BYTES else _MOST
        while self._next and len(self._coming) < most:
            path, _ = self._next.popitem(last=False)
            self._coming[path] = pool.submit(self._get, path)

    def _get(self, path: str) -> bytes:
        data = self._fetch(path)
        with self._lock:
            self._held += len(data)
        return data
