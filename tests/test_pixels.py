"""Odd files show the picture that was drawn: every depth, layout and kind of damage, value by value."""

import io
import shutil
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tlcache.cache.feature_file import open_features
from tlcache.errors import OptionError
from tlcache.extraction.embedder import ImageEmbedder
from tlcache.extraction.extract import extract
from tlcache.images import REVISION, BadImageError, Kernel, Preprocess, Stored, changed, decode, prepare
from tlcache.images.notes import BELOW_ZERO, FEW_LEVELS, NOT_OPAQUE, ONE_COLOUR, TRANSPARENT, sentences
from tlcache.inventory.entries import list_cache
from tlcache.probing.fit import fit_heads
from tlcache.report.reproduce import commands
from tlcache.runs.naming import backbone_label

HEIGHT, WIDTH = 24, 32
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]
RGB = np.stack([255 * X // (WIDTH - 1), 255 * Y // (HEIGHT - 1), (7 * X + 3 * Y) % 256], 2).astype(np.uint8)
RGB[:5, :9] = (250, 30, 20)  # so that a turn or a mirror shows
GREY = RGB[:, :, 0] // 2 + RGB[:, :, 1] // 2
GREY[0, 0], GREY[1, 1] = 0, 255
HALF = np.full((HEIGHT, WIDTH), 128, np.uint8)
SHOWN = np.repeat(GREY[:, :, None], 3, 2)
ON_WHITE = np.rint(RGB * (128 / 255) + 127).astype(np.uint8)
HOUNSFIELD = (GREY.astype(np.int16) * 8 - 1024).astype(np.int16)


def tiff(pages: Sequence[tuple[NDArray[Any], dict[int, Any]]], order: str = "<", pack: bool = False) -> bytes:
    """Write an uncompressed TIFF with a strip for each plane, or deflated ones; tags as given or as follows."""
    out, link = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4), 4
    for samples, tags in pages:
        planes = np.moveaxis(samples, -1, 0) if tags.get(284) == 2 else samples[None]
        kind = {"u": 1, "i": 2, "f": 3}[samples.dtype.kind]
        bands = 1 if samples.ndim == 2 else samples.shape[2]
        strips = [plane.astype(plane.dtype.newbyteorder(order)).tobytes() for plane in planes]
        strips = [zlib.compress(strip) for strip in strips] if pack else strips
        at = []
        for strip in strips:
            at.append(len(out))
            out += strip + bytes(len(strip) % 2)
        bits, shape = 8 * samples.itemsize, samples.shape
        entries = {
            256: shape[1],
            257: shape[0],
            258: (bits,) * bands,
            259: 8 if pack else 1,
            262: 2 if bands > 2 else 1,
        }
        entries |= {273: tuple(at), 277: bands, 278: shape[0], 279: tuple(map(len, strips)), 339: (kind,) * bands}
        link = directory(out, link, {**entries, **tags}, order)
    return bytes(out)


def directory(out: bytearray, link: int, entries: dict[int, Any], order: str) -> int:
    """Append a directory and let `link` point to it; return where the link to the next one is."""
    rows = b""
    for tag, value in sorted(entries.items()):
        values = value if isinstance(value, tuple) else (value,)
        data = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            data, place = struct.pack(f"{order}I", len(out)), data
            out += place
        rows += struct.pack(f"{order}HHI", tag, 4, len(values)) + data
    out[link : link + 4] = struct.pack(f"{order}I", len(out))
    out += struct.pack(f"{order}H", len(entries)) + rows + bytes(4)
    return len(out) - 4


def chunk(kind: bytes, content: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content) ^ wrong)


def png(samples: NDArray[Any], *extra: bytes, after: bytes = b"") -> bytes:
    """Write a PNG of 8 or 16 bits, with chunks before and after the pixels."""
    bands = 1 if samples.ndim == 2 else samples.shape[2]
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[bands]
    height, width = samples.shape[:2]
    big = samples.astype(samples.dtype.newbyteorder(">"))
    rows = b"".join(b"\0" + row.tobytes() for row in big)
    header = struct.pack(">IIBBBBB", width, height, 8 * samples.itemsize, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows)), after, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def encode(picture: NDArray[Any] | Image.Image, kind: str, **options: Any) -> bytes:
    image, buffer = picture if isinstance(picture, Image.Image) else Image.fromarray(picture), io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def wide(samples: NDArray[Any], dtype: Any = np.uint16) -> NDArray[Any]:
    return samples.astype(dtype) * dtype(257)


DEEP = {
    "16-bit grey, white is zero": (tiff([(65535 - wide(GREY), {262: 0})]), SHOWN),
    "the same, big-endian": (tiff([(65535 - wide(GREY), {262: 0})], ">"), SHOWN),
    "the same, deflated": (tiff([(65535 - wide(GREY), {262: 0})], pack=True), SHOWN),
    "float grey, white is zero": (tiff([(1 - GREY.astype(np.float32) / 255, {262: 0})]), SHOWN),
    "8-bit grey, white is zero": (tiff([(255 - GREY, {262: 0})]), SHOWN),
    "16-bit planes": (tiff([(wide(RGB), {284: 2})]), RGB),
    "16-bit planes, big-endian": (tiff([(wide(RGB), {284: 2})], ">"), RGB),
    "16-bit planes, deflated": (tiff([(wide(RGB), {284: 2})], pack=True), RGB),
    "16-bit planes with alpha": (tiff([(wide(np.dstack([RGB, HALF])), {284: 2, 338: 2})]), ON_WHITE),
    "8-bit planes": (tiff([(RGB, {284: 2})]), RGB),
    "16-bit RGB called grey": (tiff([(wide(RGB), {262: 1, 338: (0, 0)})]), RGB),
    "five bands of 16 bits": (tiff([(wide(np.dstack([RGB, GREY, GREY])), {338: (0, 0)})]), RGB),
    "float64": (tiff([(GREY / 255.0, {})]), SHOWN),
    "float64, turned": (tiff([(np.rot90(GREY / 255.0), {274: 6})]), SHOWN),
    "float16": (tiff([((GREY / 255.0).astype(np.float16), {})]), SHOWN),
    "float RGB": (tiff([((RGB / 255.0).astype(np.float32), {})]), RGB),
    "32 bits, unsigned": (tiff([(GREY.astype(np.uint32) * 16843009, {})]), SHOWN),
    "CT": (tiff([(HOUNSFIELD, {})]), np.rint((SHOWN.astype(float) * 8) * (255 / 2047))),
    "CT, big-endian": (tiff([(HOUNSFIELD, {})], ">"), np.rint((SHOWN.astype(float) * 8) * (255 / 2047))),
    "floats within -1 and 1": (tiff([((GREY / 127.5 - 1).astype(np.float32), {})]), SHOWN),
    "signed bytes": (tiff([((GREY.astype(int) - 128).astype(np.int8), {})]), SHOWN),
    "16-bit grey with a transparent value": (
        png(wide(GREY), chunk(b"tRNS", struct.pack(">H", 257 * int(GREY[9, 9])))),
        np.where(GREY[9, 9] == SHOWN, 255, SHOWN),
    ),
    "16-bit grey and alpha": (
        png(wide(np.dstack([GREY, HALF]))),
        np.rint(SHOWN * (128 / 255) + 127).astype(np.uint8),
    ),
    "a reduced copy first": (tiff([(RGB[::4, ::4], {254: 1}), (RGB, {254: 0})]), RGB),
    "a reduced copy of planes first": (tiff([(wide(RGB[::4, ::4]), {254: 1}), (wide(RGB), {284: 2})]), RGB),
    "nothing but a reduced copy": (tiff([(RGB, {254: 1})]), RGB),
    "Lab": (encode(Image.new("LAB", (4, 4), (137, 128, 128)), "TIFF"), np.full((4, 4, 3), 128)),
    "CMYK TIFF": (encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF"), np.full((4, 4, 3), (255, 0, 0))),
    "JPEG 2000 of 16 bits": (encode(Image.fromarray(wide(GREY)), "JPEG2000", irreversible=False), SHOWN),
}


def packed(values: NDArray[np.uint16]) -> bytes:
    """Write a TIFF of 12 bits for each sample, two samples in three bytes."""
    even, odd = values.ravel()[0::2], values.ravel()[1::2]
    bits = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], 1).astype(np.uint8).tobytes()
    out = bytearray(b"II*\0") + bytes(4) + bits
    entries = {256: WIDTH, 257: HEIGHT, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: HEIGHT, 279: len(bits)}
    directory(out, 4, entries, "<")
    return bytes(out)


def tiled(samples: NDArray[Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, samples, tile=(16, 16), **options)
    return buffer.getvalue()


DEEP |= {
    "12 bits in a row": (packed(GREY.astype(np.uint16) * 16 + GREY // 16), SHOWN),
    "16-bit planes in tiles": (tiled(np.moveaxis(wide(RGB), 2, 0), planarconfig="separate", photometric="rgb"), RGB),
    "float64 in deflated tiles of a BigTIFF": (tiled(GREY / 255.0, compression="zlib", bigtiff=True), SHOWN),
    "16-bit grey in tiles, white is zero": (tiled(65535 - wide(GREY), photometric="miniswhite"), SHOWN),
}


@pytest.mark.parametrize("name", DEEP)
def test_odd_files_show_what_was_drawn(name: str) -> None:
    data, shown = DEEP[name]
    pixels, stored = decode(data)
    assert pixels.shape == shown.shape
    assert np.abs(pixels.astype(int) - shown).max() <= 1
    assert sorted(stored) == sorted((*shown.shape[:2], 1))


PNG = png(RGB)
JPEG = encode(RGB, "JPEG", quality=95)
EXIF = Image.Exif()
EXIF[0x0112] = 6
TURNED = chunk(b"eXIf", EXIF.tobytes()[6:])
HARMLESS = {
    "a large profile": png(RGB, chunk(b"iCCP", b"icc\0\0" + zlib.compress(bytes(1_200_000)))),
    "a wrong checksum of a comment": png(RGB, chunk(b"tEXt", b"Comment\0hello", 1)),
    "a wrong checksum of a time": png(RGB, chunk(b"tIME", bytes(7), 1)),
    "a wrong checksum after the pixels": png(RGB, after=chunk(b"tEXt", b"Comment\0hello", 1)),
    "a comment that unpacks to megabytes": png(RGB, chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2_000_000)))),
    "a gamma of one byte": png(RGB, chunk(b"gAMA", b"\0")),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_damage_beside_the_pixels_is_none(name: str) -> None:
    assert np.array_equal(decode(HARMLESS[name])[0], RGB)


def test_orientation_outlasts_damage_beside_the_pixels() -> None:
    turned = png(np.rot90(RGB).copy(), TURNED, chunk(b"tEXt", b"Comment\0hello", 1))
    assert np.array_equal(decode(turned)[0], RGB)


@pytest.mark.parametrize("picture", [np.tile(RGB, (3, 3, 1)), np.tile(GREY, (3, 3))], ids=["colour", "grey"])
def test_a_jpeg_without_its_end_is_whole_if_its_pixels_are(picture: NDArray[np.uint8]) -> None:
    whole = encode(picture, "JPEG", quality=95)
    assert np.array_equal(decode(whole[:-2])[0], decode(whole)[0])
    for cut in (*range(4, 40), len(whole) // 2):  # the last byte may be padding
        with pytest.raises(BadImageError, match="truncated"):
            decode(whole[:-cut])


def test_a_progressive_jpeg_without_its_end_may_lack_a_scan() -> None:
    with pytest.raises(BadImageError, match="truncated"):
        decode(encode(RGB, "JPEG", progressive=True)[:-2])


def ftyp(major: bytes, *others: bytes) -> bytes:
    brands = major + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(100)


DICOM = bytes(128) + b"DICM" + bytes(200)
LOSSLESS = JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1)
TWELVE_BITS = JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1)
RAW = tiff([(RGB, {254: 1, 330: 8})])
REFUSED = {
    "heic": (ftyp(b"heic", b"mif1", b"heic"), "damaged", "damaged header of HEIC"),
    "heix": (ftyp(b"heix", b"mif1"), "damaged", "HEIC"),
    "mif1": (ftyp(b"mif1", b"heic"), "damaged", "HEIC"),
    "hevc sequence": (ftyp(b"msf1", b"hevc"), "damaged", "HEIC"),
    "CR3": (ftyp(b"crx ", b"crx ", b"isom"), "unsupported", "camera raw"),
    "CR2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(90), "unsupported", "camera raw"),
    "a raw file with a preview": (RAW, "unsupported", "camera raw .* only a preview"),
    "JPEG XL": (b"\xff\x0a" + bytes(60), "unsupported", "JPEG XL"),
    "JPEG XL in a box": (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(60), "unsupported", "JPEG XL"),
    "DICOM": (DICOM, "not-an-image", "DICOM without pixels"),
    "NIfTI": (struct.pack("<I", 348) + bytes(340) + b"n+1\0" + bytes(40), "unsupported", "NIfTI"),
    "Photoshop": (b"8BPS\0\x01" + bytes(20), "unsupported", "Photoshop"),
    "SVG": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported", "SVG"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "not-an-image", "git lfs pull"),
    "an error page": (b"<!DOCTYPE html>\n<html><title>403</title>", "not-an-image", "a web page"),
    "an error in XML": (b'<?xml version="1.0"?><Error><Code>AccessDenied', "not-an-image", "XML"),
    "a note of Windows": (b"[ZoneTransfer]\r\nZoneId=3\r\n", "not-an-image", "Zone.Identifier"),
    "a video": (ftyp(b"isom", b"iso2", b"mp41"), "not-an-image", "a video"),
    "an archive": (b"PK\x03\x04" + bytes(60), "not-an-image", "an archive"),
    "text": (b"BMW,4\nP1 is none\n", "not-an-image", "starts with 'BMW"),
    "lossless JPEG": (LOSSLESS, "unsupported", r"lossless JPEG \(SOF3\)"),
    "12-bit JPEG": (TWELVE_BITS, "unsupported", "12-bit JPEG"),
    "a header": (PNG[:30], "damaged", "damaged header of PNG .*"),
    "a TIFF that ends early": (tiff([(wide(RGB), {284: 2, 279: (1 << 20,) * 3})]), "truncated", "beyond the file"),
    "LZW of floats": (tiff([(GREY / 255.0, {259: 5})]), "unsupported", "pip install imagecodecs"),
    "a TIFF of many bands": (tiff([(wide(RGB), {256: 9000, 257: 9000, 277: 60_000, 258: 64})]), "too-large", "9000"),
    "not a number": (tiff([(np.full((4, 4), np.nan), {})]), "damaged", "not finite"),
    "a wrong checksum of transparency": (png(RGB, chunk(b"tRNS", bytes(6), 1)), "damaged", "tRNS"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_named(name: str) -> None:
    data, code, words = REFUSED[name]
    with pytest.raises(BadImageError, match=words) as caught:
        decode(data)
    assert caught.value.code == code


NETWORK = Preprocess(HEIGHT, HEIGHT)


def notes_of(data: bytes, preprocess: Preprocess = NETWORK) -> set[str]:
    notes: set[str] = set()
    prepare(data, preprocess, notes=notes)
    return notes


OFFSET = (HOUNSFIELD.astype(int) + 32768).astype(np.uint16)
NEARLY = OFFSET // 64 + 32768 - 512  # few units apart, as soft tissue is


def test_a_window_says_which_values_are_black_and_white() -> None:
    expected = np.clip(np.rint((HOUNSFIELD + 160.0) * (255 / 400)), 0, 255)
    for data, window in (
        (tiff([(HOUNSFIELD, {})]), (-160, 240)),
        (png(OFFSET), (32608, 33008)),
        (tiff([(HOUNSFIELD.astype(np.float64), {})]), (-160, 240)),
        (tiff([(HOUNSFIELD.astype(np.float32), {})], ">"), (-160, 240)),
    ):
        assert np.abs(decode(data, window=window)[0].astype(int) - expected[:, :, None]).max() <= 1
    inverted = decode(tiff([(HOUNSFIELD, {262: 0})]), window=(-160, 240))[0]
    assert np.abs(inverted.astype(int) - (255 - expected[:, :, None])).max() <= 1
    assert np.array_equal(decode(png(GREY), window=(0, 20))[0], SHOWN)  # 8 bits have their window already


def test_a_window_is_part_of_the_preprocessing_where_there_is_one() -> None:
    windowed = Preprocess(window=(-160, 240))
    assert windowed.as_json() == {**Preprocess().as_json(), "window": [-160, 240]}
    assert Preprocess.from_json(windowed.as_json()) == windowed
    assert Preprocess(max_pixels=5).as_json() == Preprocess().as_json()
    for wrong in ((240, -160), (1, 1), (0, float("nan")), (0, float("inf"))):
        with pytest.raises(OptionError, match="the lower one first"):
            Preprocess(window=wrong)


def test_the_largest_image_to_read_is_an_option() -> None:
    size = HEIGHT * WIDTH
    for data in (PNG, JPEG, DEEP["float64"][0], DEEP["16-bit planes"][0], encode(RGB, "AVIF"), encode(RGB, "JPEG2000")):
        assert decode(data, max_pixels=size)[0].shape == RGB.shape
        with pytest.raises(BadImageError, match="--max-pixels") as caught:
            decode(data, max_pixels=size - 1)
        assert caught.value.code == "too-large"


NOTED = {
    "one colour": (png(np.full((40, 40, 3), 7, np.uint8)), {ONE_COLOUR}),
    "one colour but for the border": (png(np.pad(np.full((40, 40), 7, np.uint8), 1)), set[str]()),
    "few levels": (png(NEARLY), {FEW_LEVELS, "divided by 65,535"}),
    "a scan of 12 bits": (png(GREY.astype(np.uint16) * 16), {"divided by 4,095"}),
    "of floats to 1": (tiff([((GREY / 255).astype(np.float32), {})]), {"divided by 1"}),
    "below zero": (tiff([(HOUNSFIELD, {})]), {BELOW_ZERO}),
    "transparent": (png(np.dstack([RGB, HALF * 0])), {TRANSPARENT, ONE_COLOUR}),
    "a band that is called opacity": (tiff([(np.dstack([RGB, GREY // 2 + 9]), {338: 2})]), {NOT_OPAQUE}),
    "a cut-out": (png(np.dstack([RGB, np.where(GREY > 99, 255, 0).astype(np.uint8)])), set[str]()),
    "a photo": (JPEG, set[str]()),
}


@pytest.mark.parametrize("name", NOTED)
def test_what_a_rule_may_hide_is_noted(name: str) -> None:
    data, expected = NOTED[name]
    assert notes_of(data) == expected


def test_notes_are_one_sentence_each() -> None:
    noted = {ONE_COLOUR: list("abcdefg"), "divided by 4,095": ["h"], "divided by 16,383": ["i", "j"], FEW_LEVELS: []}
    one, divided = sentences(noted, windowed=False)
    assert one == "Images of a single colour, as far as the network sees them: 7 (a, b, c, d, e and 2 more)."
    assert divided.startswith("Images of more than 8 bits were divided by 4,095 (1) and 16,383 (2), the largest value")
    assert list(sentences({"divided by 4,095": ["h"]}, windowed=False)) == []
    assert [*sentences({}, windowed=True)] == [
        "--window changed nothing: none of the images is grey with more than 8 bits."
    ]


def test_kinds_that_are_read_otherwise_since_are_told_by_their_headers() -> None:
    same = {"8-bit grey, white is zero", "8-bit planes", "16-bit planes, deflated", "16-bit grey and alpha", "Lab",
            "CMYK TIFF", "12 bits in a row", "JPEG 2000 of 16 bits", "five bands of 16 bits",
            "16-bit RGB called grey"}  # fmt: skip
    assert {name for name, (data, _) in DEEP.items() if not changed(data)} == same
    assert not any(changed(data) for data in (PNG, JPEG, png(wide(GREY)), tiff([(wide(GREY), {})]), b"", b"II*\0"[:2]))


def scans(folder: Path, *, count: int = 12) -> Path:
    """Write two classes of CT, which differ in nothing that lies above zero, and photos beside them."""
    for number in range(count):
        scan = np.full((24, 24), -800, np.int16) + np.arange(24, dtype=np.int16) + np.int16(number)
        scan[8:16, 8:16] += 300 * (number % 2)
        path = folder / "ab"[number % 2] / f"{number:02d}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tiff([(scan, {})]))
        path.with_suffix(".png").write_bytes(png(np.roll(RGB, number, 1)))
    return folder


def test_extract_says_what_a_rule_may_hide(tmp_path: Path, tiny_model: Path) -> None:
    data = scans(tmp_path / "ct")
    (data / "a" / "white.png").write_bytes(png(np.full((40, 40), 255, np.uint8)))
    (data / "b" / "big.png").write_bytes(png(np.tile(RGB, (4, 4, 1))))
    first = extract(data, str(tiny_model), max_pixels=4000, max_bad=0.5)
    below, one = (next(line for line in first.warnings if words in line) for words in ("below zero", "single colour"))
    assert ": 12 (a/00.tif, " in below
    assert "--window" in below
    assert ": 1 (a/white.png)" in one
    assert first.quarantined == 1
    again = extract(data, str(tiny_model), max_pixels=4000, max_bad=0.5)
    assert again.up_to_date
    assert not [line for line in again.warnings if "below zero" in line]  # said of images that were decoded
    larger = extract(data, str(tiny_model), max_bad=0.5)
    assert (larger.quarantined, larger.embedded) == (0, 1)  # the key is the same, what was too large is tried again
    windowed = extract(data, str(tiny_model), window=(-800, -400))
    assert windowed.path != first.path
    assert not [line for line in windowed.warnings if "below zero" in line]
    plain, one = fit_heads([first.path, windowed.path], ["ridge"])
    assert backbone_label(one, [plain, one]) == "tiny window -800,-400"
    assert "--window -800,-400" in commands(one)[0]
    assert "--window" not in commands(plain)[0]


def test_only_rows_that_are_read_otherwise_now_are_computed_anew(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scans(tmp_path / "ct")
    (data / "a" / "heic.png").write_bytes(ftyp(b"heic"))
    with monkeypatch.context() as before:
        before.setattr("tlcache.extraction.rows.REVISION", 1)
        before.setattr("tlcache.extraction.worker.prepare", inverting_tiff)
        old, decoder = rows_of(extract(data, str(tiny_model), max_bad=0.5).path)
    assert decoder == 1
    paths = sorted(data.rglob("*.tif"))
    fresh = ImageEmbedder(str(tiny_model)).transform([*paths, *sorted(data.rglob("[01]*.png"))])
    (entry,) = [each for each in list_cache() if each.state == "kept"]
    assert entry.rows == len(paths)
    shutil.rmtree(entry.path)
    anew = extract(data, str(tiny_model), max_bad=0.5)
    assert (anew.embedded, anew.reused, anew.quarantined) == (len(paths), len(paths), 1)
    new, decoder = rows_of(anew.path)
    assert decoder == REVISION
    assert np.array_equal([new[path.relative_to(data).as_posix()] for path in paths], fresh[: len(paths)])
    assert all(np.array_equal(new[path], old[path]) == path.endswith(".png") for path in new)
    assert extract(data, str(tiny_model), max_bad=0.5).up_to_date


def rows_of(path: Path) -> tuple[dict[str, NDArray[np.float32]], int]:
    """Return the rows of a feature file by their paths, and by which revision of the decoder it was made."""
    with open_features(path) as file:
        return dict(zip(file.paths(), file.features(np.arange(len(file))), strict=True)), file.attrs["decoder"]


def inverting_tiff(
    data: bytes, preprocess: Preprocess, out: NDArray[np.uint8], notes: set[str], kernel: Kernel
) -> tuple[NDArray[np.uint8], Stored]:
    """Decode as an earlier revision might have."""
    pixels, stored = prepare(data, preprocess, out, notes, kernel)
    if data.startswith(b"II"):
        pixels[:] = 255 - pixels
    return pixels, stored
