"""What happens to an image between its file and the network, as a value that is part of cache keys."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from math import inf
from typing import Any

from tlcache.errors import OptionError, UnknownNameError, closest
from tlcache.images.corruptions import check_corruption

__all__ = ["MAX_PIXELS", "REVISION", "RULES_VERSION", "Preprocess"]

RULES_VERSION = 1
REVISION = 2  # of what rare kinds of files look like, which is no part of a key: raise it with a line in `changed`
MAX_PIXELS = 89_478_485  # a quarter of a gibibyte of RGB: Pillow's own bound
_JPEG_SIZES = ("full", "nearest")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocess:
    """What happens to an image between its file and the network.

    Parameters
    ----------
    resize, crop
        Length of the short side after resizing and side of the centre crop, in pixels.
    interpolation
        `bilinear` or `bicubic`, antialiased.
    mean, std
        Per-channel normalisation of values scaled to [0, 1]; applied inside the ONNX graph.
    crop_borders
        Cut dark borders away before resizing.
    window
        Grey values of images with more than 8 bits that become 0 and 255; None: by the bits that an image uses.
    shape
        Height and width of the network's images where they differ, of which `crop` is the smaller one; None: a square.
    channels
        `bgr` where the network takes blue first; mean and std are then in that order, too.
    range
        The value of white where it is not 1; mean and std are then of such values. Both are applied inside the ONNX
        graph.
    crop_mode
        `squash` where both sides become `resize` long and an image is stretched, `border` where the long side does and
        the mean surrounds what there is, as timm has it; None: nothing is stretched or added, and the centre cut out.
    corruption
        How the network's images are made worse in the end, like `blur:3` (`tlcache.images.corruptions`); None: not.
    jpeg_size
        `nearest` where JPEGs are decoded at the smallest size of the decoder's that is no smaller than the resized
        image, `full` where always at their own; None: no smaller than twice the resized image.
    max_pixels
        Largest image to read. It changes no pixels, and so no key.
    """

    resize: int = 256
    crop: int = 224
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop_borders: bool = False
    window: tuple[float, float] | None = None
    shape: tuple[int, int] | None = None
    channels: str | None = None
    range: int | None = None
    crop_mode: str | None = None
    corruption: str | None = None
    jpeg_size: str | None = None
    max_pixels: int = field(default=MAX_PIXELS, compare=False)

    @property
    def pixels(self) -> Preprocess:
        """The same but for what the network's graph does: where these are equal, so are the pixels of an image."""
        if self.crop_mode == "border":  # of the mean
            return self
        return replace(self, mean=IMAGENET_MEAN, std=IMAGENET_STD, channels=None, range=None)

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise OptionError(
                f"The crop must be between 1 and the resized short side; found crop={self.crop}, resize={self.resize}."
            )
        if self.interpolation not in ("bilinear", "bicubic"):
            raise UnknownNameError(closest("interpolation", self.interpolation, ("bilinear", "bicubic")))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise OptionError(f"Mean and std take three numbers, std above 0; found {self.mean} and {self.std}.")
        if self.shape is not None and min(self.shape) != self.crop:
            raise OptionError(f"The crop must be the smaller one of {self.shape}; found {self.crop}.")
        if self.channels not in (None, "bgr"):
            raise UnknownNameError(closest("order of channels", self.channels, ("rgb", "bgr")))
        if self.crop_mode not in (None, "squash", "border"):
            raise UnknownNameError(closest("crop mode", self.crop_mode, ("squash", "border")))
        if self.jpeg_size not in (None, *_JPEG_SIZES):
            raise UnknownNameError(closest("size of JPEGs", self.jpeg_size, _JPEG_SIZES))
        if self.corruption is not None:
            check_corruption(self.corruption)
        if self.range is not None and self.range < 1:
            raise OptionError(f"White is a whole number from 1 on; found {self.range}.")
        if self.window is not None and not -inf < self.window[0] < self.window[1] < inf:
            low, high = self.window
            raise OptionError(f"A window is two numbers, the lower one first; found {low:g},{high:g}.")

    @property
    def at_least(self) -> int | None:
        """Short side that a JPEG may be decoded at, in pixels; None where the full size decides."""
        if self.crop_borders or self.jpeg_size == "full":
            return None
        return max(self.covered) * (1 if self.jpeg_size == "nearest" else 2)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's images, in pixels."""
        return self.shape or (self.crop, self.crop)

    @property
    def covered(self) -> tuple[int, int]:
        """Height and width that a resized image covers at least, and one of which it has; of `border`, at most."""
        height, width = self.size
        return self.resize * height // self.crop, self.resize * width // self.crop

    @property
    def fill(self) -> tuple[int, ...]:
        """Levels of red, green and blue that `border` surrounds images with."""
        return tuple(round(255 * each) for each in self.mean)

    def as_json(self) -> dict[str, Any]:
        """Return the fields and the version of the decoding rules, ready for JSON and for the cache key.

        A field that is None is left out, so that one added later changes no key of those who do not use it.
        """
        given = {name: value for name, value in asdict(self).items() if value is not None and name != "max_pixels"}
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}
        return {"rules": RULES_VERSION, **fields}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Preprocess:
        """Return the preprocessing that `as_json` described, with the rules of this version."""
        known: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        known.pop("rules", None)
        return cls(**known)
