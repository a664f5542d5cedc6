"""Objects in stores: `s3://bucket/key`, `gs://bucket/key` and `https://host/path`, by obstore."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import lru_cache
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from tlcache.errors import UnreachableError, first_line
from tlcache.extras import extra

__all__ = ["LISTED", "Stamp", "get", "is_url", "list_objects", "look_at", "open_object", "seen"]

LISTED = ("s3://", "gs://")  # stores that say what they have
_SCHEMES = (*LISTED, "http://", "https://")
_CONNECT, _SILENT, _WHOLE = (timedelta(seconds=seconds) for seconds in (5, 10, 300))  # an answer comes bit by bit
_RETRY_S, _RETRIES = 60, 8

_SETTINGS = ("AWS_", "GOOGLE_", "TLCACHE_RETRY_S")

Stamp = tuple[int, str]  # size, and ETag or else the time of the last change; empty where the store says neither


def is_url(place: str) -> bool:
    """Return whether this is in a store."""
    return place.startswith(_SCHEMES)


def list_objects(url: str) -> dict[str, Stamp]:
    """Return what lies below a URL: name -> stamp; raises UnreachableError."""
    store, prefix = _split(url.rstrip("/") + "/")
    with _explaining(url):
        found = [each for page in store.list(prefix or None) for each in page]
    _DOWN.pop(_root(url), None)
    return {each["path"][len(prefix) :]: _stamp(each) for each in found}


def look_at(url: str) -> Stamp:
    """Return the stamp that an object has now, which `open_object` takes it to have from then on.

    Raises
    ------
    OSError, UnreachableError
        It is not there; its store cannot be reached.
    """
    store, path = _split(url)
    with _explaining(url):
        _LOOKED[url] = _stamp(store.head(path))
    _DOWN.pop(_root(url), None)
    return _LOOKED[url]


def seen(url: str) -> Stamp:
    """Return the stamp that an object had when it was looked at last."""
    return _LOOKED.get(url) or look_at(url)


def get(url: str) -> bytes:
    """Return the bytes of an object; raises OSError or UnreachableError."""
    store, path = _split(url)
    _check_up(url)
    with _explaining(url):
        return bytes(store.get(path).bytes())


def open_object(url: str) -> tuple[BinaryIO, Stamp]:
    """Return an object as a file that is read by ranges, and its stamp; raises OSError or UnreachableError."""
    stamp = seen(url)
    return cast("BinaryIO", _Object(url, stamp)), stamp


_LOOKED: dict[str, Stamp] = {}
_DOWN: dict[str, str] = {}  # store that failed, and did not when it was listed or looked at -> what was the matter


def _check_up(url: str) -> None:
    """Raise UnreachableError where the store is known to fail: whoever reads many images does not wait for each."""
    if words := _DOWN.get(_root(url)):
        raise UnreachableError(f"Cannot read '{url}': {words}")


class _Object(io.RawIOBase):
    """An object, read by ranges, each a request; one that has changed since it was looked at is not read on."""

    def __init__(self, url: str, stamp: Stamp) -> None:
        self._url, self._stamp, self._at = url, stamp, 0
        self._store, self._path = _split(url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._stamp[0])[whence])
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        whole = self._stamp[0]
        stop = whole if size < 0 else min(self._at + size, whole)
        if stop <= self._at:
            return b""
        _check_up(self._url)
        found, data = None, b""
        with _explaining(self._url), suppress(FileNotFoundError):
            found = self._store.get(self._path, options={"range": (self._at, stop)})
            data = bytes(found.bytes())
        if found is None or _stamp(found.meta) != self._stamp:
            _LOOKED.pop(self._url, None)
            what = "has changed" if found else "was removed"
            raise UnreachableError(f"'{self._url}' {what} while it was read. {_AGAIN}")
        self._at += len(data)
        return data


def _stamp(meta: Any) -> Stamp:
    return meta["size"], meta["e_tag"] or (meta["last_modified"].isoformat() if meta["last_modified"] else "")


def _root(url: str) -> str:
    return "/".join(url.split("/", 3)[:3])


def _split(url: str) -> tuple[Any, str]:
    """Return the store of a URL and the path in it: a key of a bucket has any letters as they are."""
    path = url[len(_root(url)) :].lstrip("/")
    return _store(_root(url)), path if url.startswith(LISTED) else unquote(path)


def _store(root: str) -> Any:
    return _made(root, tuple(sorted(each for each in os.environ.items() if each[0].startswith(_SETTINGS))))


@lru_cache(maxsize=64)
def _made(root: str, environment: tuple[tuple[str, str], ...]) -> Any:
    """Return a store that is as the environment says, which obstore reads."""
    del environment
    store = extra("obstore.store", "Images in a store need obstore, which", "'tlcache[remote]'").store
    make: Any = store.from_url if root.startswith(LISTED) else store.HTTPStore.from_url
    limit = timedelta(seconds=float(os.environ.get("TLCACHE_RETRY_S") or _RETRY_S))
    client = {"allow_http": True, "connect_timeout": _CONNECT, "read_timeout": min(_SILENT, limit), "timeout": _WHOLE}
    with _explaining(root):
        return make(root, client_options=client, retry_config={"max_retries": _RETRIES, "retry_timeout": limit})


@contextmanager
def _explaining(url: str) -> Iterator[None]:
    from obstore import exceptions

    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError(errno.ENOENT, "no such object in the store") from None
    except (exceptions.BaseError, OSError) as error:
        what, remedy = next(words for pattern, *words in _KINDS if pattern.search(str(error)))
        _DOWN[_root(url)] = words = f"{what.format(found=first_line(error))}. {remedy}"
        raise UnreachableError(f"Cannot read '{url}': {words}") from None


_AGAIN = "What is finished is kept: run the same command again."
_KINDS = [
    (re.compile(pattern), what, remedy)
    for pattern, what, remedy in (
        (
            r"169\.254\.169\.254|[Tt]oken ?[Rr]equest|metadata\.google",
            "there are no credentials for it",
            "They are taken from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS) or the role of the machine; a public bucket needs AWS_SKIP_SIGNATURE=true "
            "or GOOGLE_SKIP_SIGNATURE=true.",
        ),
        (
            r"status code: 40[13]|lacked|Unauthenticated",
            "access is denied ({found})",
            f"Look at the credentials in the environment, and at what they allow. {_AGAIN}",
        ),
        (r"status code: 404", "there is no such bucket or address", "Look at its name and at AWS_ENDPOINT_URL."),
        (r"redirect", "the bucket is in another region", "Set AWS_REGION to that."),
        (r"dns error", "the name of its host is not known", f"Look at the address and at the network. {_AGAIN}"),
        (r"kind: Connect", "nothing answers at its address", f"Look at AWS_ENDPOINT_URL and at the network. {_AGAIN}"),
        (
            r"kind: Timeout|TimedOut",
            "there was no answer in time, several times",
            f"Is the network slow or the server overloaded? {_AGAIN}",
        ),
        (r"kind: (?:Body|Interrupted|Decode|Request)", "the answers were cut off, several times", _AGAIN),
        (r"status code: (?:5|429)", "the server failed, several times ({found})", _AGAIN),
        (r"partial|NotPartial|[Rr]ange", "its server gives no parts of files ({found})", "Download it and give that."),
        ("", "{found}", _AGAIN),
    )
]
