"""The examples in docstrings run, and show what they say."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import tlcache
from tlcache.extraction.extract import extract

MODULES = sorted(
    name
    for _, name, _ in pkgutil.walk_packages(tlcache.__path__, "tlcache.")
    if name not in ("tlcache.__main__", "tlcache.cli")
)
EXAMPLES = [
    test
    for name in MODULES
    for test in doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(name), name)
    if test.examples
]


def test_there_are_examples() -> None:
    names = {test.name for test in EXAMPLES}
    assert {
        "tlcache.extraction.extract.extract",
        "tlcache.probing.fit.fit_heads",
        "tlcache.cache.feature_file.open_features",
    } <= names


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_example(example: doctest.DocTest, photos: Path, tiny_model: Path, bundle: Path, tmp_path: Path) -> None:
    example.globs |= {name: getattr(tlcache, name) for name in tlcache.__all__ if name != "__version__"}
    example.globs |= {
        "photos": photos,
        "tiny_model": str(tiny_model),
        "bundle": bundle,
        "folder": tmp_path / "examples",
    }
    if any("feature_file" in line.source for line in example.examples):
        example.globs["feature_file"] = extract(photos, str(tiny_model), features=tmp_path / "made").path
    failed, _ = doctest.DocTestRunner().run(example)
    assert failed == 0


@pytest.mark.parametrize("name", sorted(set(tlcache.__all__) - {"__version__"}))
def test_each_parameter_is_described_once(name: str) -> None:
    section = re.search(r"Parameters\n-+\n(.*?)(?=\n\n\S.*\n-{3}|\Z)", getattr(tlcache, name).__doc__ or "", re.DOTALL)
    described = re.findall(r"^(\w+)(?= :|$)", section[1], re.MULTILINE) if section else []
    assert len(described) == len(set(described))
