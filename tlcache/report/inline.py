"""Pages, and what is inside them: small pictures, and figures as SVG in the page's own colours, dark and light."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import numpy as np

from tlcache.datasets.source import Images
from tlcache.errors import ImageReadError
from tlcache.images import BadImageError, decode
from tlcache.report.plots import PALETTE

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

__all__ = ["inline_image", "inline_svg", "jpeg_address", "rendered"]

_THUMBNAIL = 96  # pixels of the short side
_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_INK = {
    "#000000": "ink",
    "#262626": "ink",
    "#4c4c4c": "muted",
    "#4d4d4d": "muted",
    "#999999": "muted",
    "#b0b0b0": "line",
    "#cccccc": "line",
}
_VARIABLES = {**_INK, **{hue: f"hue{number}" for number, hue in enumerate(PALETTE)}}
_LEAST = 0.65  # of its width: below that nobody can read it, and it is scrolled
_FAMILY = re.compile(r"font-family: [^;\"]*;? ?")


def rendered(template: str, filters: Mapping[str, Callable[[str], str]] | None = None, **values: Any) -> str:
    """Return a template of this package as a page; whatever is put in is escaped, save what a filter makes Markup."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(_template),
    )
    environment.filters.update(filters or {})
    return environment.get_template(template).render(**values)


def _template(name: str) -> str:
    return resources.files("tlcache.report").joinpath(name).read_text("utf-8")


def inline_image(images: Images, path: str) -> str:
    """Return a small image as a data address; empty when the image is not there any more."""
    from PIL import Image

    try:
        pixels, _ = decode(images.read(path), _THUMBNAIL)
    except (ImageReadError, BadImageError):
        return ""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    return jpeg_address(image, 70)


def jpeg_address(image: Image.Image, quality: int) -> str:
    """Return an image as a data address, compressed as JPEG with a quality of 1 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def inline_svg(figure: Figure, name: str, alt: str, hints: Mapping[str, str] | None = None) -> str:
    """Return a figure as an SVG element.

    Parameters
    ----------
    figure
        Drawn in black, greys, and the colours of `tlcache.report.plots.PALETTE`.
    name
        Different from that of every other figure of the page.
    alt
        What it shows, for those who cannot see it.
    hints
        Text that appears over the parts with these ids (`artist.set_gid`).
    """
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "tlcache", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    root = ElementTree.fromstring(buffer.getvalue())
    _strip(root)
    for part in root.iter():
        if text := (hints or {}).get(part.get("id", "")):
            title = ElementTree.Element(f"{{{_SVG}}}title")
            title.text = text
            part.insert(0, title)
    _own_ids(root, name)
    root.set("role", "img")
    root.set("aria-label", alt)
    width = float(root.attrib.pop("width").removesuffix("pt"))
    root.attrib.pop("height")
    root.set("style", f"width: {width * 4 / 3:.0f}px; min-width: {width * _LEAST * 4 / 3:.0f}px")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    return _recolour(ElementTree.tostring(root, encoding="unicode"))


def _strip(root: ElementTree.Element) -> None:
    """Remove what a page has no use for: metadata, and the style that would leak into it."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)


def _own_ids(root: ElementTree.Element, name: str) -> None:
    """Keep only ids that are referred to, and make them different from those of other figures."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    for part in root.iter():
        old = part.attrib.pop("id", None)
        if old in used:
            part.set("id", f"{name}-{old}")
        for key, value in part.attrib.items():
            if value.startswith("#") and key.endswith("href"):
                part.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                part.set(key, value.replace("url(#", f"url(#{name}-"))


def _recolour(text: str) -> str:
    text = re.sub(r"\s*\n\s*", "", _FAMILY.sub("", text))
    return re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), text)


def _variable(colour: str) -> str:
    return f"var(--{_VARIABLES[colour]})" if colour in _VARIABLES else colour
