"""The built-in datasets: each is made or downloaded once and then a folder of files like any other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from tlcache.datasets.folder import open_folder
from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Form, Listing, Source
from tlcache.datasets.splits import Row
from tlcache.errors import DataError, OptionError
from tlcache.files import cache_folder, write_whole

__all__ = ["BUILT_IN", "OXFORD", "data_folder"]

MATS = ("imagelabels.mat", "setid.mat")
_SHADOWED = "'{0}' is the dataset that is built in; the folder of that name here is --data ./{0}."


class BuiltIn(Source):
    """A source: datasets with a name."""

    forms = (
        Form("built-in", "--data digits", "scikit-learn's 1,797 handwritten digits, 10 classes; needs no download"),
        Form(
            "built-in",
            "--data flowers102",
            "Oxford 102 Flowers with its official splits, downloaded once by torchvision (345 MB)",
        ),
    )

    @property
    def names(self) -> tuple[str, ...]:
        """What they are called."""
        return tuple(_SETS)

    def takes(self, data: str) -> bool:
        """Return whether it is one of the names."""
        return data in _SETS

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the images, made or downloaded where they are not here yet."""
        if layout.split_folders:
            raise OptionError(f"--split-folders is of folders; '{data}' is built in. Leave it out.")
        root, rows = _SETS[data]()
        beside = (_SHADOWED.format(data),) if Path(data).exists() else ()
        return Listing(data, data, open_folder(root.resolve()), rows, warnings=beside)


BUILT_IN = BuiltIn()


class Oxford(Source):
    """A source: Oxford 102 Flowers as its makers publish it, labels and splits in two files of Matlab."""

    forms = (Form("Oxford flowers", "--data flowers-102/", "jpg/image_00001.jpg, with imagelabels.mat and setid.mat"),)

    def takes(self, data: str) -> bool:
        """Return whether these files are there."""
        return all((Path(data).expanduser() / name).exists() for name in (*MATS, "jpg"))

    def find(self, data: str, layout: Layout) -> Listing:
        """Return the images with their published splits."""
        del layout
        root = Path(data).expanduser()
        return Listing(root.resolve().name, str(root.absolute()), open_folder(root.resolve()), rows_of_mats(root))


OXFORD = Oxford()
_WRITTEN = ".complete"  # in a folder that is whole; hidden, as whoever reads the folder passes over what is hidden


def data_folder() -> Path:
    """Return the folder for built-in datasets (`TLCACHE_DATA` overrides)."""
    return Path(os.environ.get("TLCACHE_DATA") or cache_folder() / "data")


def _digits() -> tuple[Path, list[Row]]:
    """scikit-learn's digits (Alpaydin and Kaynak, 1998), 8 x 8 pixels of 17 levels, as PNG files."""
    root = data_folder() / "digits"
    if not (root / _WRITTEN).exists():
        _write_digits(root)
    rows = [Row(f"{path.parent.name}/{path.name}", path.parent.name) for path in root.glob("?/*.png")]
    return root, rows


def _write_digits(root: Path) -> None:
    import io

    from PIL import Image
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    for number, (flat, label) in enumerate(zip(pixels, labels, strict=True)):
        grey = np.rint(flat.reshape(8, 8) * (255 / 16)).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(grey).save(buffer, "PNG", compress_level=0)  # stored: the same bytes with every zlib
        path = root / str(label) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(buffer.getvalue())
    write_whole(root / _WRITTEN, b"")
    (root / "complete").unlink(missing_ok=True)  # as it was called, and taken for an image that cannot be used


def _flowers102() -> tuple[Path, list[Row]]:
    """Oxford 102 Flowers (Nilsback and Zisserman, 2008) with its official splits, through torchvision."""
    from torchvision.datasets import Flowers102

    root = data_folder() / "flowers-102"
    try:
        Flowers102(str(data_folder()), download=True)
    except Exception as error:
        raise DataError(
            f"flowers102 is not in '{root}' and could not be downloaded ({error}). Put 102flowers.tgz (unpacked: "
            "jpg/), imagelabels.mat and setid.mat there by hand."
        ) from None
    return root, rows_of_mats(root)


def rows_of_mats(root: Path) -> list[Row]:
    """Return the images that the lists of Oxford 102 Flowers say: `imagelabels.mat` and `setid.mat`, beside `jpg/`."""
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError
    from torchvision.datasets import Flowers102

    names = {"train": "trnid", "val": "valid", "test": "tstid"}
    try:
        labels, splits = (loadmat(root / name) for name in MATS)
        numbers = labels["labels"].ravel().tolist()
        listed = [(split, number) for split, name in names.items() for number in splits[name].ravel().tolist()]
        classes = [f"{number:03d} {name}" for number, name in enumerate(Flowers102.classes, start=1)]
        return [Row(f"jpg/image_{n:05d}.jpg", classes[numbers[n - 1] - 1], split) for split, n in listed]
    except (MatReadError, OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"The {' and '.join(MATS)} in '{root}' are not those of Oxford 102 Flowers ({error}). Copy them again."
        ) from None


_SETS: Mapping[str, Callable[[], tuple[Path, list[Row]]]] = {"digits": _digits, "flowers102": _flowers102}
