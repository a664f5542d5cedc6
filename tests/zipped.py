"""A source of labelled images that tlcache does not have: a zip archive with a folder for every class."""

import errno
from functools import partial
from pathlib import Path
from zipfile import ZipFile

from tlcache.datasets.layout import Layout
from tlcache.datasets.source import Form, Images, Listing, Source
from tlcache.datasets.splits import Row


class Zipped(Source):
    forms = (Form("comic book", "--data photos.cbz", "cat/1.jpg, dog/7.png: a folder for every class"),)

    def takes(self, data: str) -> bool:
        return data.endswith(".cbz") and Path(data).is_file()

    def find(self, data: str, layout: Layout) -> Listing:
        del layout  # it has no splits
        path = Path(data).resolve()
        with ZipFile(path) as archive:
            names = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
        rows = [Row(name, name.partition("/")[0]) for name in names]
        return Listing(path.stem, str(path), _opened(path), rows)

    def reopen(self, source: str) -> Images | None:
        return _opened(Path(source.removeprefix("cbz:"))) if source.startswith("cbz:") else None


ZIPPED = Zipped()


def _opened(path: Path) -> Images:
    return Images(f"cbz:{path}", partial(_read, path), path.is_file)


def _read(path: Path, name: str) -> bytes:
    with ZipFile(path) as archive:  # anew each time: threads and forked processes do not share a place in a file
        try:
            return archive.read(name)
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "no such image in the archive", name) from None


def write_zip(folder: Path) -> Path:
    """Write the images of a folder to an archive beside it."""
    path = folder.with_suffix(".cbz")
    with ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder))
    return path
