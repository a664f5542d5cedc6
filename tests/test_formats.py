"""DICOM and HEIC, which packages of their own read, and every format through the worker, by the values of pixels."""

import io
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    MPEG2MPML,
    CTImageStorage,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from tlcache.cache.feature_file import open_features
from tlcache.extraction.extract import extract
from tlcache.images import FORMATS, BadImageError, decode

SLOPE = np.add.outer(np.arange(24), np.arange(32))  # 0 to 54
GREY = (SLOPE * 4).astype(np.uint8)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], 2)
CT = (SLOPE * 60 - 1024).astype(np.int16)  # -1024 to 2216
WINDOW = {"WindowCenter": 40, "WindowWidth": 400}


def dicom(values: NDArray[Any], syntax: str = ExplicitVRLittleEndian, stored: int = 0, **elements: Any) -> bytes:
    """Return a file with these elements; pixels are uint or int (H, W), (H, W, 3) or (frames, H, W)."""
    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax)
    file.SOPClassUID = file.file_meta.MediaStorageSOPClassUID = CTImageStorage
    file.SOPInstanceUID = file.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    file.Modality = "CT"
    colour = values.shape[-1] == 3
    file.SamplesPerPixel = 3 if colour else 1
    file.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        file.PlanarConfiguration = 0
    if values.ndim == 3 and not colour:
        file.NumberOfFrames = len(values)
    file.Rows, file.Columns = values.shape[:2] if colour else values.shape[-2:]
    file.BitsAllocated = 8 * values.dtype.itemsize
    file.BitsStored = stored or file.BitsAllocated
    file.HighBit = file.BitsStored - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    file.PixelData = values.tobytes()
    for name, value in elements.items():
        if value is None:
            del file[name]
        else:
            setattr(file, name, value)
    if "PixelData" in file:
        file["PixelData"].VR = "OW" if file.BitsAllocated > 8 else "OB"
    if syntax == RLELossless:
        file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        file.compress(RLELossless)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, file, enforce_file_format=True)
    return stream.getvalue()


def encode(pixels: NDArray[Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(Image.fromarray(pixels)).save(stream, quality=-1, chroma=444, **options)
    else:
        Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def packed(pixels: NDArray[Any], kind: str, syntax: str, **elements: Any) -> bytes:
    """Return a DICOM file whose pixels are those of another format's file."""
    return dicom(pixels, syntax, PixelData=encapsulate([encode(pixels, kind)]), **elements)


def linear(values: NDArray[Any], centre: float = 40, width: float = 400) -> NDArray[Any]:
    """Return the grey levels of DICOM PS3.3, C.11.2.1.2.1, as its text has them."""
    y = ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255
    y[values <= centre - 0.5 - (width - 1) / 2] = 0
    y[values > centre - 0.5 + (width - 1) / 2] = 255
    return y


def item(**elements: Any) -> list[Dataset]:
    found = Dataset()
    for name, value in elements.items():
        setattr(found, name, value)
    return [found]


STORED = (CT + 1024).astype(np.uint16)  # as scanners store it
RESCALED = {"RescaleSlope": 1, "RescaleIntercept": -1024}
GROUPED = {
    "PerFrameFunctionalGroupsSequence": item(FrameVOILUTSequence=item(**WINDOW)),
    "SharedFunctionalGroupsSequence": item(PixelValueTransformationSequence=item(**RESCALED)),
}
TABLE = item(LUTDescriptor=[256, 0, 16], LUTData=(np.arange(255, -1, -1) * 257).astype(np.uint16).tobytes())
PALETTE = {
    "PhotometricInterpretation": "PALETTE COLOR",
    **{f"{name}PaletteColorLookupTableDescriptor": [256, 0, 16] for name in ("Red", "Green", "Blue")},
    "RedPaletteColorLookupTableData": (np.arange(256) * 257).astype(np.uint16).tobytes(),
    "GreenPaletteColorLookupTableData": (np.arange(255, -1, -1) * 257).astype(np.uint16).tobytes(),
    "BluePaletteColorLookupTableData": (np.arange(256) // 2 * 257).astype(np.uint16).tobytes(),
}
READ: dict[str, tuple[bytes, NDArray[Any], float]] = {  # file, what it shows, and how far off it may be
    "CT in its window": (dicom(STORED, **RESCALED, **WINDOW), linear(CT), 0.5),
    "the first of several windows": (
        dicom(CT, WindowCenter=[40, 600], WindowWidth=[400, 2000]),
        linear(CT),
        0.5,
    ),
    "a slope": (
        dicom(SLOPE.astype(np.uint16), RescaleSlope=0.5, RescaleIntercept=2, **WINDOW),
        linear(SLOPE / 2 + 2),
        0.5,
    ),
    "white as zero": (dicom(CT, PhotometricInterpretation="MONOCHROME1", **WINDOW), 255 - linear(CT), 0.5),
    "exact": (
        dicom(CT, VOILUTFunction="LINEAR_EXACT", **WINDOW),
        np.clip((CT + 160.0) * 255 / 400, 0, 255),
        0.5,
    ),
    "sigmoid": (dicom(CT, VOILUTFunction="SIGMOID", **WINDOW), 255 / (1 + np.exp(-4 * (CT - 40.0) / 400)), 0.5),
    "a threshold": (dicom(CT, WindowCenter=40, WindowWidth=1), np.where(CT > 39.5, 255, 0), 0),
    "a window of no width": (dicom(GREY, WindowCenter=40, WindowWidth=0), GREY, 0),
    "12 bits without a window": (dicom((SLOPE * 70).astype(np.uint16), stored=12), SLOPE * 70 * 255 / 4095, 0.5),
    "below zero without a window": (dicom((SLOPE - 30).astype(np.int16)), (SLOPE - 30 + 128), 0.5),
    "8 bits": (dicom(GREY), GREY, 0),
    "4 bits": (dicom((SLOPE // 4).astype(np.uint8), stored=4), SLOPE // 4 * 17, 0),
    "8 bits and a window": (dicom(GREY, WindowCenter=100, WindowWidth=50), linear(GREY * 1.0, 100, 50), 0.5),
    "a table of grey levels": (dicom(GREY, VOILUTSequence=TABLE), 255 - GREY, 0),
    "colours": (dicom(RGB), RGB, 0),
    "16-bit colours": (dicom(RGB.astype(np.uint16) * 257), RGB, 0),
    "a palette": (dicom(GREY, **PALETTE), RGB, 0),
    "runs": (dicom(STORED, RLELossless, **RESCALED, **WINDOW), linear(CT), 0.5),
    "JPEG": (packed(RGB, "JPEG", JPEGBaseline8Bit, PhotometricInterpretation="YBR_FULL_422"), RGB, 16),
    "JPEG 2000": (packed(GREY, "JPEG2000", JPEG2000Lossless), GREY, 0),
    "an enhanced image": (dicom(np.stack([STORED, STORED * 0]), **GROUPED), linear(CT), 0.5),
    "HEIC": (encode(RGB, "HEIF"), RGB, 3),
    "HEIC, grey": (encode(GREY, "HEIF"), GREY, 2),
    "HEIC with transparency": (encode(np.dstack([RGB, GREY * 0]), "HEIF"), RGB * 0 + 255, 2),
}


@pytest.mark.parametrize("name", READ)
def test_pixels_are_those_of_the_standard(name: str) -> None:
    data, shown, off = READ[name]
    pixels, stored = decode(data)
    assert pixels.dtype == np.uint8
    assert stored == (32, 24, 2 if name == "an enhanced image" else 1)
    expected = shown if shown.ndim == 3 else np.repeat(shown[:, :, None], 3, 2)
    assert np.abs(pixels - expected.astype(float)).max() <= off + 1e-3


def test_a_window_that_is_asked_for_takes_the_place_of_the_files_own() -> None:
    assert np.array_equal(
        decode(dicom(STORED, **RESCALED, **WINDOW), window=(-160, 240))[0][:, :, 0],
        np.clip(np.rint((CT + 160.0) * (255 / 400)), 0, 255),
    )
    inverted = decode(dicom(CT, PhotometricInterpretation="MONOCHROME1", **WINDOW), window=(0, 100))[0]
    assert inverted[CT < 0].min() == 255
    assert np.array_equal(decode(dicom(GREY), window=(0, 20))[0][:, :, 1], GREY)  # 8 bits have their window already


def cut(data: bytes) -> bytes:
    return data[: len(data) - len(data) // 5]


REFUSED: dict[str, tuple[Callable[[], bytes], str, str]] = {
    "without pixels": (lambda: dicom(GREY, PixelData=None, Modality="SR"), "not-an-image", r"without pixels \(SR\)"),
    "without a size": (lambda: dicom(GREY, Rows=None), "damaged", "it has no 'Rows'"),
    "cut off": (lambda: cut(dicom(CT)), "damaged", "less than expected"),
    "a video": (lambda: dicom(GREY, MPEG2MPML, PixelData=encapsulate([bytes(90)])), "unsupported", "a video in DICOM"),
    "pixels of another size": (
        lambda: packed(GREY[:9, :9].copy(), "JPEG2000", JPEG2000Lossless, Rows=24, Columns=32), "damaged", "DICOM",
    ),
    "no JPEG": (
        lambda: dicom(RGB, JPEGBaseline8Bit, PixelData=encapsulate([b"\xff\xd8 none"])), "damaged", "JPEG Baseline",
    ),
    "a box without a length": (
        lambda: re.sub(rb"(?s)\0\0\0.(?=jp2h)", bytes(4), READ["JPEG 2000"][0]), "damaged", "box .* has 0 bytes",
    ),
    "HEIC cut off": (lambda: cut(READ["HEIC"][0]), "damaged", "HEIC"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_used_says_why(name: str) -> None:
    make, code, words = REFUSED[name]
    with pytest.raises(BadImageError, match=words) as caught:
        decode(make())
    assert caught.value.code == code


@pytest.mark.parametrize("name", ["CT in its window", "HEIC"])
def test_large_images_are_refused_before_they_are_decoded(name: str) -> None:
    assert decode(READ[name][0], max_pixels=24 * 32)[0].shape == (24, 32, 3)
    with pytest.raises(BadImageError, match="32 x 24 is more than 767 pixels; --max-pixels") as caught:
        decode(READ[name][0], max_pixels=24 * 32 - 1)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("CT in its window", "pydicom", "dicom"), ("HEIC", "pillow_heif.as_plugin", "heic")]
)
def test_without_its_package_a_format_names_it_and_is_read_once_it_is_there(
    name: str, module: str, extra: str, photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "red" / "scan").write_bytes(READ[name][0])
    with monkeypatch.context() as without:
        without.setitem(sys.modules, module, None)
        bad = extract(photos, str(tiny_model))
    with open_features(bad.path) as file:
        ((path, _, code, message),) = file.quarantine
    assert (path, code) == ("red/scan", "unsupported")
    assert f"pip install 'tlcache[{extra}]'" in message
    good = extract(photos, str(tiny_model))
    assert (good.embedded, good.reused, good.quarantined) == (1, 24, 0)


TGA = bytes((0, 0, 2)) + bytes(9) + bytes((32, 0, 24, 0, 24, 0)) + RGB.tobytes()
OTHERS = {
    "TGA": TGA,
    "TGA with a palette": encode(GREY, "TGA"),
    "TGA in runs": encode(RGB, "TGA", compression="tga_rle"),
    "PCX": encode(RGB, "PCX"),
    "SGI": encode(RGB, "SGI"),
    "DDS": encode(RGB, "DDS"),
    "QOI": b"qoif\0\0\0\x20\0\0\0\x18\x03\0" + bytes(90),
    "XBM": b"#define im_width 8\n#define im_height 1\n",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_formats_are_named(name: str) -> None:
    with pytest.raises(BadImageError, match=f"{name.split()[0]} is not supported; convert it to PNG or JPEG") as caught:
        decode(OTHERS[name])
    assert caught.value.code == "unsupported"


def test_what_is_no_image_is_told_what_is_read() -> None:
    with pytest.raises(BadImageError, match="read are AVIF, BMP, DICOM, GIF, HEIC, JPEG, JPEG 2000, PNG, PPM, TIFF"):
        decode(b"\x13\x37 something of its own")


EVERY = {
    "avif": encode(RGB, "AVIF", quality=100, subsampling="4:4:4"),
    "bmp": encode(RGB, "BMP"),
    "dcm": dicom(RGB),
    "gif": encode(np.repeat(GREY[:, :, None] // 16 * 16, 3, 2), "GIF"),
    "heic": READ["HEIC"][0],
    "jpg": encode(RGB, "JPEG", quality=95, subsampling=0),
    "jp2": encode(RGB, "JPEG2000"),
    "mpo": encode(RGB, "MPO", quality=95, subsampling=0),
    "png": encode(RGB, "PNG"),
    "ppm": encode(RGB, "PPM"),
    "tif": encode(RGB, "TIFF"),
    "webp": encode(RGB, "WEBP", lossless=True),
}
EXACT = {"bmp", "dcm", "jp2", "png", "ppm", "tif", "webp"}


@pytest.mark.worker
def test_twelve_formats_go_through_the_worker(tmp_path: Path, tiny_model: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / "set" / label).mkdir(parents=True)
        for ending, data in EVERY.items():
            (tmp_path / "set" / label / f"1.{ending}").write_bytes(data + (b"" if label == "a" else b"\0"))
    done = extract(tmp_path / "set", str(tiny_model))
    assert (done.rows, done.quarantined) == (24, 0)
    with open_features(done.path) as file:
        rows = file.split("train", "val", "test")
    found = {path: row for path, row in zip(rows.paths, rows.features, strict=True) if path.startswith("a/")}
    png = found["a/1.png"]
    assert all(np.array_equal(found[f"a/1.{ending}"], png) for ending in EXACT)
    near = (found[f"a/1.{ending}"] for ending in EVERY.keys() - EXACT - {"gif"})
    assert all(np.abs(row - png).max() < 0.05 * np.abs(png).max() for row in near)
    assert len(EVERY) == 12
    assert len(FORMATS) == 11  # MPO is a JPEG
