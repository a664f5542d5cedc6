"""The scikit-learn transformer: the same embeddings as `extract`, and none of them twice."""

import io
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from tlcache.backbones.network import Network
from tlcache.cache.feature_file import open_features
from tlcache.deploying.export import export
from tlcache.errors import DataError, OptionError, UnknownNameError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.inventory.entries import list_cache


@pytest.fixture
def paths(photos: Path) -> list[Path]:
    return sorted(photos.rglob("*.png"))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of every batch that goes through a network."""
    seen: list[int] = []

    def spy(network: Network, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        seen.append(len(images))
        return embed(network, images)

    embed = Network.embed
    monkeypatch.setattr(Network, "embed", spy)
    return seen


def test_embeddings_are_those_of_extract_which_are_not_computed_again(
    photos: Path, paths: list[Path], tiny_model: Path, batches: list[int]
) -> None:
    fresh = ImageEmbedder(str(tiny_model), cache=False).transform(paths)
    assert fresh.dtype == np.float32
    assert sum(batches) == len(paths)
    with open_features(extract(photos, str(tiny_model)).path) as file:
        split = file.split("train", "val", "test")
    expected = dict(zip(split.paths, split.features, strict=True))
    assert np.array_equal(fresh, [expected[str(path.relative_to(photos))] for path in paths])
    batches.clear()
    again = ImageEmbedder(str(tiny_model)).transform(paths)
    assert np.array_equal(again, fresh)
    assert not batches


def test_a_layer_is_embedded_and_exported_as_extract_has_it(photos: Path, paths: list[Path], tmp_path: Path) -> None:
    found = ImageEmbedder("resnet20_cifar", output="stage:1").transform(paths[:3])
    done = extract(photos, "resnet20_cifar", output="stage:1")
    assert done.reused == 3
    with open_features(done.path) as file:
        split = file.split("train", "val", "test")
    rows = dict(zip(split.paths, split.features, strict=True))
    assert np.array_equal(found, [rows[str(path.relative_to(photos))] for path in paths[:3]])
    alone = export(model="resnet20_cifar", layer="stage:1", out=tmp_path / "stage.onnx").path
    assert np.allclose(ImageEmbedder(str(alone)).transform(paths[:3]), found, atol=1e-5)
    with pytest.raises(OptionError, match="own weights, layer and pooling"):
        export("x", layer="stage:1", out=tmp_path / "x.onnx")


def test_nothing_is_embedded_twice(paths: list[Path], tiny_model: Path, batches: list[int]) -> None:
    embedder = ImageEmbedder(str(tiny_model))
    first = embedder.transform([*paths[:6], paths[0]])
    assert sum(batches) == 6
    assert np.array_equal(first[0], first[6])
    rest = clone(embedder).transform(paths)
    assert sum(batches) == len(paths)
    assert np.array_equal(rest[:6], first[:6])


def test_paths_pictures_and_arrays_are_the_same_images(paths: list[Path], tiny_model: Path) -> None:
    embedder = ImageEmbedder(str(tiny_model))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    arrays = np.stack([np.asarray(picture) for picture in pictures])
    by_path = embedder.transform([str(path) for path in paths])
    assert np.array_equal(embedder.transform(pictures), by_path)
    assert np.array_equal(embedder.transform(arrays), by_path)
    assert np.array_equal(embedder.transform([path.read_bytes() for path in paths]), by_path)
    assert embedder.transform([arrays[0][:, :, 0]]).shape == (1, 8)


def test_no_images_are_rows_of_as_many_numbers(paths: list[Path], tiny_model: Path, batches: list[int]) -> None:
    for _ in range(2):  # without and with some that are kept
        none = ImageEmbedder(str(tiny_model)).transform([])
        assert (none.shape, none.dtype) == ((0, 8), np.float32)
        assert np.concatenate([none, ImageEmbedder(str(tiny_model)).transform(paths[:2])]).shape == (2, 8)
    assert sum(batches) == 2


PIXELS = np.zeros((3, 20, 3), np.uint8)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("one.png", "A single image was given"),
        (Path("one.png"), "A single image was given"),
        (b"\x89PNG", "A single image was given"),
        (np.array("one.png"), "A single image was given"),
        (Image.fromarray(PIXELS), "A single image was given"),
        (PIXELS, "A single image was given"),
        (PIXELS[:, :, 0], "A single image was given"),
        (np.zeros((20, 20, 4), np.float32), "A single image was given"),
        (np.array([["a.png", "cat"], ["b.png", "dog"]]), "A table was given"),
        ({"path": ["a.png"]}, "A table was given"),
        (None, "NoneType was given"),
        (7, "int was given"),
    ],
)
def test_what_is_no_list_of_images_is_refused_with_the_way_out(given: object, words: str, tiny_model: Path) -> None:
    with pytest.raises(DataError, match=rf"^{words}, where a list of images is expected.*transform\("):
        ImageEmbedder(str(tiny_model)).transform(given)


def test_lists_in_every_form_are_images(tiny_model: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (4, 20, 20), np.uint8)
    embedder = ImageEmbedder(str(tiny_model), cache=False)
    expected = embedder.transform(list(grey))
    assert len(np.unique(expected, axis=0)) == 4
    for given in (grey, tuple(grey), iter(grey), [Image.fromarray(each) for each in grey]):
        assert np.array_equal(embedder.transform(given), expected)


def deep(high: int, offset: int = 0) -> Image.Image:
    """Return a picture of 16 bits with values up to `high`."""
    return Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * (high // 400) + offset)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (
            [Image.new("RGB", (20, 20), "red"), np.full((9, 9), 7, np.uint8)],
            "of a single colour.*: 2 .image 0, image 1",
        ),
        ([deep(4000), deep(60_000)], r"were divided by 4,095 \(1\) and 65,535 \(1\)"),
        ([deep(400, 20_000)], r"fewer than 16 grey levels are left: 1 \(image 0\)"),
        ([Image.new("RGBA", (20, 20), (9, 9, 9, 0))], "of a single colour.*\n.*wholly transparent.*: 1 .image 0"),
        ([deep(4000), deep(4000, 1)], ""),
    ],
)
def test_what_extract_warns_of_in_pixels_is_told(
    images: list[object], words: str, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    as_files = [encode(image, "PNG") if isinstance(image, Image.Image) else image for image in images]
    for given in (images, as_files):  # a picture of Pillow's is told as its file is
        caplog.clear()
        ImageEmbedder(str(tiny_model), cache=False).transform(given)
        assert len(caplog.messages) == len(words.splitlines())
        assert re.search(words, "\n".join(caplog.messages))


def test_warnings_of_pixels_are_told_when_some_are_embedded_and_kept_for_others(
    tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flat, other = np.zeros((9, 9), np.uint8), np.arange(81, dtype=np.uint8).reshape(9, 9)
    for images, told in (([flat], 1), ([flat], 0), ([flat, other], 1), ([other], 0)):
        caplog.clear()
        ImageEmbedder(str(tiny_model)).transform(images)
        assert len(caplog.messages) == told


def odd_files() -> dict[str, bytes]:
    """Files of every orientation and mode, none of which reads the same turned, mirrored or inverted."""
    grey = np.add.outer(np.arange(24), 3 * np.arange(40)).astype(np.uint8)
    picture = Image.fromarray(np.stack([grey, grey // 2, 255 - grey], 2))
    files = {}
    for turned in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turned
        files |= {f"{kind} {turned}": encode(picture, kind, exif=exif) for kind in ("JPEG", "PNG", "TIFF")}
    for mode in ("1", "L", "LA", "P", "RGBA", "CMYK", "YCbCr", "LAB"):
        kind = "PNG" if mode in ("LA", "P") else "TIFF"
        image = Image.new("LAB", (8, 8), (99, 128, 150)) if mode == "LAB" else picture.convert(mode)
        # Pillow before 13 cannot read YCbCr that is not compressed.
        files[mode] = encode(image, kind, compression="jpeg") if mode == "YCbCr" else encode(image, kind)
    for dtype in (np.uint16, np.int32, np.float32):
        files[f"grey {dtype}"] = encode(Image.fromarray(grey.astype(dtype) * dtype(100)), "TIFF")
    files["16-bit PNG"] = encode(Image.fromarray(grey.astype(np.uint16) * 16), "PNG")
    files["white is zero"] = encode(Image.fromarray(grey.astype(np.uint16) * 16), "TIFF", tiffinfo={262: 0})
    files["a transparent colour"] = encode(picture, "PNG", transparency=(0, 0, 255))
    files["CMYK JPEG"] = encode(picture.convert("CMYK"), "JPEG")
    return files


def encode(picture: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def test_pictures_of_pillows_are_what_their_files_are(tiny_model: Path) -> None:
    files = odd_files()
    pictures = [Image.open(io.BytesIO(data)) for data in files.values()]
    embedder = ImageEmbedder(str(tiny_model), cache=False)
    by_file, by_picture = embedder.transform(files.values()), embedder.transform(pictures)
    for name, expected, found in zip(files, by_file, by_picture, strict=True):
        assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max(), name
    assert len(np.unique(by_file, axis=0)) > 10
    assert pictures[4].getexif()[0x0112] == 2  # they are left as they were


def test_a_window_holds_for_files_and_pictures(tiny_model: Path) -> None:
    data = encode(Image.fromarray((np.arange(32, dtype=np.uint16) + 30_000).repeat(24).reshape(24, 32)), "PNG")
    windowed = ImageEmbedder(str(tiny_model), window=(30_000, 30_031), cache=False)
    by_file, by_picture = windowed.transform([data, Image.open(io.BytesIO(data))])
    assert np.array_equal(by_file, by_picture)
    assert not np.allclose(by_file, ImageEmbedder(str(tiny_model), cache=False).transform([data])[0])


def test_extract_uses_what_was_embedded_before_and_knows_what_it_cost(
    photos: Path, paths: list[Path], tiny_model: Path, batches: list[int]
) -> None:
    embedder = ImageEmbedder(str(tiny_model))
    expected = embedder.transform(paths[:10])
    (entry,) = list_cache()
    assert (entry.state, entry.backbone, entry.rows, entry.dim, entry.dataset) == ("kept", "tiny", 10, 8, "")
    batches.clear()
    done = extract(photos, str(tiny_model))
    assert (done.embedded, done.reused) == (14, 10)
    assert sum(batches) == 14
    with open_features(done.path) as file:
        found = dict(zip(file.paths(), file.features(np.arange(24)), strict=True))
        assert min(file.attrs[stage] for stage in ("decode_s", "infer_s", "wall_s")) > 0
    assert np.array_equal([found[path.relative_to(photos).as_posix()] for path in paths[:10]], expected)
    (kept,) = (path for path in entry.path.iterdir())
    kept.write_bytes(kept.read_bytes()[:-1])  # a damaged part is computed again
    batches.clear()
    assert np.array_equal(embedder.transform(paths[:10]), expected)
    assert not batches  # they are in the feature file as well
    done.path.unlink()
    assert np.array_equal(embedder.transform(paths[:10]), expected)
    assert sum(batches) == 10


def test_parts_are_written_on_the_way(
    paths: list[Path], tiny_model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tlcache.extraction.embedder._PART_ROWS", 8)
    embedder = ImageEmbedder(str(tiny_model))
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="not an image"):
        embedder.transform([*paths, tmp_path / "broken.png"])
    (entry,) = list_cache()
    assert entry.rows >= 8
    assert len(list(entry.path.iterdir())) == entry.rows // 8


def test_a_grid_search_embeds_every_image_once(paths: list[Path], tiny_model: Path, batches: list[int]) -> None:
    labels = [path.parent.name for path in paths]
    pipeline = make_pipeline(ImageEmbedder(str(tiny_model)), LogisticRegression())
    grid = GridSearchCV(pipeline, {"logisticregression__C": [0.1, 1.0, 10.0]}, cv=3).fit(paths, labels)
    assert grid.best_score_ > 0.9
    assert sum(batches) == len(paths)


def test_bad_images_are_named(paths: list[Path], tiny_model: Path, tmp_path: Path) -> None:
    embedder = ImageEmbedder(str(tiny_model))
    broken = tmp_path / "broken.png"
    broken.write_bytes(paths[0].read_bytes()[:40])
    with pytest.raises(DataError, match=r"broken\.png' cannot be used: .*Leave it out"):
        embedder.transform([paths[0], broken])
    with pytest.raises(DataError, match=r"Cannot read '.*gone\.png': No such file"):
        embedder.transform([tmp_path / "gone.png"])
    with pytest.raises(DataError, match=r"Image 1 is no image: expected a path, .* found float64 \(8, 8\)"):
        embedder.transform([paths[0], np.zeros((8, 8))])
    with pytest.raises(UnknownNameError, match="Unknown backbone"):
        ImageEmbedder("resnet51").transform(paths)
