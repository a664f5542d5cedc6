"""`--jpeg-size`: how small JPEGs are decoded, which is part of the key where it is asked for."""

import io
from dataclasses import replace
from hashlib import sha256 as sha256_of
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcache.auditing.copies import _model as copied_by
from tlcache.backbones.load import load_again, load_model
from tlcache.bundle import load_model as load_bundle
from tlcache.cache.feature_file import open_features
from tlcache.datasets.folder import open_folder
from tlcache.deploying.export import export
from tlcache.errors import UnknownNameError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.finetuning.pixels import open_pixels
from tlcache.images import Preprocess, decode, prepare
from tlcache.probing.fit import fit_heads
from tlcache.report.reproduce import commands

USUAL = Preprocess(64, 48)
FULL, NEAREST = (replace(USUAL, jpeg_size=size) for size in ("full", "nearest"))
ROWS, COLUMNS = np.mgrid[:400, :500]
PICTURE = Image.fromarray(np.stack([ROWS * 0.6, COLUMNS * 0.5, (ROWS + COLUMNS) * 0.25], 2).astype(np.uint8))


def jpeg(image: Image.Image = PICTURE, kind: str = "JPEG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return jpeg(exif=exif)


KINDS = {
    "4:2:0": jpeg(subsampling=2),
    "4:4:4": jpeg(subsampling=0),
    "progressive": jpeg(progressive=True),
    "grey": jpeg(PICTURE.convert("L")),
    "CMYK": jpeg(PICTURE.convert("CMYK")),
    "a camera's, with a preview": jpeg(kind="MPO", save_all=True, append_images=[PICTURE.resize((50, 40))]),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("preprocess", "shape"), [(FULL, (400, 500)), (USUAL, (200, 250)), (NEAREST, (100, 125))], ids=["full", "", "near"]
)
def test_jpegs_are_decoded_as_small_as_asked(kind: str, preprocess: Preprocess, shape: tuple[int, int]) -> None:
    assert decode(KINDS[kind], preprocess.at_least)[0].shape == (*shape, 3)
    found, stored = prepare(KINDS[kind], preprocess)
    assert stored[:2] == (500, 400)
    assert np.abs(found.astype(int) - prepare(KINDS[kind], FULL)[0]).max() <= 4


def test_a_turned_jpeg_is_decoded_small_and_upright() -> None:
    assert decode(turned(), NEAREST.at_least)[0].shape == (125, 100, 3)
    assert np.abs(prepare(turned(), NEAREST)[0].astype(int) - prepare(turned(), FULL)[0]).max() <= 4


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_other_formats_are_what_they_were(kind: str) -> None:
    found = [prepare(jpeg(kind=kind), preprocess)[0] for preprocess in (USUAL, FULL, NEAREST)]
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize(
    ("preprocess", "at_least"),
    [
        (Preprocess(256, 224), 512),
        (Preprocess(256, 224, jpeg_size="nearest"), 256),
        (Preprocess(60, 40, shape=(40, 80), jpeg_size="nearest"), 120),  # the long side, as an image may be turned
        (Preprocess(256, 224, jpeg_size="full"), None),
        (Preprocess(256, 224, crop_borders=True, jpeg_size="nearest"), None),  # borders decide what is resized
    ],
)
def test_what_a_jpeg_is_decoded_at_follows_from_what_is_resized(preprocess: Preprocess, at_least: int | None) -> None:
    assert preprocess.at_least == at_least
    assert Preprocess.from_json(preprocess.as_json()) == preprocess


def test_it_is_part_of_the_key_where_it_is_asked_for(tiny_model: Path) -> None:
    keys = {size: load_model(str(tiny_model), jpeg_size=size).key for size in (None, "twice", "full", "nearest")}
    assert keys[None] == keys["twice"]
    assert len(set(keys.values())) == 3
    assert "jpeg_size" not in USUAL.as_json()
    assert len({each.pixels for each in (USUAL, FULL, NEAREST)}) == 3  # one decode does not do for all
    assert ImageEmbedder(str(tiny_model), jpeg_size="nearest")._model().key == keys["nearest"]
    with pytest.raises(UnknownNameError, match="Unknown size of JPEGs 'nearst'. Did you mean 'nearest'"):
        Preprocess(jpeg_size="nearst")


def test_all_that_a_run_is_used_for_decodes_as_it_did(tmp_path: Path, tiny_model: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "photos" / ("dark", "light")[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        levels = random.integers(0, 120, (70, 90, 3)) + 120 * (number % 2)
        path.write_bytes(jpeg(Image.fromarray(levels.astype(np.uint8))))
    usual, near = (extract(tmp_path / "photos", str(tiny_model), jpeg_size=size) for size in (None, "nearest"))
    assert (near.embedded, near.path.name == usual.path.name) == (24, False)
    rows = []
    for each in (usual, near):
        with open_features(each.path) as file:
            rows.append(np.sort(file.split("train").features, 0))
            assert copied_by(file).key == file.attrs["key"]
    assert np.abs(rows[0] - rows[1]).max() > 1e-4
    (run,) = fit_heads([near.path], ["ridge"])
    assert load_again(run.extract_arguments).preprocess.jpeg_size == "nearest"
    assert "--jpeg-size nearest" in commands(run)[0]
    assert load_bundle(export(run.path, out=tmp_path / "photos.onnx").path).preprocess.jpeg_size == "nearest"


def test_fine_tuning_decodes_as_it_is_asked_to(tmp_path: Path) -> None:
    (tmp_path / "0.jpg").write_bytes(KINDS["4:2:0"])
    path, sha256, opened = str(tmp_path / "0.jpg"), sha256_of(KINDS["4:2:0"]).hexdigest(), []
    for preprocess in (USUAL, NEAREST):
        pixels = open_pixels(open_folder(), [path], [sha256], preprocess)
        opened.append(pixels.images.rows[0][:, pixels.centre, pixels.centre])
        assert np.array_equal(opened[-1], prepare(KINDS["4:2:0"], preprocess)[0])
    assert not np.array_equal(*opened)
