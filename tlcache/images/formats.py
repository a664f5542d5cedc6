"""Which formats are read, by which plugin of Pillow's, and what other files are called."""

from __future__ import annotations

import io
import re
from importlib import import_module
from typing import Any, NamedTuple, cast

from PIL import Image, ImageFile

__all__ = ["FORMATS", "BadImageError", "Stored", "import_extra", "kind_of", "open_as", "refusal"]

_PLUGINS = {  # imported when the first such file is met
    "AVIF": ("AVIF", "Avif"),
    "BMP": ("BMP", "Bmp"),
    "GIF": ("GIF", "Gif"),
    "JPEG": ("JPEG", "Jpeg"),
    "JPEG 2000": ("JPEG2000", "Jpeg2K"),
    "PNG": ("PNG", "Png"),
    "PPM": ("PPM", "Ppm"),
    "TIFF": ("TIFF", "Tiff"),
    "WEBP": ("WEBP", "WebP"),
}
_EXTRAS = {"DICOM": "dicom", "HEIC": "heic"}  # what pip calls the packages that read the others
FORMATS = tuple(sorted((*_PLUGINS, *_EXTRAS)))
_KINDS = re.compile(
    rb"(?P<DICOM>.{128}DICM)|"  # whose first 128 bytes may be those of a TIFF
    rb"(?P<JPEG>\xff\xd8\xff)|(?P<PNG>\x89PNG)|(?P<GIF>GIF8)|(?P<WEBP>RIFF.{4}WEBP)|(?P<BMP>BM)|(?P<PPM>P[0-7Ffy]\s)"
    rb"|(?P<TIFF>II[*+]\0(?!.{4}CR)|MM\0[*+])|(?P<JPEG_2000>\0\0\0\x0cjP  |\xff\x4f\xff\x51)",
    re.DOTALL,
)
_SHORT = ("BMP", "PPM")  # two letters begin other files, too
_CONVERT = "convert it to PNG or JPEG"
_RAW = f"develop it with the camera's own software or darktable, or {_CONVERT}"
_LEAVE = "leave it out"
_BRANDS = (  # what the boxes of an ISO media file may hold, the first that is there
    ({b"avif", b"avis"}, "AVIF", ""),
    ({b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"hevm", b"hevs", b"mif1", b"msf1"}, "HEIC", ""),
    ({b"crx "}, "camera raw", _RAW),
    ({b"jxl "}, "JPEG XL", _CONVERT),
)
_BOXED = {name for _, name, _ in _BRANDS}
_FORMATS = (  # how it begins, what it is, what to do: images that are not read here
    (rb"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?(<!DOCTYPE svg[^>]*>\s*)?<svg", "SVG", _CONVERT),
    (rb"\x5c\x01\0\0|.{344}(n\+1|ni1)\0", "NIfTI", "save its slices as PNG or TIFF; 16 bits may stay, see --window"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "JPEG XL", _CONVERT),
    (rb"8BPS", "Photoshop", _CONVERT),
    (rb"%PDF", "PDF", "export its pages as images"),
    (rb"%!PS|\xc5\xd0\xd3\xc6", "PostScript", _CONVERT),
    (rb"II\xbc\x01", "JPEG XR", _CONVERT),
    (rb"II\*\0.{4}CR|IIU\0|IIR[OS]|FUJIFILMCCD-RAW|FOVb", "camera raw", _RAW),
    (rb"v/1\x01", "OpenEXR", _CONVERT),
    (rb"#\?(RADIANCE|RGBE)", "Radiance HDR", _CONVERT),
    (rb"SIMPLE  =", "FITS", _CONVERT),
    (rb"\0\0\x01\0[\x01-\xff]\0", "a Windows icon", _CONVERT),
    (rb"qoif", "QOI", _CONVERT),
    (rb"\x0a[\0-\x05][\0\x01][\x01\x02\x04\x08].{4}", "PCX", _CONVERT),
    (rb"DDS ", "DDS", _CONVERT),
    (rb"\x01\xda[\0\x01][\x01\x02]", "SGI", _CONVERT),
    (rb"\x59\xa6\x6a\x95", "Sun raster", _CONVERT),
    (rb"/\* XPM", "XPM", _CONVERT),
    (rb"#define \w+_width ", "XBM", _CONVERT),
    (rb"[\x8a\x8b][MJ]NG", "MNG or JNG", _CONVERT),
    (rb"icns", "an Apple icon", _CONVERT),
    (rb"BPG\xfb", "BPG", _CONVERT),
    (rb"gimp xcf", "GIMP", _CONVERT),
    (rb"FORM.{4}(ILBM|PBM )", "ILBM", _CONVERT),
    # TGA has no sign at its start: colour map or none, kind of image, an origin, a size, bits in a pixel
    (
        rb".(\0[\x02\x03\x0a\x0b]\0{5}|\x01[\x01\x09].{4}[\x0f\x10\x18\x20]).{8}[\x08\x0f\x10\x18\x20][\0-\x3f]",
        "TGA",
        _CONVERT,
    ),
)
_OTHERS = (  # what else lies among images
    (rb"version https://git-lfs", "a Git LFS pointer", "fetch the image itself with: git lfs pull"),
    (rb"\s*(<!DOCTYPE html|<html|<head|<body)", "a web page, perhaps an error page", "download the image again"),
    (rb"\s*(<\?xml|<Error>)", "XML, perhaps an error message", "download the image again, or leave it out"),
    (rb"\[ZoneTransfer\]", "a note of Windows (Zone.Identifier)", _LEAVE),
    (rb"\0\x05\x16[\0\x07]", "a macOS resource file (._ before a name)", _LEAVE),
    (rb"\0\0\0\x01Bud1", "a macOS folder note (.DS_Store)", _LEAVE),
    (rb"\xd0\xcf\x11\xe0", "a Microsoft document, perhaps Thumbs.db", _LEAVE),
    (rb"\x89HDF", "HDF5", "save its images one by one, as PNG"),
    (rb"\x93NUMPY", "a NumPy array", "save its images one by one, as PNG"),
    (rb"PK[\x03\x05]|\x1f\x8b|7z\xbc\xaf|Rar!|BZh|\xfd7zXZ", "an archive", "unpack it"),
    (rb".{4}ftyp|RIFF.{4}AVI |\x1a\x45\xdf\xa3|\0\0\x01[\xb3\xba]", "a video", "save its frames as images"),
)
_BEGINNINGS = [
    (re.compile(start, re.DOTALL | re.IGNORECASE), code, says.format(name=name, do=do))
    for table, code, says in (
        (_FORMATS, "unsupported", "{name} is not supported; {do}"),
        (_OTHERS, "not-an-image", "not an image but {name}; {do}"),
    )
    for start, name, do in table
]
_LOOKED_AT = 4096


class BadImageError(Exception):
    """An image that cannot be used: `code` is one word for counting, the message is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Stored(NamedTuple):
    """What a file's header says: width and height in pixels, and frames (pages); only the first frame is used."""

    width: int
    height: int
    frames: int


def kind_of(data: bytes) -> str:
    """Return which of `FORMATS` a file is.

    Raises
    ------
    BadImageError
        `empty`, `unsupported` or `not-an-image`.
    """
    if found := _KINDS.match(data):
        return str(found.lastgroup).replace("_", " ")
    if not data:
        raise BadImageError("empty", "empty file")
    brands = _brands(data)
    for some, name, do in _BRANDS:
        if name in FORMATS and some & brands:
            return name
        if some & brands:
            raise BadImageError("unsupported", f"{name} is not supported; {do}")
    raise _foreign(data) or _no_image(data)


def open_as(kind: str, data: bytes) -> ImageFile.ImageFile:
    """Open a file as a format, whatever its size and without decoding it; anything may be raised.

    Not by `Image.open`, which keeps to itself why a file is no such image.
    """
    if kind == "HEIC":
        return cast(ImageFile.ImageFile, import_extra("HEIC", "pillow_heif.as_plugin").HeifImageFile(io.BytesIO(data)))
    registered, plugin = _PLUGINS[kind]
    try:
        import_module(f"PIL.{plugin}ImagePlugin")
        factory, _ = Image.OPEN[registered]
    except (ImportError, KeyError):
        raise BadImageError("unsupported", f"this Pillow reads no {kind}; upgrade it, or {_CONVERT}") from None
    return factory(io.BytesIO(data), "")


def import_extra(kind: str, module: str) -> Any:
    """Return the module that reads a format; raises BadImageError where its package is not installed."""
    try:
        return import_module(module)
    except ImportError:
        install = f"pip install 'tlcache[{_EXTRAS[kind]}]'"
        raise BadImageError("unsupported", f"{kind} needs another package ({install}); or {_CONVERT}") from None


def refusal(kind: str, data: bytes, why: str) -> BadImageError:
    """Return the error for a file that begins like a format, and of which `why` the decoder refuses even the header."""
    found = None if kind in _BOXED else _foreign(data)  # boxes are those of videos, too
    if found:
        return found
    return _no_image(data) if kind in _SHORT else BadImageError("damaged", f"damaged header of {kind} ({why})")


def _brands(data: bytes) -> set[bytes]:
    """Return the brands of an ISO media file; none where it is no such file."""
    if data[4:8] != b"ftyp":
        return set()
    box = data[: min(int.from_bytes(data[:4], "big"), _LOOKED_AT)]
    return {data[8:12], *(box[at : at + 4] for at in range(16, len(box) - 3, 4))}


def _foreign(data: bytes) -> BadImageError | None:
    for start, code, message in _BEGINNINGS:
        if start.match(data, 0, _LOOKED_AT):
            return BadImageError(code, message)
    return None


def _no_image(data: bytes) -> BadImageError:
    start = repr(data[:12].decode("latin-1"))
    return BadImageError("not-an-image", f"not an image (starts with {start}); read are {', '.join(FORMATS)}")
