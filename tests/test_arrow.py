"""Pixels without a copy are the pixels, and outlive the image they came from."""

import gc

import numpy as np
import pytest
from PIL import Image

from tlcache.arrow import view
from tlcache.images import Preprocess, prepare


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (640, 480), (2100, 2100)])
def test_a_view_is_what_pillow_holds(size: tuple[int, int]) -> None:
    """2100 x 2100 x 4 bytes lie in two blocks of memory and are copied."""
    expected = noise(*size)
    assert np.array_equal(view(Image.fromarray(expected))[:, :, :3], expected)


def test_a_view_keeps_the_memory_when_the_image_is_gone() -> None:
    expected = noise(640, 480)
    image = Image.fromarray(expected)
    pixels = view(image)
    assert pixels.shape == (480, 640, 4)
    assert not pixels.flags.owndata
    del image
    gc.collect()
    others = [Image.new("RGB", (640, 480), (number, 0, 0)) for number in range(20)]
    assert np.array_equal(pixels[:, :, :3], expected)
    assert len(others) == 20


@pytest.mark.parametrize("crop_borders", [False, True])
def test_copied_pixels_give_the_same_image(monkeypatch: pytest.MonkeyPatch, crop_borders: bool) -> None:
    import io

    buffer, preprocess = io.BytesIO(), Preprocess(64, 56, crop_borders=crop_borders)
    framed = np.zeros((300, 200, 3), np.uint8)
    framed[20:270, 30:180] = noise(150, 250)
    Image.fromarray(framed).save(buffer, "JPEG")
    seen, stored = prepare(buffer.getvalue(), preprocess)
    monkeypatch.delattr(Image.Image, "__arrow_c_array__")
    copied, same = prepare(buffer.getvalue(), preprocess)
    assert np.array_equal(seen, copied)
    assert stored == same
