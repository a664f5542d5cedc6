"""Work on images in a process of its own, so that a decoder or a library that dies takes one image with it and no more.

The parent sends one line of JSON and keeps the pipe open: when it is closed, however the parent ended, the worker
ends too. The worker notes in shared memory which images it is decoding. When it dies of a signal, or reports that
a decoder hangs, the parent decodes those images alone, one process each, rejects the guilty ones, and starts again;
finished rows are in parts by then. What the worker says while it works is shown by the parent (`relay`).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, NoReturn

from tlcache import errors
from tlcache.datasets.dataset import reopen
from tlcache.extraction.inflight import DECODER_HANGS, InFlight, decode_limit_s
from tlcache.extraction.outside import pack_sources, unpack_sources
from tlcache.extraction.relay import Receiver, Sender
from tlcache.extraction.suspects import environment, find_guilty
from tlcache.images import MAX_PIXELS
from tlcache.machine import loading

__all__ = ["run_apart"]


def run_apart(
    arguments: Mapping[str, Any], work: str = "extract", tell: Callable[[Mapping[str, Any]], None] = lambda _: None
) -> dict[str, Any]:
    """Run one of `_WORK` in a worker and return its result as JSON fields.

    Parameters
    ----------
    arguments, work
        What to call it with, and its name.
    tell
        Called with the parts of the result that come before its end, if there are any. Their `stop` is the `done` of
        a worker that goes on after one that died.

    Raises
    ------
    TlcacheError, OSError, KeyboardInterrupt
        What the worker raised; CacheError when it died.
    """
    rejected: dict[str, tuple[str, str]] = {}
    most = arguments.get("max_pixels") or MAX_PIXELS
    request = {**arguments, "work": work, "sources": pack_sources(), "rejected": rejected}

    def told(part: Mapping[str, Any]) -> None:
        request["done"] = part["stop"]
        tell(part)

    with tempfile.TemporaryFile() as shared:
        in_flight = InFlight(shared.fileno())
        while True:
            status, answer = _attempt(request, shared.fileno(), told)
            if answer is not None:
                return _unpack(answer)
            suspects = in_flight.take()
            decoder_failed = status == DECODER_HANGS or (status < 0 and status != -signal.SIGKILL)
            guilty = find_guilty(suspects, reopen(in_flight.source), most) if decoder_failed else {}
            if guilty.keys() <= rejected.keys():
                raise _death(status, "Finished images are kept" if work != "embed" else "Nothing is kept")
            rejected |= guilty


def _attempt(
    request: Mapping[str, Any], in_flight: int, tell: Callable[[Any], None]
) -> tuple[int, dict[str, Any] | None]:
    """Run one worker to its end, showing what it has to say; return its exit status and its answer."""
    command = [sys.executable, "-P", "-m", "tlcache.extraction.sandbox", str(in_flight)]
    worker = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=[in_flight],
        bufsize=0,
        env=environment(),
        start_new_session=True,  # Ctrl-C reaches the parent alone, which passes it on once
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker, Receiver(worker.stdout.fileno(), tell) as received:
        try:
            with suppress(BrokenPipeError):  # it died at once; its status says why
                worker.stdin.write(json.dumps(request).encode() + b"\n")
            received.read()
        except KeyboardInterrupt:
            worker.terminate()  # not SIGINT, which a background job of a shell ignores
            try:
                received.read()
            except KeyboardInterrupt:
                worker.kill()
                raise
            if received.answer is None:  # it had not begun, and died of that
                raise
    status = worker.returncode
    if status > 128:  # one of its own children died of a signal
        status = 128 - status
    return status, received.answer


def _unpack(outcome: dict[str, Any]) -> dict[str, Any]:
    if "done" in outcome:
        return dict(outcome["done"])
    if "stopped" in outcome:
        raise KeyboardInterrupt(outcome["stopped"])
    if "os_error" in outcome:
        raise OSError(*outcome["os_error"])
    raise getattr(errors, outcome["error"])(outcome["message"])


def _death(status: int, kept: str) -> errors.CacheError:
    """Return the error for a worker that ended without an answer; `kept` says what there is of its work."""
    if status == -signal.SIGKILL:
        return errors.CacheError(
            f"The extracting process was killed, perhaps because memory ran out. {kept}: "
            "run the same command again, with a smaller --batch-size if it was memory."
        )
    if status == DECODER_HANGS:
        return errors.CacheError(
            f"Decoding an image took more than {decode_limit_s():g} s, but not when it was tried alone. {kept}: "
            "run the same command again; TLCACHE_DECODE_LIMIT_S sets the limit."
        )
    if status > 0:  # an error in Python, which would only come again
        return errors.CacheError(f"The extracting process ended with status {status}; see above. {kept}.")
    return errors.CacheError(
        f"The extracting process died of {signal.Signals(-status).name}. {kept}: run the same command again."
    )


def _extract(_: Sender) -> Callable[..., dict[str, Any]]:
    from tlcache.extraction.steps import extract_here

    return lambda **request: extract_here(**request).as_json()


def _layers(_: Sender) -> Callable[..., dict[str, Any]]:
    from tlcache.extraction.steps import layers_here

    return lambda **request: {"files": [each.as_json() for each in layers_here(**request)]}


def _merge(_: Sender) -> Callable[..., dict[str, Any]]:
    from tlcache.extraction.steps import merge_here

    return lambda **request: merge_here(**request).as_json()


def _embed(sender: Sender) -> Callable[..., dict[str, Any]]:
    from tlcache.extraction.blocks import embed_here

    return partial(embed_here, tell=sender.part)


_WORK = {  # what a worker can do, loaded when it is asked for
    "extract": _extract,
    "layers": _layers,
    "merge": _merge,
    "embed": _embed,
}


def main() -> None:
    """Be the worker: read the request, do the work, answer on what was standard output."""
    sender = Sender(os.dup(1))
    sender.install()
    os.dup2(2, 1)  # whatever a library prints must not mix with the answer
    signal.signal(signal.SIGTERM, _interrupt)
    outcome: dict[str, Any]
    try:
        request = json.loads(sys.stdin.buffer.readline())
        unpack_sources(request.pop("sources"))
        threading.Thread(target=_end_with_parent, daemon=True).start()
        with loading():
            work = _WORK[request.pop("work")](sender)
        outcome = {"done": work(**request, in_flight=InFlight(int(sys.argv[1])))}
    except errors.TlcacheError as error:
        outcome = {"error": type(error).__name__, "message": str(error)}
    except OSError as error:
        outcome = {"os_error": [error.errno, error.strerror or str(error), str(error.filename or "")]}
    except KeyboardInterrupt as stopped:
        outcome = {"stopped": str(stopped)}
    sender.answer(outcome)
    sys.stdout.flush()  # what libraries printed
    os._exit(0)  # there is nothing to clean up, and libraries that are unloaded complain on standard error


def _end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
