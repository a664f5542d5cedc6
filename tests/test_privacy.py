"""Nothing is sent, and nothing is kept for it: what an extraction and a fit leave in a fresh home folder."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

WORK = """
import sys, tlcache
done = tlcache.extract(*sys.argv[1:3], engine=sys.argv[3])
tlcache.fit_heads([done.path], heads=["ridge"])
"""
CACHES = (".cache/tlcache", ".cache/matplotlib", ".config/matplotlib")
DECIDING = (
    "ORT_DISABLE_TELEMETRY",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "TLCACHE_CACHE",
    "CI",
    "TF_BUILD",
    "JENKINS_URL",
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh one, of a user who has decided nothing."""
    for name in DECIDING:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.mark.parametrize("engine", [name for name in ("onnxruntime", "openvino") if find_spec(name)])
def test_a_fresh_home_holds_caches_and_no_telemetry(engine: str, home: Path, photos: Path, tiny_model: Path) -> None:
    subprocess.run([sys.executable, "-c", WORK, photos, tiny_model, engine], check=True, capture_output=True)
    left = [path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file()]
    assert [path for path in left if not path.startswith(CACHES)] == []


@pytest.mark.parametrize(("own", "kept"), [(None, "1"), ("0", "0"), ("", "")])
@pytest.mark.parametrize("package", ["tlcache", "exporters"])
def test_the_users_own_choice_stays(package: str, own: str | None, kept: str) -> None:
    env = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    code = f"import os, {package}; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    chosen = {} if own is None else {"ORT_DISABLE_TELEMETRY": own}
    done = subprocess.run([sys.executable, "-c", code], env=env | chosen, check=True, capture_output=True, text=True)
    assert done.stdout == f"{kept}\n"
