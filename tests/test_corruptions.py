"""Images that are made worse: as the published code has it, always alike, and a part of the key."""

from __future__ import annotations

import colorsys
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from tlcache.backbones.load import load_model
from tlcache.errors import OptionError, UnknownNameError
from tlcache.images import Preprocess, corruptions, prepare
from tlcache.images.corruptions import CORRUPTIONS, corrupt

# The formulas of make_imagenet_c.py (github.com/hendrycks/robustness, Apache-2.0), with what skimage and OpenCV do
# in them written out by SciPy: `gaussian`, `random_noise`, `rgb2hsv`, `filter2D`, `GaussianBlur`.
Pixels = NDArray[np.uint8]


def gaussian_noise(x: Pixels, c: float, random: np.random.Generator) -> Any:
    return np.clip(x / 255.0 + random.normal(size=x.shape, scale=c), 0, 1) * 255


def shot_noise(x: Pixels, c: float, random: np.random.Generator) -> Any:
    return np.clip(random.poisson(x / 255.0 * c) / c, 0, 1) * 255


def speckle_noise(x: Pixels, c: float, random: np.random.Generator) -> Any:
    x = x / 255.0
    return np.clip(x + x * random.normal(size=x.shape, scale=c), 0, 1) * 255


def impulse_noise(x: Pixels, c: float, random: np.random.Generator) -> Any:
    out = x / 255.0
    flipped, salted = random.random(x.shape) <= c, random.random(x.shape) <= 0.5
    out[flipped & salted], out[flipped & ~salted] = 1, 0
    return np.clip(out, 0, 1) * 255


def gaussian_blur(x: Pixels, c: float, random: np.random.Generator) -> Any:
    del random
    planes = [ndimage.gaussian_filter(x[:, :, d] / 255.0, c, mode="nearest", truncate=4) for d in range(3)]
    return np.clip(np.stack(planes, axis=2), 0, 1) * 255


def disk(radius: int, alias_blur: float) -> NDArray[np.float64]:
    side, ksize = (np.arange(-8, 9), 3) if radius <= 8 else (np.arange(-radius, radius + 1), 5)
    x, y = np.meshgrid(side, side)
    aliased = np.array((x**2 + y**2) <= radius**2, np.float64)
    aliased /= np.sum(aliased)
    taps = np.exp(-((np.arange(ksize) - (ksize - 1) / 2) ** 2) / (2 * alias_blur**2))
    return ndimage.correlate(aliased, np.outer(taps, taps) / taps.sum() ** 2, mode="mirror")


def defocus_blur(x: Pixels, c: tuple[int, float], random: np.random.Generator) -> Any:
    del random
    planes = [ndimage.correlate(x[:, :, d] / 255.0, disk(*c), mode="mirror") for d in range(3)]
    return np.clip(np.stack(planes, axis=2), 0, 1) * 255


def by_hsv(x: Pixels, change: Callable[..., tuple[float, float, float]]) -> Any:
    flat = [colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel))) for pixel in (x / 255.0).reshape(-1, 3)]
    return np.clip(np.array(flat).reshape(x.shape), 0, 1) * 255


def brightness(x: Pixels, c: float, random: np.random.Generator) -> Any:
    del random
    return by_hsv(x, lambda h, s, v: (h, s, float(np.clip(v + c, 0, 1))))


def saturate(x: Pixels, c: tuple[float, float], random: np.random.Generator) -> Any:
    del random
    return by_hsv(x, lambda h, s, v: (h, float(np.clip(s * c[0] + c[1], 0, 1)), v))


def contrast(x: Pixels, c: float, random: np.random.Generator) -> Any:
    del random
    means = np.mean(x / 255.0, axis=(0, 1), keepdims=True)
    return np.clip((x / 255.0 - means) * c + means, 0, 1) * 255


def jpeg_compression(x: Pixels, c: int, random: np.random.Generator) -> Any:
    del random
    output = io.BytesIO()
    Image.fromarray(x).save(output, "JPEG", quality=c)
    return np.asarray(Image.open(output))


def pixelate(x: Pixels, c: float, random: np.random.Generator) -> Any:
    del random
    smaller = Image.fromarray(x).resize((int(224 * c), int(224 * c)), Image.Resampling.BOX)
    return np.asarray(smaller.resize((224, 224), Image.Resampling.BOX))


PUBLISHED = {
    "noise": (gaussian_noise, [0.08, 0.12, 0.18, 0.26, 0.38]),
    "shot": (shot_noise, [60, 25, 12, 5, 3]),
    "impulse": (impulse_noise, [0.03, 0.06, 0.09, 0.17, 0.27]),
    "speckle": (speckle_noise, [0.15, 0.2, 0.35, 0.45, 0.6]),
    "blur": (gaussian_blur, [1, 2, 3, 4, 6]),
    "defocus": (defocus_blur, [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)]),
    "bright": (brightness, [0.1, 0.2, 0.3, 0.4, 0.5]),
    "contrast": (contrast, [0.4, 0.3, 0.2, 0.1, 0.05]),
    "saturate": (saturate, [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)]),
    "pixelate": (pixelate, [0.6, 0.5, 0.4, 0.3, 0.25]),
    "jpeg": (jpeg_compression, [25, 18, 15, 10, 7]),
}
OURS = {"dark", "rotate"}


@pytest.fixture(scope="module")
def picture() -> Pixels:
    """An image of 224 pixels with smooth and rough parts, black, white and grey among them."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((224, 224), Image.Resampling.BICUBIC)).copy()
    picture[:40, :40], picture[:40, 40:80], picture[:40, 80:120] = 0, 255, 100
    picture[180:] = random.integers(0, 256, picture[180:].shape)
    return picture


def made_worse(picture: Pixels, corruption: str, content: bytes = b"file") -> Pixels:
    pixels = np.ascontiguousarray(picture.transpose(2, 0, 1))
    corrupt(pixels, corruption, content)
    return pixels.transpose(1, 2, 0)


def test_every_kind_has_a_published_one_or_is_ours() -> None:
    assert set(CORRUPTIONS) == PUBLISHED.keys() | OURS


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("kind", PUBLISHED)
def test_an_image_is_made_worse_as_the_published_code_does_it(
    picture: Pixels, kind: str, severity: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = np.random.default_rng
    monkeypatch.setattr(corruptions.np.random, "default_rng", lambda _: made(7))
    function, levels = PUBLISHED[kind]
    given = picture if kind not in ("bright", "saturate") else picture[::8, ::8]  # colorsys is slow; no lengths in them
    expected = function(given, levels[severity - 1], made(7))
    if expected.dtype != np.uint8:
        row = CORRUPTIONS[kind]
        values = np.clip(row.change(given / 255.0, row.levels[severity - 1], made(7)), 0, 1) * 255
        assert np.abs(values - expected).max() < 1e-9
    found = made_worse(given, f"{kind}:{severity}")
    apart = np.abs(found.astype(int) - np.uint8(expected))
    assert apart.max() <= (expected.dtype != np.uint8)  # where a sum in another order ends below a whole number
    assert apart.mean() < 0.06
    assert (found != given).mean() > 0.02


def test_an_image_is_always_made_worse_alike_and_others_otherwise(picture: Pixels) -> None:
    first = made_worse(picture, "noise:2")
    assert (made_worse(picture, "noise:2") == first).all()
    assert (made_worse(picture, "noise:2", b"another file") != first).any()


def test_darkness_takes_light_away_and_a_turn_keeps_the_middle(picture: Pixels) -> None:
    dark = made_worse(picture, "dark:3")
    assert (dark.max(axis=2) == np.maximum(0, np.trunc(picture.max(axis=2) - 0.3 * 255 + 1e-6))).mean() > 0.99
    white = np.full((224, 224, 3), 255, np.uint8)
    turned = made_worse(white, "rotate:5")
    assert turned.min() == 255  # nothing black comes in at the corners
    spot = np.zeros((225, 225, 3), np.uint8)
    spot[112, 112] = 255
    assert made_worse(spot, "rotate:4")[112, 112].min() == 255


def test_lengths_follow_the_side_of_the_image(picture: Pixels) -> None:
    half = picture[:112, :112]
    expected = np.uint8(gaussian_blur(half, 1.5, np.random.default_rng()))
    assert np.abs(made_worse(half, "blur:3").astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ("blurr:3", UnknownNameError, "Did you mean 'blur'"),
        ("blur:6", OptionError, "from 1 to 5; found 'blur:6'"),
        ("blur", OptionError, "from 1 to 5"),
        ("noise:0", OptionError, "from 1 to 5"),
    ],
)
def test_what_is_no_corruption_is_refused(asked: str, error: type[OptionError], message: str) -> None:
    with pytest.raises(error, match=message):
        Preprocess(corruption=asked)


def test_a_corruption_is_a_part_of_the_key_and_of_the_pixels(photos: Path, tiny_model: Path) -> None:
    model = load_model(str(tiny_model))
    worse = model.corrupted("contrast:5")
    assert "corruption" not in model.preprocess.as_json()
    assert worse.preprocess.as_json() == {**model.preprocess.as_json(), "corruption": "contrast:5"}
    assert len({model.key, worse.key, model.corrupted("contrast:4").key}) == 3
    assert Preprocess.from_json(worse.preprocess.as_json()) == worse.preprocess
    data = next(photos.rglob("*.png")).read_bytes()
    clean, found = (prepare(data, each.preprocess)[0] for each in (model, worse))
    expected = clean.copy()
    corrupt(expected, "contrast:5", data)
    assert (found == expected).all()
    assert (found.std(axis=(1, 2)) < 0.2 * clean.std(axis=(1, 2))).all()
