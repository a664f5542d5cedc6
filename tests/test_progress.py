"""The library is quiet; bars and messages are for those who ask for them."""

import io
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

import tlcache
from tlcache import progress
from tlcache.cli import app
from tlcache.display import Lines, Messages, Terminal, Update
from tlcache.extraction.extract import extract
from tlcache.extraction.relay import Receiver, Sender
from tlcache.extraction.target import lock_of
from tlcache.progress import byte_bar, hide_progress, image_bar, say, set_display, show_progress, step_bar, warn

SCRIPT = """
import sys
import tlcache
photos, model = sys.argv[1:]
done = tlcache.extract(photos, model)
tlcache.fit_heads([done.path], heads=["ridge", "knn"])
tlcache.compare()
tlcache.audit([done.path])
"""


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=True
    )


def test_a_script_that_calls_the_library_prints_nothing(photos: Path, tiny_model: Path) -> None:
    done = run(SCRIPT, photos, tiny_model)
    assert (done.stdout, done.stderr) == ("", "")


def test_a_script_that_asks_for_it_is_shown_what_goes_on() -> None:
    code = "from tlcache.progress import *; say('early'); {}; say('50 % [done]'); warn('look')"
    asked = run(code.format("show_progress()"))
    assert (asked.stdout, asked.stderr) == ("", "50 % [done]\nwarning: look\n")
    few = run(code.format("show_progress(level=30)"))
    assert few.stderr == "warning: look\n"
    no_more = run(code.format("show_progress(); hide_progress()"))
    assert no_more.stderr == "look\n"  # Python's own way with warnings that nobody handles


def test_messages_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        say("Waiting")
        warn("Look")
    assert caplog.record_tuples == [("tlcache", logging.INFO, "Waiting"), ("tlcache", logging.WARNING, "Look")]


def test_only_the_first_of_torchruns_processes_talks(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    opened: list[str] = []
    set_display(lambda kind, label, total: opened.append(label) or progress._nothing(kind, label, total))
    for rank in ("1", "0"):
        monkeypatch.setenv("RANK", rank)
        warn(f"from {rank}")
        with step_bar(f"bar of {rank}", 1) as advance:
            advance(1)
    assert caplog.messages == ["from 0"]
    assert opened == ["bar of 0"]


def test_a_log_file_has_a_line_now_and_then() -> None:
    clock, lines = Clock(), list[str]()
    set_display(Lines(lines.append, clock))
    with image_bar("photos: mobilenetv2", 10_000) as advance:
        for _ in range(90):
            clock.now += 1
            advance(100)
    assert lines == [
        "photos: mobilenetv2: 3,000 of 10,000 images, 100 images/s",
        "photos: mobilenetv2: 6,000 of 10,000 images, 100 images/s",
        "photos: mobilenetv2: 9,000 of 10,000 images, 100 images/s",
    ]
    lines.clear()
    with byte_bar("a.pth", 10_000_000) as received, byte_bar("b.pth", 0) as unknown, step_bar("fitting", 9) as step:
        clock.now += 40
        received(2_000_000)
        unknown(3_000)
        step(2)
        clock.now += 29
        step(1)
    assert lines == ["a.pth: 2.0 MB of 10.0 MB, 50.0 kB/s", "b.pth: 3.0 kB, 75 bytes/s", "fitting: 2 of 9"]
    lines.clear()
    with progress.training_bar(400) as advance_training:
        clock.now += 30
        advance_training(32, "backbone 1/3: loss 0.100, accuracy 0.900")
    assert lines == ["backbone 1/3: loss 0.100, accuracy 0.900: 32 of 400 images, 1 images/s"]


def test_a_terminal_has_bars_and_messages_above_them() -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100)
    terminal, messages = Terminal(console), Messages(console)
    with terminal("images", "[photos]", 1000) as advance:
        advance(512)
        messages.emit(logging.makeLogRecord({"msg": "Going on", "levelno": logging.INFO}))
        with terminal("steps", "inner", 3) as step, terminal("training", "training", 9) as train:
            step(2)
            train(4, "backbone 1/3: loss 0.1, accuracy 0.9")
            terminal._shown.refresh()
            messages.emit(logging.makeLogRecord({"msg": "look", "levelno": logging.WARNING}))
        advance(1)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue())
    assert "[photos]" in shown
    assert "512/1000" in shown
    assert "2/3" in shown
    assert "backbone 1/3: loss 0.1, accuracy 0.9" in shown
    assert "\x1b[1;35mwarning: \x1b[0mlook" in screen.getvalue()
    assert "Going on\n" in shown
    assert screen.getvalue().rstrip().endswith("\x1b[2K")  # the last bar is gone, too


def test_no_colour_is_lost_on_a_white_terminal() -> None:
    for path in Path(tlcache.__file__).parent.rglob("*.py"):
        assert not re.findall(r'"(?:bold |dim )?(?:yellow|cyan|bright_\w+)"', path.read_text("utf-8")), path


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """Pretend to be the kernel of a notebook; give what each of its outputs has shown."""
    outputs: list[list[str]] = []

    def display(what: str, display_id: bool) -> SimpleNamespace:
        assert display_id
        outputs.append([what])
        return SimpleNamespace(update=outputs[-1].append)

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(HTML=str, display=display))
    monkeypatch.setattr("tlcache.display._FRAME_S", 0.0)
    return outputs


def test_a_notebook_has_bars_without_being_asked(
    notebook: list[list[str]], photos: Path, tiny_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with step_bar("<fitting>", 4) as advance:
        advance(1)
        advance(2)
    assert [re.sub(" +", " ", each) for each in notebook[0]] == [
        "",
        '<progress value="1" max="4"></progress> &lt;fitting&gt;: 1 of 4',
        '<progress value="3" max="4"></progress> &lt;fitting&gt;: 3 of 4',
        "",
    ]
    extract(photos, str(tiny_model))
    assert any("photos: tiny: " in each for each in notebook[1])
    assert notebook[1][-1] == ""
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("notebook")
def test_bars_can_be_switched_off() -> None:
    show_progress(bars=False)
    assert progress._display is progress._nothing


def test_ipython_on_a_terminal_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not progress._in_notebook()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not progress._in_notebook()


def test_what_a_worker_says_is_shown_by_its_parent(caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = os.pipe()
    sender, bars = Sender(theirs), list[object]()
    sender.emit(logging.makeLogRecord({"msg": "%d of them", "args": (3,), "levelno": logging.WARNING}))
    sender.emit(logging.makeLogRecord({"msg": "details", "levelno": logging.DEBUG}))
    with sender.bar("images", "photos", 9) as advance:
        advance(4)
        advance(2, "pictures")
    os.write(theirs, b'cut by an inter\n["steps", 7, 1, ""]\n["end", 7]\n')
    sender.answer({"done": {"rows": 9}})
    os.write(theirs, b'["bar", 1, "steps", "of one that dies", 0]\n["ans')
    os.close(theirs)

    @contextmanager
    def display(*work: object) -> Iterator[Update]:
        bars.append(work)
        yield lambda steps, label="": bars.append((steps, label))
        bars.append("closed")

    set_display(display)
    with Receiver(ours) as received:
        received.read()
    os.close(ours)
    assert received.answer == {"done": {"rows": 9}}
    assert caplog.messages == ["3 of them"]  # the level is this process's
    assert bars[:4] == [("images", "photos", 9), (4, ""), (2, "pictures"), "closed"]
    assert bars[4:] == [("steps", "of one that dies", 0), "closed"]


@pytest.mark.worker
def test_an_extraction_shows_its_bar_and_says_that_it_waits(
    photos: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    bars: list[object] = []

    @contextmanager
    def display(*work: object) -> Iterator[Update]:
        bars.append(work)
        yield lambda steps, label="": bars.append((steps, label))

    set_display(display)
    done = extract(photos, str(tiny_model))
    assert bars[0] == ("images", "photos: tiny", 24)
    assert sum(steps for steps, _ in bars[1:]) == 24
    done.path.unlink()
    with caplog.at_level(logging.INFO), ThreadPoolExecutor(1) as pool:
        with lock_of(done.path.with_name(f".{done.path.stem}.parts")):
            again = pool.submit(extract, photos, str(tiny_model))
            while not any(line.startswith("Waiting") for line in caplog.messages):
                time.sleep(0.05)
        assert again.result(60).rows == 24
    (waited,) = (line for line in caplog.messages if "24 images" not in line)
    assert "which extracts the same features" in waited


def test_what_a_command_has_switched_on_can_be_switched_off() -> None:
    CliRunner().invoke(app, ["heads"])
    assert progress.logger.level == logging.INFO
    assert len(progress.logger.handlers) == 1
    assert isinstance(progress._display, Lines)
    hide_progress()
    assert (progress.logger.level, progress.logger.handlers, progress._display) == (logging.NOTSET, [], None)
