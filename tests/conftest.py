"""Every test has caches of its own and no network; real data is used where it is at hand."""

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
import torch
from exports import remembering
from fakes import SABOTAGE, TinySource, slow_network, tiny_bundle, tiny_network, write_photos

from tlcache.progress import hide_progress

REAL = Path(os.environ.get("TLCACHE_REAL") or Path(__file__).parents[1].parent / "shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not (REAL / "data").is_dir():
        skip = pytest.mark.skip(reason=f"no real images under {REAL} (TLCACHE_REAL)")
        for item in items:
            if item.get_closest_marker("real"):
                item.add_marker(skip)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test away from the user's caches and from the network."""
    monkeypatch.setenv("TLCACHE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("TLCACHE_FEATURES", str(tmp_path / "features"))
    monkeypatch.setenv("TLCACHE_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setenv("TLCACHE_WEIGHTS_URL", "http://127.0.0.1:9")  # nothing listens there
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("TLCACHE_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what is made once for all tests, whichever of pytest's processes they run in."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session", autouse=True)
def exports_once(session_folder: Path) -> Iterator[None]:
    """Export no network twice: torch takes a second even for a tiny one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.onnx.export", remembering(torch.onnx.export, session_folder))
        yield


@pytest.fixture(autouse=True)
def in_this_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Extract without a worker process, which saves a second each time, unless the test is marked `worker`."""
    if not request.node.get_closest_marker("worker"):
        from tlcache.extraction import sandbox
        from tlcache.extraction.blocks import embed_here

        monkeypatch.setattr(
            "tlcache.extraction.extract.run_apart", lambda arguments, work: sandbox._WORK[work](None)(**arguments)
        )
        monkeypatch.setattr(
            "tlcache.extraction.embed.run_apart", lambda arguments, tell: embed_here(**arguments, tell=tell)
        )


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Let what a test of the command line has switched on end with it."""
    yield
    hide_progress()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three classes with eight images each."""
    return write_photos(tmp_path / "photos")


@pytest.fixture
def val_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few validation images choose the head that fine-tuning begins with, which it can improve on then."""
    monkeypatch.setattr("tlcache.probing.folds.FEW", 0)


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the built-in digits be some 500 of them."""
    from sklearn.datasets import load_digits

    pixels, labels = (each[:500] for each in load_digits(return_X_y=True))
    monkeypatch.setattr("sklearn.datasets.load_digits", lambda **_: (pixels, labels))


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """The tiny network as a file that looks like one of our exports."""
    path = tmp_path / "tiny.onnx"
    onnx.save(tiny_network(), path)
    return path


@pytest.fixture
def made(photos: Path, tiny_model: Path) -> Path:
    """The feature file of the photos by the tiny network."""
    from tlcache.extraction.extract import extract

    return extract(photos, str(tiny_model)).path


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The tiny network with a head that names the brightest channel, as `tlcache export` makes it of a run."""
    path = tmp_path / "bundle.onnx"
    onnx.save(tiny_bundle(), path)
    return path


@pytest.fixture
def sabotaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the PNG decoder of every Python process that is started die or hang on images that `doom` writes."""
    folder = tmp_path / "sabotage"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SABOTAGE)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("STALLED", str(tmp_path / "stalled"))


@pytest.fixture
def slow_set(tmp_path: Path) -> tuple[Path, Path]:
    """Enough images, and a network slow enough, that a run lasts some seconds."""
    path = tmp_path / "slow.onnx"
    onnx.save(slow_network(), path)
    return write_photos(tmp_path / "many", 200), path


@pytest.fixture
def real() -> Path:
    """The folder with real images (`data/`) and weights (`weights/`)."""
    return REAL


@pytest.fixture
def tinynet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A backbone called `tinynet`, of three stages with BatchNorm, which trains in no time, on one thread."""
    from tlcache.backbones.onnx_file import ONNX_FILE

    monkeypatch.setattr("tlcache.backbones.sources.SOURCES", (TinySource(), ONNX_FILE))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
