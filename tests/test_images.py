import contextlib
import io
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlcache.errors import OptionError, UnknownNameError
from tlcache.images import BadImageError, Preprocess, by_numpy, by_torch, cut_borders, decode, fit, prepare

RANDOM = np.random.default_rng(0)
WAVES = np.stack(
    [np.add.outer(np.sin(np.arange(90) / (7 + c)), np.cos(np.arange(120) / (5 + c))) * 60 + 128 for c in range(3)], 2
).astype(np.uint8)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def colour_of(data: bytes) -> list[int]:
    pixels, _ = decode(data)
    return pixels[0, 0].tolist()


@pytest.mark.parametrize("kind", ["BMP", "PNG", "PPM", "TIFF", "GIF", "WEBP", "JPEG"])
def test_every_format_is_read(kind: str) -> None:
    image = Image.fromarray(np.full((8, 8, 3), (200, 100, 50), np.uint8))
    assert np.abs(np.array(colour_of(encode(image, kind))) - (200, 100, 50)).max() <= 8


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(90, 120), (120, 90), (64, 64), (40, 50)])
def test_pixels_are_those_of_torchvisions_presets(interpolation: str, size: tuple[int, int]) -> None:
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional

    pixels = np.ascontiguousarray(WAVES[: size[0], : size[1]])
    found, stored = prepare(encode(Image.fromarray(pixels), "PNG"), Preprocess(64, 48, interpolation))
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    resized = functional.resize(tensor, [64], InterpolationMode(interpolation), antialias=True)
    expected = functional.center_crop(resized, [48]).numpy()
    assert found.dtype == np.uint8
    assert stored == (pixels.shape[1], pixels.shape[0], 1)
    assert np.abs(found.astype(int) - expected).max() <= 1


@pytest.mark.parametrize("size", [(90, 120), (120, 31), (64, 64), (5, 50), (33, 47)])
def test_squashed_pixels_are_all_of_the_image(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.ascontiguousarray(WAVES[: size[0], : size[1]]))
    found, _ = prepare(encode(image, "PNG"), Preprocess(64, 48, "bicubic", crop_mode="squash"))
    expected = np.array(image.resize((64, 64), Image.Resampling.BICUBIC))[8:56, 8:56].transpose(2, 0, 1)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("size", "inside"),
    [((96, 192), (32, 64)), ((192, 96), (64, 32)), ((64, 64), (64, 64)), ((1, 200), (1, 64)), ((65, 64), (64, 63))],
)
def test_borders_surround_the_whole_image(size: tuple[int, int], inside: tuple[int, int]) -> None:
    image = Image.fromarray(np.ascontiguousarray(np.resize(WAVES, (*size, 3))))
    preprocess = Preprocess(64, 64, mean=(0.2, 0.4, 0.6), crop_mode="border")
    found, _ = prepare(encode(image, "PNG"), preprocess)
    top, left = ((64 - length) // 2 for length in inside)
    expected = np.full((64, 64, 3), (51, 102, 153), np.uint8)
    small = np.array(image.resize(inside[::-1], Image.Resampling.BILINEAR))
    expected[top : top + inside[0], left : left + inside[1]] = small
    assert np.array_equal(found, expected.transpose(2, 0, 1))


AWKWARD = [
    *((1, 1), (1, 50), (50, 1), (2, 3), (7, 90), (90, 7), (64, 64), (63, 65), (65, 64), (64, 200), (200, 64)),
    *((97, 201), (120, 163), (163, 120), (127, 129), (20, 20), (300, 401), (401, 300), (16, 999), (255, 257)),
    *((900, 700), (1800, 1300)),  # whose sums float32 does not hold
]
PREPROCESSED = [
    *(Preprocess(64, 48), Preprocess(60, 60), Preprocess(48, 40, shape=(40, 60))),
    *(Preprocess(64, 48, crop_mode="squash"), Preprocess(64, 64, crop_mode="border")),
]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("preprocess", PREPROCESSED)
def test_numpy_resizes_as_torch_does_to_the_bit(preprocess: Preprocess, interpolation: str) -> None:
    preprocess = replace(preprocess, interpolation=interpolation)
    for size in AWKWARD:
        pixels = RANDOM.integers(0, 256, (*size, 3), dtype=np.uint8)
        found = np.empty((2, 3, *preprocess.size), np.uint8)
        found[:] = np.array([0, 255])[:, None, None, None]  # all of which is overwritten
        for kernel, out in zip((by_torch, by_numpy), found, strict=True):
            fit(pixels, preprocess, out, kernel)
        assert np.array_equal(*found), size


@pytest.mark.parametrize("crop", [40, 63, 64])
def test_any_size_gives_the_whole_crop(crop: int) -> None:
    preprocess, found = Preprocess(64, crop), set()
    for side in (1, 2, 7, *range(20, 260)):
        image = Image.fromarray(np.zeros((side, 97, 3), np.uint8))
        found.add(prepare(encode(image, "PNG"), preprocess)[0].shape)
    assert found == {(3, crop, crop)}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_eight_orientations_give_the_same_pixels(orientation: int) -> None:
    upright = Image.fromarray(WAVES)
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright if undo is None else upright.transpose(undo)
    assert np.array_equal(decode(encode(stored, "PNG", exif=exif))[0], WAVES)


def test_transparency_is_composed_on_white() -> None:
    clear = Image.fromarray(np.full((4, 4, 4), (10, 20, 30, 0), np.uint8))
    half = Image.fromarray(np.full((4, 4, 4), (0, 0, 0, 128), np.uint8))
    assert colour_of(encode(clear, "PNG")) == [255, 255, 255]
    assert colour_of(encode(half, "PNG")) == [127, 127, 127]
    assert colour_of(encode(clear.convert("LA"), "PNG")) == [255, 255, 255]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    assert colour_of(encode(palette, "PNG", transparency=1)) == [255, 255, 255]
    assert colour_of(encode(palette, "PNG")) == [9, 8, 7]


@pytest.mark.parametrize(
    ("top", "value", "expected"), [(65535, 32768, 128), (4095, 2048, 128), (1023, 512, 128), (255, 128, 128)]
)
def test_deep_grey_is_scaled_by_the_bits_it_uses(top: int, value: int, expected: int) -> None:
    deep = np.full((4, 4), top, np.uint16)
    deep[0, 0] = value
    assert colour_of(encode(Image.fromarray(deep), "PNG")) == [expected] * 3


def test_other_modes() -> None:
    unit = np.full((4, 4), 1.0, np.float32)
    unit[0, 0] = 0.5
    assert colour_of(encode(Image.fromarray(unit), "TIFF")) == [128, 128, 128]
    assert colour_of(encode(Image.new("1", (4, 4), 1), "PNG")) == [255, 255, 255]
    assert colour_of(encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "TIFF")) == [255, 0, 0]
    unit[1, 1] = np.nan
    with pytest.raises(BadImageError, match="not finite"):
        decode(encode(Image.fromarray(unit), "TIFF"))


def bomb() -> bytes:
    """A PNG of 30,000 x 30,000 black pixels in a few bytes of header."""
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return start + struct.pack(">I", 1000) + b"IDAT" + bytes(10)


def with_bad_crc(png: bytes) -> bytes:
    damaged = bytearray(png)
    damaged[png.index(b"IEND") - 5] ^= 1  # the last byte of the checksum of the pixels
    return bytes(damaged)


JPEG = encode(Image.fromarray(WAVES), "JPEG")
PNG = encode(Image.fromarray(WAVES), "PNG")


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (b"", "empty", "empty file"),
        (b"<html><body>not found", "not-an-image", "but a web page"),
        (RANDOM.bytes(500), "not-an-image", "not an image"),
        (JPEG[: len(JPEG) // 2], "truncated", "truncated"),
        (JPEG[: len(JPEG) * 99 // 100], "truncated", "truncated"),
        (JPEG[:-3], "truncated", "truncated"),
        (PNG[: len(PNG) // 2], "truncated", "truncated"),
        (with_bad_crc(PNG), "damaged", "checksum of its IDAT is wrong"),
        (PNG[:60] + b"\0" * 40 + PNG[100:], "damaged", "damaged PNG"),
        (bomb(), "too-large", "pixels"),
        (PNG[:30], "damaged", "damaged header"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "damaged", "damaged header of HEIC"),
        (b"8BPS\0\x01" + bytes(20), "unsupported", "Photoshop"),
        (b"%PDF-1.4", "unsupported", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0", "unsupported", "PostScript"),
    ],
)
def test_bad_images_say_what_they_are(data: bytes, code: str, words: str) -> None:
    with pytest.raises(BadImageError, match=words) as caught:
        prepare(data, Preprocess())
    assert caught.value.code == code


def test_harmless_damage_is_accepted() -> None:
    assert decode(encode(Image.fromarray(WAVES), "JPEG", icc_profile=b"garbage"))[0].shape == WAVES.shape
    assert np.array_equal(decode(PNG[:-2])[0], WAVES)  # all pixels are there
    assert np.array_equal(decode(PNG + b"garbage after the end")[0], WAVES)
    broken_exif = encode(Image.fromarray(WAVES), "JPEG", exif=b"Exif\0\0MM\0*garbage")
    assert decode(broken_exif)[0].shape == WAVES.shape


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_several(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "green")]
    pixels, stored = decode(encode(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert stored == (8, 8, 3)
    assert np.abs(pixels[0, 0].astype(int) - [255, 0, 0]).max() <= 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_a_file_cut_anywhere_is_an_image_or_a_bad_one(kind: str) -> None:
    frames = [Image.fromarray(WAVES[:12, :12]), Image.fromarray(WAVES[20:32, 20:32])]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    usable = 0
    for end in range(len(data)):
        with contextlib.suppress(BadImageError):  # anything else would end the run
            usable += decode(data[:end])[0].shape == (12, 12, 3)
    assert usable < len(data)


def sixteen_bit_rgb(red: int, green: int, blue: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = (b"\0" + struct.pack(">HHH", red, green, blue) * 4) * 4
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_golden_values_of_rare_modes() -> None:
    assert colour_of(sixteen_bit_rgb(0x8040, 0x0100, 0xFFFF)) == [128, 1, 255]
    assert colour_of(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")) == [255, 0, 0]
    assert colour_of(encode(Image.new("LA", (4, 4), (100, 128)), "PNG")) == [177] * 3
    assert colour_of(encode(Image.fromarray(np.full((4, 4), 300.0, np.float32)), "TIFF")) == [75] * 3


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_a_bomb_is_refused_before_memory_is_taken(tmp_path: Path) -> None:
    (tmp_path / "bomb.png").write_bytes(bomb())
    code = (
        "import resource, pathlib; from tlcache.images import decode, BadImageError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: decode(pathlib.Path('bomb.png').read_bytes())\n"
        "except BadImageError as error: print(error.code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    what, grown_kb = done.stdout.split()
    assert what == "too-large"
    assert int(grown_kb) < 100_000


def test_dark_borders_are_cut() -> None:
    scan = np.zeros((150, 160, 3), np.uint8)
    scan[10:40, 5:25] = 200
    scan[2, 3] = 255  # one bright pixel is no content
    assert cut_borders(scan).shape == (30, 20, 3)
    assert cut_borders(np.zeros((5, 6, 3), np.uint8)).shape == (5, 6, 3)
    inside, _ = prepare(encode(Image.fromarray(scan), "PNG"), Preprocess(16, 16, crop_borders=True))
    assert inside.min() > 190


@pytest.mark.parametrize("size", [(1, 1), (20_000, 1), (1, 20_000), (3, 4000)])
def test_extreme_shapes(size: tuple[int, int]) -> None:
    pixels, stored = prepare(encode(Image.new("RGB", size, (7, 8, 9)), "PNG"), Preprocess())
    assert pixels.shape == (3, 224, 224)
    assert stored == (*size, 1)
    assert pixels[:, 0, 0].tolist() == [7, 8, 9]


def test_large_jpegs_are_decoded_small_and_look_the_same() -> None:
    large = Image.fromarray(WAVES).resize((1600, 1200), Image.Resampling.BICUBIC)
    data = encode(large, "JPEG", quality=95)
    reduced, size = decode(data, 2 * 64)
    assert size == (1600, 1200, 1)
    assert 2 * 64 <= min(reduced.shape[:2]) < 1200
    fast, _ = prepare(data, Preprocess(64, 48))
    slow, _ = prepare(encode(Image.open(io.BytesIO(data)), "PNG"), Preprocess(64, 48))
    assert np.abs(fast.astype(int) - slow).mean() < 1.5


def test_preprocess_survives_json_and_refuses_nonsense() -> None:
    original = Preprocess(300, 280, "bicubic", crop_borders=True)
    assert Preprocess.from_json(original.as_json()) == original
    with pytest.raises(OptionError, match="crop=300, resize=200"):
        Preprocess(200, 300)
    with pytest.raises(UnknownNameError, match="Unknown interpolation"):
        Preprocess(interpolation="nearest")
    assert "crop_mode" not in original.as_json()  # keys of before it was there stay
    squashed = Preprocess(crop_mode="squash")
    assert Preprocess.from_json(squashed.as_json()) == squashed
    with pytest.raises(UnknownNameError, match="Unknown crop mode 'squish'. Did you mean 'squash'"):
        Preprocess(crop_mode="squish")
