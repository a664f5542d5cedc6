"""What the README and the schema page tell people to type works, and says what is there."""

import functools
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
import pytest
import typer
from fakes import TinyNetwork

from tlcache.backbones.sources import list_models
from tlcache.cli import app
from tlcache.extraction.extract import extract
from tlcache.heads.table import HEADS
from tlcache.progress import hide_progress

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "features" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_readers_of_the_schema_page_run(photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = extract(photos, str(tiny_model)).path
    (block,) = python_blocks(ROOT / "features" / "README.md")
    exec(re.sub(r"features/digits/\S+\.h5", str(made), block), {})
    assert "(12, 8) (12,)" in capsys.readouterr().out


def test_the_schema_page_names_every_dataset_and_attribute(photos: Path, tiny_model: Path) -> None:
    page = (ROOT / "features" / "README.md").read_text()
    with h5py.File(extract(photos, str(tiny_model)).path) as file:
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if isinstance(item, h5py.Dataset) else None)
        for dataset in datasets:
            group, _, name = dataset.name.rpartition("/")
            (line,) = [line for line in page.splitlines() if re.match(rf"{group}/(\w+, )*{name}\b", line)]
            kind = "utf-8" if dataset.dtype.kind == "S" else np.dtype(dataset.dtype).name
            assert kind in line, dataset.name
        for name in file.attrs:
            assert f"`{name}`" in page


def test_the_python_of_its_page_runs(photos: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steps, pipeline = python_blocks(ROOT / "docs" / "python.md")
    assert steps.count("photos/") == steps.count("mobilenetv3_large") == 1
    names: dict[str, object] = {}
    exec(steps.replace("photos/", str(photos)).replace("mobilenetv3_large", str(tiny_model)), names)
    printed = capsys.readouterr().out
    assert re.search(r"\['(blue|green|red)'", printed)
    first, last = sorted(photos.rglob("*.png"))[0], sorted(photos.rglob("*.png"))[-1]
    for written, there in (("photos/cat/1.jpg", first), ("photos/dog/7.jpg", last), ("mobilenetv3_large", tiny_model)):
        assert pipeline.count(written) == 1
        pipeline = pipeline.replace(written, str(there))
    exec(pipeline, names)
    assert list(names["classifier"].classes_) == ["cat", "dog"]  # type: ignore[attr-defined]


@pytest.mark.usefixtures("tinynet")
def test_the_python_of_the_page_on_checkpoints_runs(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "checkpoints.md"
    code = "\n".join(python_blocks(page)).replace("torchvision.models.resnet18", "TinyNetwork")
    try:
        exec(code.replace("resnet18", "tinynet").replace("photos/", str(photos)), {"TinyNetwork": TinyNetwork})
    finally:
        hide_progress()
    (line,) = re.findall(r"^    (The weights .*)$", page.read_text(), re.MULTILINE)
    said = " ".join(capsys.readouterr().err.split())
    assert line.replace("resnet18", "tinynet").replace("conv1", "features.0.0") in said
    assert said.count("The weights") == 1


def test_the_pages_name_every_head_and_the_number_of_backbones() -> None:
    page = (ROOT / "docs" / "heads.md").read_text()
    assert all(f"| `{name}` |" in page for name in HEADS)
    assert len(list_models()) == 13
    assert "Thirteen are built in" in (ROOT / "README.md").read_text()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)):
        name, _, anchor = target.partition("#")
        if not name.startswith(("http:", "https:")):
            found = (page.parent / name if name else page).resolve()
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


def anchors(page: Path) -> set[str]:
    """Return what the headings of a page are called in links, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_links_to_every_page() -> None:
    linked = re.findall(r"\]\(([\w-]+\.md)", (ROOT / "docs" / "index.md").read_text())
    assert {*linked, "index.md"} == {page.name for page in (ROOT / "docs").glob("*.md")}


class Block(NamedTuple):
    """What one block of a page has one type: its commands, and why they are not run by the tests, or nothing."""

    lines: list[str]
    not_run: str


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page that show commands: those of a shell, and texts with a `$` before what is typed."""
    found = []
    for reason, kind, text in re.findall(
        r"^(?:<!-- not run: (.+) -->\n)?```(sh|text)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE
    ):
        lines = text.replace("\\\n", " ").splitlines()
        prompt = "$ " if kind == "text" else ""
        typed = [line.removeprefix(prompt).partition(" #")[0].rstrip() for line in lines if line.startswith(prompt)]
        if typed:
            found.append(Block(typed, reason))
    return found


COMMANDS = sorted({line for page in PAGES for block in blocks(page) for line in block.lines if line[:8] == "tlcache "})


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_pages_is_understood(line: str) -> None:
    words = shlex.split(line)
    until = next((at for at, word in enumerate(words) if word in ("|", ">", "<", "&&", "2>")), len(words))
    name, *rest = words[1:until]
    if name.startswith("--"):  # of tlcache itself
        assert name in {option for each in typer.main.get_command(app).params for option in each.opts}
    else:
        commands()[name].make_context(name, rest)


@functools.cache
def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands  # type: ignore[attr-defined, no-any-return]


def test_the_architecture_page_names_every_room_and_module_from_the_ground_up() -> None:
    tree = (ROOT / "docs" / "architecture.md").read_text().partition("```\n")[2].partition("```")[0]
    assert len(tree.splitlines()) <= 48  # a screen
    rooms, inside = {"": set[str]()}, ""
    for line in tree.splitlines():
        if found := re.match(r" *(\w+)/", line):
            inside = found[1]
        elif not line.startswith("      "):
            inside = ""
        rooms.setdefault(inside, set()).update(re.findall(r"\b[a-z_]+\b", line))
    for path in (ROOT / "tlcache").rglob("*.py"):
        room, module = path.parent.relative_to(ROOT / "tlcache").as_posix().partition("/")[0], path.stem
        if not module.startswith("__") and path.parent.name != "embedded":
            assert module in rooms["" if room == "." else room], path
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    walled = {name.strip() for layer in layers for name in re.split("[|:]", layer)}
    there = {f"tlcache.{path.stem}" for path in (ROOT / "tlcache").iterdir() if not path.name.startswith("_")}
    assert walled == (there - {"tlcache.py"}) | {"exporters"}


def test_the_reference_is_what_the_program_goes_by() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_reference.py"], capture_output=True, text=True, check=True
    )
    page = (ROOT / "docs" / "reference.md").read_text()
    assert made.stdout == page, "run: python docs/make_reference.py > docs/reference.md"
    for command in app.registered_commands:
        for parameter in command.callback.__options__.values():  # type: ignore[union-attr]
            assert f"`{parameter.flag}" in page


def test_versions_agree() -> None:
    import tlcache

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == tlcache.__version__
    assert f"version: {tlcache.__version__}" in (ROOT / "CITATION.cff").read_text()


def test_the_constraints_name_every_dependency_and_no_address() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["dev"], *extras["ray"]}  # which is not among dev: it is large
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0] for line in lines if "==" in line}
    assert {re.split(r"[><=; ]", line)[0] for line in wanted} == pinned
    assert all(re.fullmatch(r"#.*|[a-z0-9_-]+==[0-9.]+", line) for line in lines)


def test_the_oldest_versions_that_are_tested_are_those_that_are_allowed() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    allowed = {re.sub(r">=([0-9.]+).*", r"==\1", line) for line in sum(extras.values(), project["dependencies"])}
    tested = set((ROOT / "constraints-oldest.txt").read_text().splitlines()[1:])
    assert tested <= allowed
    left_out = {*extras["ray"], *extras["mlflow"]}  # large; the tests have mlflow-skinny, and skip Ray where it is not
    wanted = {line for name in extras.keys() - {"dev"} for line in extras[name]} - left_out
    assert {re.split(r"[><=; ]", line)[0] for line in [*project["dependencies"], *wanted]} <= {
        line.partition("==")[0] for line in tested
    }


def test_the_image_for_docker_is_built_from_all_that_the_package_is() -> None:
    copied = {
        path
        for line in re.findall(r"^COPY (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        for path in line.split()[:-1]
    }
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project, wheel = pyproject["project"], pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = {project["readme"], *project["license-files"], *wheel["packages"], *wheel["force-include"]}
    assert copied >= needed | {"pyproject.toml", "constraints.txt"}
