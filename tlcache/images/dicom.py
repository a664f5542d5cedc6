"""DICOM: the first frame of an image, grey in the window that the file states, or in colour."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tlcache.images.depth import eight_bits
from tlcache.images.formats import BadImageError, import_extra

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["read"]

Window = tuple[float, float] | None
_GREY = ("MONOCHROME1", "MONOCHROME2")
_MAPPED, _RESCALE, _SHOWN = "PALETTE COLOR", "PixelValueTransformationSequence", "FrameVOILUTSequence"
_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")


def read(data: bytes, max_pixels: int, window: Window, notes: set[str]) -> tuple[Image.Image, int]:
    """Read a file with pydicom: 8-bit grey or RGB of its first frame, and how many there are; anything may be raised.

    Grey values are those that the file's rescaling makes of what is stored (Hounsfield units in CT). The first window
    that the file states, or else its table of grey levels, makes black and white of them, and `window` in place of it
    where values have more than 8 bits; without any they are scaled as those of other formats. MONOCHROME1 is inverted.
    DICOM PS3.3, C.7.6.3, C.11.1 and C.11.2.
    """
    pydicom = import_extra("DICOM", "pydicom")
    pixels = import_extra("DICOM", "pydicom.pixels")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)  # it tells of odd elements, as Pillow does
    try:
        file = pydicom.dcmread(io.BytesIO(data))
        frames, kind = _check(file, max_pixels), str(file.PhotometricInterpretation)
        if "JPEG 2000" in file.file_meta.TransferSyntaxUID.name:
            _check_boxes(import_extra("DICOM", "pydicom.encaps").get_frame(file.PixelData, 0, number_of_frames=frames))
        values = np.asarray(pixels.pixel_array(file, index=0))
    except AttributeError as error:
        missing = str(error).rpartition(" ")[2]
        raise BadImageError("damaged", f"damaged DICOM (it has no {missing})") from None
    except (RuntimeError, NotImplementedError) as error:
        raise _unreadable(file, error) from None
    if values.shape[:2] != (file.Rows, file.Columns) or values.ndim != (2 if kind in (*_GREY, _MAPPED) else 3):
        raise BadImageError("damaged", f"damaged DICOM (pixels of {values.shape}, not {file.Rows} x {file.Columns})")
    if kind == _MAPPED:
        values = np.asarray(pixels.apply_color_lut(values, file))
    if kind not in _GREY:
        return Image.fromarray(_colours(values, file)), frames
    grey = _grey(values, file, window, notes)
    return Image.fromarray(255 - grey if kind == _GREY[0] else grey), frames


def _check(file: Dataset, max_pixels: int) -> int:
    """Return the number of frames; raises BadImageError for what is no image or too large, before it is decoded."""
    if not any(name in file for name in _PIXELS):
        what = file.get("Modality") or getattr(file.file_meta.get("MediaStorageSOPClassUID"), "name", "of no kind")
        raise BadImageError("not-an-image", f"DICOM without pixels ({what}); leave it out")
    if file.file_meta.TransferSyntaxUID.name.startswith(("MPEG", "HEVC")):
        raise BadImageError("unsupported", "a video in DICOM is not supported; save its frames as images")
    if file.Rows * file.Columns > max_pixels:
        raise BadImageError(
            "too-large", f"{file.Columns} x {file.Rows} is more than {max_pixels:,} pixels; --max-pixels N allows more"
        )
    return int(file.get("NumberOfFrames") or 1)


def _check_boxes(frame: bytes) -> None:
    """Raise BadImageError where a box before the pixels of JPEG 2000 has no length: pydicom would look for ever."""
    at = 12 if frame.startswith(b"\0\0\0\x0cjP  ") else len(frame)
    while at < len(frame) and frame[at + 4 : at + 8] != b"jp2c":
        length = int.from_bytes(frame[at : at + 4], "big")
        if length < 8:
            raise BadImageError("damaged", f"damaged DICOM (a box of its JPEG 2000 has {length} bytes)")
        at += length


def _unreadable(file: Dataset, error: Exception) -> BadImageError:
    """Return what it means that no decoder took the pixels: none is installed, or all that are failed."""
    name = file.file_meta.TransferSyntaxUID.name
    if "missing dependencies" in str(error) or isinstance(error, NotImplementedError):
        return BadImageError(
            "unsupported", f"DICOM of {name} needs another package: pip install 'tlcache[dicom]', or pylibjpeg-libjpeg"
        )
    why = str(error).splitlines()[-1].strip()
    return BadImageError("damaged", f"damaged DICOM (its {name} cannot be decoded: {why})")


def _colours(values: NDArray[Any], file: Dataset) -> NDArray[np.uint8]:
    """Return uint8 (H, W, 3): the high bits of each."""
    used = 8 * values.dtype.itemsize if file.PhotometricInterpretation == _MAPPED else int(file.BitsStored)
    return (values[:, :, :3] >> max(0, used - 8)).astype(np.uint8)


def _grey(values: NDArray[Any], file: Dataset, window: Window, notes: set[str]) -> NDArray[np.uint8]:
    pixels = import_extra("DICOM", "pydicom.pixels")
    deep = values.dtype.kind == "f" or int(file.BitsStored) > 8
    notes = notes if deep else set()
    values = _whole(np.asarray(pixels.apply_modality_lut(values, _stating("RescaleSlope", file, _RESCALE) or file)))
    if deep and window:
        return eight_bits(values, window, notes)
    if stated := _stated(_stating("WindowWidth", file, _SHOWN) or file):
        centre, width, function = stated
        return _sigmoid(values, centre, width) if function == "SIGMOID" else eight_bits(values, _edges(*stated), notes)
    if "VOILUTSequence" in file:
        most = 2 ** int(file.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return eight_bits(np.asarray(pixels.apply_voi(values, file)), (0, most), notes)
    if deep or values.min() < 0 or values.max() > 255:
        return eight_bits(values, None, notes)
    return eight_bits(values, (0, 2 ** int(file.BitsStored) - 1), notes)


def _whole(values: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers as such, so that they are scaled by the bits they use."""
    if values.dtype.kind == "f" and np.isfinite(values).all() and np.array_equal(values, np.rint(values)):
        return values.astype(np.int64)
    return values


def _stating(name: str, file: Dataset, sequence: str) -> Dataset | None:
    """Return the part that states an element for the first frame: of an enhanced image a group of frames."""
    groups = [each for name in ("PerFrame", "Shared") for each in file.get(f"{name}FunctionalGroupsSequence", ())[:1]]
    parts = (file, *(part for group in groups for part in group.get(sequence, ())[:1]))
    return next((part for part in parts if name in part), None)


def _stated(part: Dataset) -> tuple[float, float, str] | None:
    """Return the centre and the width of the first window, and its function; None where there is none."""
    values = [part.get(name) for name in ("WindowCenter", "WindowWidth")]
    if any(value is None for value in values):
        return None
    centre, width = (float(np.ravel(value)[0]) for value in values)
    function = str(part.get("VOILUTFunction") or "LINEAR")
    is_one = np.isfinite([centre, width]).all() and (width >= 1 if function == "LINEAR" else width > 0)
    return (centre, width, function) if is_one else None


def _edges(centre: float, width: float, function: str) -> tuple[float, float]:
    """Return the values that become 0 and 255."""
    if function == "LINEAR":
        centre, width = centre - 0.5, max(width - 1, 1e-6)
    return centre - width / 2, centre + width / 2


def _sigmoid(values: NDArray[Any], centre: float, width: float) -> NDArray[np.uint8]:
    return np.rint(255 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))).astype(np.uint8)
