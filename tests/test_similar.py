"""Similar images: the right ones, of files and of names, and everything that cannot be asked."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from fakes import write_image
from PIL import Image
from typer.testing import CliRunner

import tlcache
from tlcache.auditing.neighbours import fit_space
from tlcache.cli import app
from tlcache.errors import CacheError, DataError, OptionError
from tlcache.kinds import LARGEST, SIZE


def brute(file: Path, path: str) -> list[tuple[str, float]]:
    """Return all paths with their cosines to one of them, the closest first, one after the other."""
    with tlcache.open_features(file) as features:
        rows = features.split("train", "val", "test")
    space = fit_space(rows.features)(rows.features)
    own = space[rows.paths.index(path)]
    return sorted(
        ((other, float(own @ row)) for other, row in zip(rows.paths, space, strict=True)), key=lambda x: -x[1]
    )


def test_the_closest_of_all_images_are_found_in_order(made: Path, photos: Path) -> None:
    found = tlcache.similar(photos / "red" / "3.png", "photos", 24)
    (asked,) = found.asked
    expected = brute(made, "red/3.png")
    assert [near.path for near in asked.similar] == [path for path, _ in expected]
    assert [near.cosine for near in asked.similar] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
    with tlcache.open_features(made) as features:
        split = {path: name for name in ("train", "val", "test") for path in features.split(name).paths}
    assert all((near.split, near.label) == (split[near.path], near.path.split("/")[0]) for near in asked.similar)
    assert [near.path for near in asked.similar if near.same] == ["red/3.png"]


def test_a_new_image_is_embedded_as_those_of_the_dataset(made: Path, photos: Path) -> None:
    copy = Path("copy.bmp")  # the same pixels in other bytes
    Image.open(photos / "blue" / "2.png").save(copy)
    (asked,) = tlcache.similar(copy, "photos", 1).asked
    assert (asked.similar[0].path, asked.similar[0].same) == ("blue/2.png", False)
    assert asked.similar[0].cosine == pytest.approx(1, abs=1e-5)
    assert list(made.parents[1].rglob("*.h5")) == [made]  # and nothing was added


def test_images_that_are_gone_are_found_by_name(made: Path, photos: Path) -> None:
    photos.rename("elsewhere")
    found = tlcache.similar(["red/0.png", "blue/1.png"], "photos", 3)
    assert [each.path for each in found.asked] == ["red/0.png", "blue/1.png"]
    for each in found.asked:
        assert [near.path for near in each.similar] == [path for path, _ in brute(made, each.path)[:3]]


def test_embeddings_that_were_adopted_have_no_network(photos: Path) -> None:
    names = [f"{number}.png" for number in range(6)]
    np.savez("given.npz", embeddings=np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32), paths=names)
    Path("table.csv").write_text("path,label\n" + "".join(f"{name},{'ab'[at % 2]}\n" for at, name in enumerate(names)))
    tlcache.adopt("given.npz", name="given", data="table.csv")
    (asked,) = tlcache.similar("4.png", "table", 2).asked
    assert (asked.similar[0].path, asked.similar[0].label) == ("4.png", "a")
    with pytest.raises(DataError, match=r"were adopted, without a network .*0\.png'\. Give the path of one of its own"):
        tlcache.similar(photos / "red" / "0.png", "table")


def test_of_several_feature_files_one_is_named(made: Path, photos: Path, tiny_model: Path) -> None:
    other = tlcache.extract(photos, tiny_model, crop_borders=True).path
    for model in (made.stem, other.stem):
        (asked,) = tlcache.similar(photos / "red" / "3.png", "photos", 24, model=model).asked
        expected = brute(made.with_stem(model), "red/3.png")
        assert [near.cosine for near in asked.similar] == pytest.approx([cosine for _, cosine in expected], abs=1e-5)
    with pytest.raises(CacheError, match="is embedded by tiny, not by resnet50"):
        tlcache.similar("red/3.png", "photos", model="resnet50")


def test_what_cannot_be_asked_is_told(made: Path, photos: Path) -> None:
    del made
    with pytest.raises(OptionError, match="No images are given"):
        tlcache.similar([], "photos")
    with pytest.raises(CacheError, match="No features of"):
        tlcache.similar(photos / "red" / "0.png", photos.parent)
    Path("broken.png").write_bytes(b"no image")
    found = tlcache.similar(["broken.png", photos / "red" / "0.png"], "photos", 1)
    assert list(found.errors) == ["broken.png"]
    assert [each.path for each in found.asked] == [str(photos / "red" / "0.png")]


def test_the_page_has_the_pictures_it_has_room_for(made: Path, photos: Path) -> None:
    del made
    write_image(Path("<new> & one.png"), 7, 1)
    command = ["similar", "<new> & one.png", "broken.png", "--data", str(photos), "-n", "4", "--json", "found.json"]
    Path("broken.png").write_bytes(b"no image")
    done = CliRunner().invoke(app, [*command, "--page", "all.html"])
    assert done.exit_code == 0, done.output
    assert "1 of 2 images cannot be used: broken.png (" in done.stderr
    assert "Of all 24 images of photos" in done.output
    figures = json.loads(Path("found.json").read_text())
    assert [len(each["similar"]) for each in figures["asked"]] == [4]
    assert list(figures["errors"]) == ["broken.png"]
    page = Path("all.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 5  # the image itself, too
    assert "Most similar to &lt;new&gt; &amp; one.png" in page
    assert not re.search(r'(src|href)="(?!data:)', page)
    CliRunner().invoke(app, [*command, "--page", "few.html", "--thumbnails", "2kB"])
    few = Path("few.html").read_text()
    pictures = re.findall(r'"(data:image/[^"]+)"', few)
    assert 0 < len(pictures) < 5
    assert sum(map(len, pictures)) <= 2000
    assert few.count("no room on this page") == 5 - len(pictures)
    assert f"{5 - len(pictures)} pictures had no room" in few
    assert CliRunner().invoke(app, [*command, "--page", "page.pdf"]).exit_code == 2
    alone = CliRunner().invoke(app, ["similar", "broken.png", "--data", "photos"])
    assert (alone.exit_code, type(alone.exception)) == (1, SystemExit)  # and no traceback
    assert "1 of 1 image cannot be used: broken.png (" in alone.stderr


@pytest.mark.parametrize(
    ("words", "size"), [("20MB", 20_000_000), ("1.5 kB", 1500), ("0", 0), ("2G", 2_000_000_000), ("2 TB", 2 * 10**12)]
)
def test_sizes_are_read(words: str, size: int) -> None:
    assert SIZE.value(words) == size


@pytest.mark.parametrize("words", ["", "MB", "-1", "2 PB", "1e3", "20M b"])
def test_what_is_no_size_is_refused(words: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        SIZE.value(words)


@pytest.mark.parametrize("words", ["0", "0MB", "0.4"])
def test_a_largest_size_is_above_0(words: str) -> None:
    assert LARGEST.value("1") == 1
    with pytest.raises(ValueError, match="^" + re.escape(words) + "$"):
        LARGEST.value(words)
