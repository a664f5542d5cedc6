"""Where the bytes of an image come from: one reader with one set of errors, for every kind of dataset."""

import ast
import base64
import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fakes import doom, write_image, write_photos
from typer.testing import CliRunner
from zipped import ZIPPED, Zipped, write_zip

import tlcache
from tlcache.auditing.run import audit
from tlcache.backbones.load import load_model
from tlcache.cache.feature_file import open_features
from tlcache.cli import app
from tlcache.datasets import dataset
from tlcache.datasets.dataset import load_dataset, reopen
from tlcache.datasets.folder import open_folder
from tlcache.errors import DataError, ImageReadError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.finetuning.finetune import finetune
from tlcache.probing.fit import fit_heads
from tlcache.report.audits import plot_pairs
from tlcache.report.page import write_report
from tlcache.studying.study import study


@pytest.fixture
def zipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add the source, for a while."""
    monkeypatch.setattr(dataset, "SOURCES", (*dataset.SOURCES, ZIPPED))


@pytest.mark.parametrize("given", ["photos", "photos/list.csv", "digits"])
def test_a_dataset_is_opened_again_by_what_its_feature_file_says(photos: Path, tiny_model: Path, given: str) -> None:
    names = [path.relative_to(photos).as_posix() for path in sorted(photos.rglob("*.png"))]
    (photos / "list.csv").write_text("\n".join(["path,label", *(f"{name},{name.split('/')[0]}" for name in names)]))
    found = load_dataset(given)
    with open_features(extract(given, str(tiny_model), name="set").path) as file:
        source, paths, hashes = file.attrs["source"], file.paths(), file.hashes().astype(str)
    assert source == found.source
    images = reopen(source)
    assert images.source == source
    assert images.exists()
    for path, sha256 in zip(paths[:20], hashes[:20], strict=True):
        assert hashlib.sha256(images.read(path, sha256)).hexdigest() == sha256
        assert images.read(path) == found.read(found.paths.index(path)) == Path(source, path).read_bytes()


def test_the_source_of_a_folder_and_of_a_manifest_is_the_resolved_folder(photos: Path, tmp_path: Path) -> None:
    """Feature files of earlier versions say the same."""
    (tmp_path / "link").symlink_to(photos)
    (photos / "list.tsv").write_text("path\tlabel\nblue/0.png\tblue\nred/0.png\tred\n")
    for given in ("photos", "./photos/", "link", "link/list.tsv", photos):
        assert load_dataset(given).source == str(photos.resolve())
    assert load_dataset("link").data == str(tmp_path / "link")
    assert load_dataset("link").name == "photos"
    assert load_dataset("digits").data == "digits"


def test_an_image_that_is_gone_or_another_is_one_error(photos: Path) -> None:
    images = open_folder(photos)
    sha256 = hashlib.sha256(images.read("red/0.png")).hexdigest()
    write_image(photos / "red" / "0.png", 4711, 0)
    with pytest.raises(
        ImageReadError,
        match=rf"photos/red/0\.png' has changed since it was embedded: .* which was {sha256[:8]}\. Embed again",
    ):
        images.read("red/0.png", sha256)
    (photos / "red" / "0.png").unlink()
    with pytest.raises(ImageReadError, match=r"Cannot read '.*0\.png': No such file or directory\. Bring it back") as e:
        images.read("red/0.png", sha256)
    assert e.value.reason == "No such file or directory"
    os.mkfifo(photos / "red" / "0.png")
    with pytest.raises(ImageReadError, match="not a regular file"):  # and does not wait for a writer
        images.read("red/0.png")
    assert not reopen(str(photos / "nowhere")).exists()
    with pytest.raises(ImageReadError, match=r"Cannot read 'ftp://x/1\.png': no kind of dataset known here reads"):
        reopen("ftp://x").read("1.png")
    assert not reopen("ftp://x").exists()


def test_pictures_do_not_wait_for_a_pipe(photos: Path, tiny_model: Path) -> None:
    done = extract(photos, str(tiny_model))
    fit_heads([done.path], ["ridge"])
    (found,) = audit([done.path])
    for path in photos.rglob("*.png"):
        path.unlink()
        os.mkfifo(path)
    assert "data:image/jpeg" not in write_report(Path("report.html"))[0].read_text()
    if found.near:
        with pytest.raises(DataError, match="not a regular file"):
            plot_pairs(found, Path("pairs.png"))
    (again,) = audit([done.path])
    assert "compared by cosine alone" in again.calibration.note or not again.calibration.images


def test_an_audit_does_without_the_images_that_are_gone(photos: Path, tiny_model: Path) -> None:
    done = extract(photos, str(tiny_model))
    (photos / "red" / "0.png").unlink()
    write_image(photos / "blue" / "0.png", 4711, 0)
    (found,) = audit([done.path])
    assert found.calibration.images == 22
    assert "copies could be made" not in found.calibration.note


@pytest.mark.usefixtures("zipped", "tinynet")
def test_a_source_from_outside_goes_through_everything(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    for number in range(3):  # pairs for the audit to draw
        (photos / "red" / f"copy {number}.png").write_bytes((photos / "red" / f"{number}.png").read_bytes())
    plain = extract(photos, "tinynet", "random", name="plain")
    path = write_zip(photos)
    for name in list(photos.rglob("*.png")):
        name.unlink()
    done = extract(path.name, "tinynet", "random")
    assert (done.dataset, done.rows, done.embedded) == ("photos", plain.rows, 0)  # known by their content
    with open_features(done.path) as file:
        assert file.attrs["source"] == f"cbz:{path}"
        assert f'"data":"{path}"' in file.attrs["arguments"]
        names, features = file.paths(), file.split("train", "val", "test").features
    images = load_dataset(path)
    found = ImageEmbedder("tinynet", "random", cache=False).transform(map(images.read, range(len(images))))
    expected = dict(zip(names, features, strict=True))
    assert np.array_equal(found, [expected[name] for name in images.paths])
    fit_heads([done.path], ["ridge", "knn"])
    finetune(path, "tinynet", "random", epochs=1, precision="fp32", layout="contiguous")
    (audited,) = audit([done.path])
    assert audited.calibration.images == len(images)
    assert len(audited.exact) == 3
    plot_pairs(audited, tmp_path / "pairs.png")
    page = write_report(Path("report.html"), data="photos")[0].read_text()
    pictures = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) >= 6
    assert all(base64.b64decode(picture)[:2] == b"\xff\xd8" for picture in pictures)
    planned = study([path], plan=True, models=["tinynet"], weights="random", heads=["ridge"])
    assert [step.state for step in planned[:2]] == ["recorded", "recorded"]
    assert "photos.cbz" in CliRunner().invoke(app, ["datasets"]).stdout


@pytest.mark.usefixtures("zipped")
def test_a_dataset_of_another_source_keeps_its_name_while_it_is_there(photos: Path, tiny_model: Path) -> None:
    path = write_zip(photos)
    extract(path, str(tiny_model))
    with pytest.raises(DataError, match=r"holds features of the dataset in 'cbz:.*photos\.cbz'; asked: '.*/photos'"):
        extract(photos, str(tiny_model))
    path.unlink()
    assert extract(photos, str(tiny_model)).embedded == 0


@pytest.mark.slow
@pytest.mark.worker
@pytest.mark.usefixtures("zipped", "sabotaged")
def test_a_source_from_outside_reaches_the_worker_and_the_decoder_that_is_tried_alone(
    photos: Path, tiny_model: Path
) -> None:
    doom(photos / "red" / "crash.png", "crash")
    done = extract(write_zip(photos), str(tiny_model), max_bad=0.2)
    assert (done.rows, done.embedded + done.reused, done.quarantined) == (24, 24, 1)
    with open_features(done.path) as file:
        assert [row[::2] for row in file.quarantine] == [("red/crash.png", "crashes")]


@pytest.mark.worker
@pytest.mark.usefixtures("zipped", "tinynet")
def test_sources_of_images_and_of_backbones_reach_the_worker(photos: Path) -> None:
    load_model("tinynet", "random").onnx()  # which would take the worker long
    done = extract(write_zip(photos), "tinynet", "random")
    assert (done.rows, done.embedded, done.backbone) == (24, 24, "tinynet")


@pytest.mark.worker
def test_a_source_that_the_worker_cannot_import_is_named(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    local = type("Local", (Zipped,), {"__module__": "__main__"})
    monkeypatch.setattr("__main__.Local", local, raising=False)
    monkeypatch.setattr(dataset, "SOURCES", (*dataset.SOURCES, local()))
    words = r"source cannot be imported by the process that extracts .*Define its class in a module, not in a func"
    with pytest.raises(DataError, match=words):
        extract(write_zip(photos), str(tiny_model))
    here = type("Here", (Zipped,), {})
    monkeypatch.setattr(dataset, "SOURCES", (*dataset.SOURCES[:-1], here()))
    with pytest.raises(DataError, match=words):
        extract(photos.with_suffix(".cbz"), str(tiny_model))


OPENS = {"open", "read_bytes", "read_text", "fdopen", "fromfile", "hash_file", "imread", "read_image", "open_memmap"}
NO_IMAGES = {  # what else is opened, by room, by file, or in a room that has images by function
    "__init__.py": "the list of public names",
    "backbones": "weights and networks",
    "bundle/command.py:main": "deployed models",
    "bundle/model.py:load_model": "the same",
    "cli.py:main": "the null device",
    "manual.py": "pages of the manual",
    "tracking/tensorboard.py": "the digest beside the events",
    "deploying/rows.py": "predictions that are written",
    "exchange": "embeddings that were made elsewhere",
    "extraction/claims.py": "who works on a shard",
    "extraction/ledgers.py": "what came of a shard",
    "extraction/merge.py": "what is in shards",
    "extraction/task.py": "what tasks before it left of a shard",
    "extraction/blocks.py:embed_here": "the list of a process of its own",
    "cache": "feature files, their parts, groups",
    "records.py": "records",
    "runs": "records",
    "files.py": "what the cache is made of",
    "machine.py": "what the system says of itself",
    "threads.py": "the same",
    "inventory/entries.py:_entry_of_parts": "the note of who extracts",
    "extraction/target.py:_holder": "the same",
    "extraction/several.py:take": "embeddings that were computed",
    "extraction/forks.py:own_bytes": "what the system says of a process",
    "finetuning/checkpoints.py:latest": "checkpoints",
    "finetuning/saved.py:load_tuned": "weights",
    "finetuning/stored.py": "pixels and activations that were computed",
    "report/inline.py:_template": "templates of pages",
}


def openings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the function and the text of every call in a module that may open a file."""
    for function in ast.walk(ast.parse(path.read_text())):
        for call in ast.walk(function) if isinstance(function, ast.FunctionDef) else ():
            name = getattr(call.func, "attr", getattr(call.func, "id", "")) if isinstance(call, ast.Call) else ""
            if name in OPENS:
                yield function.name, ast.unparse(call)


def test_nothing_outside_datasets_opens_an_image() -> None:
    root, used = Path(tlcache.__file__).parent, set()
    for path in sorted(root.rglob("*.py")):
        file = path.relative_to(root).as_posix()
        for function, call in openings(path):
            allowed = {file.partition("/")[0], file, f"{file}:{function}"} & NO_IMAGES.keys()
            assert allowed or file.startswith("datasets/"), f"{file}: {function} opens a file: {call}"
            used |= allowed
    assert used == NO_IMAGES.keys()  # none of them is out of date
    assert not [call for path in (root / "images").glob("*.py") for _, call in openings(path)]
