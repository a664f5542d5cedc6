"""What `make docs` adds: pages that lie beside what they describe, and the list of all public names.

A link from a page to another, wherever that lies, leads to its place in the manual; one to a file that is no page
becomes its name.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from posixpath import relpath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = {
    ROOT / "features" / "README.md": "feature-files.md",
    ROOT / "tlcache" / "runs" / "README.md": "run-records.md",
    ROOT / "tlcache" / "backbones" / "embedded" / "resnet20_cifar.md": "resnet20_cifar.md",
    ROOT / "benchmarks" / "README.md": "benchmarks.md",
    ROOT / "CHANGELOG.md": "changelog.md",
}
SOURCES = {name: path for path, name in BESIDE.items()}


def on_files(files: Files, config: Any) -> Files:
    """Add the pages beside docs/, and one of the public names of the package."""
    for path, name in BESIDE.items():
        files.append(File.generated(config, name, content=path.read_text("utf-8")))
    files.append(File.generated(config, "api.md", content=api()))
    return files


def api() -> str:
    """Return the page that has every public name's docstring."""
    stub = ast.parse((ROOT / "tlcache" / "__init__.pyi").read_text("utf-8"))
    homes = {
        name.name: f"{line.module}.{name.name}"
        for line in stub.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }
    names = sorted((name for name in homes if not name.startswith("_")), key=str.lower)
    return "# Public names of `tlcache`\n\n" + "".join(f"::: {homes[name]}\n\n" for name in names)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links between files into links between pages of the manual."""
    name = page.file.src_uri
    here = SOURCES.get(name, ROOT / "docs" / name).parent

    def link(found: re.Match[str]) -> str:
        words, target = found.groups()
        if re.match(r"\w+:|#", target):
            return found[0]
        file, _, anchor = target.partition("#")
        path = (here / file).resolve()
        place = BESIDE.get(path) or (
            relpath(path, ROOT / "docs") if path.parent == ROOT / "docs" and path.suffix == ".md" else None
        )
        return f"[{words}]({place}{'#' + anchor if anchor else ''})" if place else words

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", link, markdown)


def on_post_page(output: str, **_: Any) -> str:
    """Take the script for the search in opened files from the manual, name the search, and have no empty headings."""
    output = output.replace("https://unpkg.com/iframe-worker/shim", "assets/iframe-worker.js")
    output = re.sub(r"<th( [^>]*)?></th>", r"<td\1></td>", output)
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def on_post_template(output: str, template_name: str, **_: Any) -> str:
    """Leave out the page for addresses that are not there: only a server would show it, with scripts from elsewhere."""
    return "" if template_name == "404.html" else output
