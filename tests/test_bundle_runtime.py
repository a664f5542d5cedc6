"""A model that was exported, with ONNX Runtime, NumPy and Pillow alone."""

import csv
import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fakes import SIDE, tiny_bundle, write_image
from numpy.typing import NDArray
from PIL import Image

import tlcache
from tlcache.bundle.command import main
from tlcache.errors import ModelError, OptionError
from tlcache.runs.frozen import FrozenRun

HEAVY = {
    *("torch", "h5py", "sklearn", "scipy", "lightgbm", "onnx", "msgspec", "typer", "rich", "filelock", "platformdirs"),
    *("matplotlib", "jinja2", "tifffile", "safetensors", "openvino"),
}
NOISE = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
PICTURE = np.full((SIDE, SIDE, 3), (10, 40, 60), np.uint8)


def encoded(pixels: NDArray[np.generic], kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def expected(pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
    powers = np.exp(pixels.reshape(-1, 3).mean(0) / 10)
    return powers / powers.sum()


def run(*arguments: object, given: str = "") -> list[dict[str, str]]:
    done = subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, input=given, check=True
    )
    return list(csv.DictReader(io.StringIO(done.stdout)))


def test_nothing_but_three_packages_is_imported(bundle: Path, photos: Path) -> None:
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['bundle', {str(bundle)!r}, {str(photos / 'red')!r}, '--out', 'out.csv']\n"
        "try: runpy.run_module('tlcache.bundle', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"print(sorted({HEAVY} & {{name.partition('.')[0] for name in sys.modules}}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert [row["label"] for row in csv.DictReader(Path("out.csv").read_text().splitlines())] == ["red"] * 8


def test_probabilities_are_those_of_the_graph_however_an_image_is_given(bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(PICTURE))
    images = [
        path,
        str(path),
        path.read_bytes(),
        Image.open(path),
        PICTURE,
        np.dstack([PICTURE, PICTURE[..., :1] | 255]),
    ]
    model = tlcache.load_model(bundle)
    rows = model.predict(images, top=3)
    for row in rows:
        assert not row.error
        assert row.labels == ["red", "green", "blue"]
        np.testing.assert_allclose(row.confidences, expected(PICTURE)[::-1], atol=1e-6)
    assert [row.path for row in rows] == [str(path), str(path), *(f"image {number}" for number in range(2, 6))]
    assert [row.labels for row in model.predict([io.BytesIO(path.read_bytes()), bytearray(path.read_bytes())])] == [
        ["red"]
    ] * 2
    for alone in (path, PICTURE, io.BytesIO(path.read_bytes()), memoryview(path.read_bytes())):
        assert [row.labels for row in model.predict(alone)] == [["red"]]
    names = np.array([str(path)] * 2)
    for several in (np.stack([PICTURE, PICTURE]), names, iter((path, PICTURE)), dict.fromkeys((path, str(path)))):
        assert [row.labels for row in model.predict(several)] == [["red"]] * 2


def test_grey_and_turned_pictures_are_what_their_files_are(bundle: Path, tmp_path: Path) -> None:
    half = np.zeros((SIDE, 3 * SIDE, 3), np.uint8)
    half[:, : SIDE + 4, 0] = 90  # of which the centre crop has a strip on one side alone
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.png").write_bytes(encoded(half.transpose(1, 0, 2), exif=exif))
    model = tlcache.load_model(bundle)
    by_path, by_image = model.predict([tmp_path / "turned.png", Image.open(tmp_path / "turned.png")], top=3)
    assert by_path.confidences == by_image.confidences
    grey = model.predict([np.full((SIDE, SIDE), 7, np.uint8)], top=3)[0]
    np.testing.assert_allclose(grey.confidences, 1 / 3, atol=1e-6)


def test_sixteen_bits_are_read_by_the_rules(bundle: Path) -> None:
    deep = np.full((SIDE, SIDE), 0x0800, np.uint16)
    deep[0, 0] = 0x0FFF  # of 12 bits
    levels = np.repeat((np.rint(deep * (255 / 4095)).astype(np.uint8))[:, :, None], 3, 2)
    model = tlcache.load_model(bundle)
    assert model.outputs(levels.transpose(2, 0, 1)[None])["probabilities"].max() < 0.4
    assert model.predict([encoded(deep)])[0].confidences == model.predict([levels])[0].confidences


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (
            encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG")[:900],
            "truncated JPEG",
        ),
        (b"a shopping list", "not an image (starts with 'a shopping l')"),
        (b"", "empty file"),
        (encoded(np.zeros((4, 4, 3), np.uint8), "TIFF")[:60], "damaged"),
        (np.zeros((4, 4)), "found float64 (4, 4)"),
        (None, "expected a path, bytes, a PIL image or uint8"),
        (Path("nowhere.png"), "No such file or directory"),
        (Path(), "not a regular file"),
        ("a\0.png", "embedded null byte"),
        (np.zeros((0, 5, 3), np.uint8), "has no pixels: 0 rows of 5"),
        (Image.new("L", (0, 0)), "has no pixels: 0 rows of 0"),
        (io.BytesIO(b"a\nshopping list"), "not an image"),
        (io.StringIO("text"), "expected a path, bytes"),
    ],
)
def test_a_bad_image_is_a_row_with_its_reason(bundle: Path, data: object, error: str) -> None:
    good, bad, other = tlcache.load_model(bundle).predict([PICTURE, data, PICTURE])
    assert error in bad.error
    assert (list(bad.labels), good.labels, other.labels) == ([], ["red"], ["red"])


def test_the_largest_image_to_read_is_an_option(bundle: Path) -> None:
    (row,) = tlcache.load_model(bundle, max_pixels=99).predict([encoded(PICTURE)])
    assert "16 x 16 is more than 99 pixels" in row.error


def test_numbers_that_are_not_finite_are_no_answer(tmp_path: Path) -> None:
    model = tiny_bundle()
    (node,) = (node for node in model.graph.node if node.output == ["tenth"])
    node.attribute[0].t.CopyFrom(onnx.numpy_helper.from_array(np.float32(np.inf)))
    onnx.save(model, tmp_path / "infinite.onnx")
    (row,) = tlcache.load_model(tmp_path / "infinite.onnx").predict([PICTURE])
    assert row.error == "the network gives numbers that are not finite"


def test_rows_are_in_the_order_of_the_images(bundle: Path, tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 3, 50)
    paths = [write_image(tmp_path / "many" / f"{number}.png", number, colour) for number, colour in enumerate(colours)]
    rows = tlcache.load_model(bundle).predict(paths)
    assert [row.path for row in rows] == [str(path) for path in paths]
    assert [row.labels[0] for row in rows] == [("blue", "green", "red")[colour] for colour in colours]


def test_the_command_line_takes_files_folders_and_standard_input(bundle: Path, photos: Path) -> None:
    (photos / "notes.txt").write_text("of no concern")
    listed = "".join(f"{path}\n" for path in sorted((photos / "green").iterdir())[:2])
    rows = run("-m", "tlcache.bundle", bundle, photos / "red" / "0.png", photos / "blue", "-", "--top", 2, given=listed)
    assert [row["label"] for row in rows] == ["red", *["blue"] * 8, "green", "green"]
    assert list(rows[0]) == ["path", "label", "confidence", "label_2", "confidence_2", "error"]
    assert rows[0]["path"] == str(photos / "red" / "0.png")


def test_a_packed_model_needs_no_tlcache(bundle: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "elsewhere" / "photos.pyz"
    run("-m", "tlcache.bundle", bundle, "--pack", out)
    rows = run("-I", out, photos)
    assert [row["label"] for row in rows] == [row["label"] for row in run("-m", "tlcache.bundle", bundle, photos)]
    code = f"import sys; sys.path.insert(0, {str(out)!r}); from tlcache.bundle import load_model, model; " \
        f"print('path'); print(model.__file__)"  # fmt: skip
    assert run("-I", "-c", code)[0]["path"].startswith(str(out))


def test_a_network_alone_is_refused(tiny_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=r"gives embedding and names no classes.*tlcache export RUN"):
        tlcache.load_model(tiny_model)
    assert main([str(tiny_model), "a.png"]) == 1
    assert capsys.readouterr().err.startswith(f"error: '{tiny_model}' gives embedding")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"preprocess": '{"crop": 16, "resize": 16, "mirror": true}'}, "mirror.*If a newer tlcache made it"),
        ({"preprocess": "{"}, "does not say what a model of tlcache says"),
        ({"classes": "[1"}, "does not say what a model of tlcache says"),
    ],
)
def test_metadata_of_another_kind_is_refused(tmp_path: Path, change: dict[str, str], says: str) -> None:
    model = tiny_bundle()
    for entry in model.metadata_props:
        entry.value = change.get(entry.key, entry.value)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ModelError, match=says):
        tlcache.load_model(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        ([], 2, "No images are given"),
        (["empty"], 1, "There are no images in 'empty'"),
        (["a.png", "--out", "a.xls"], 2, "Known: .csv"),
        (["a.png", "folder/"], 1, "There is nothing at 'folder/'"),
        (["misspelt"], 1, "There is nothing at 'misspelt'"),
        (["a.png", "--pack", "a.pyz"], 2, "--pack takes no images"),
    ],
)
def test_errors_are_one_line(
    bundle: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
) -> None:
    Path("empty").mkdir()
    assert main([str(bundle), *arguments]) == status
    found = capsys.readouterr().err
    assert found.startswith("error: ")
    assert says in found
    assert found.count("\n") == 1


def test_a_pack_does_not_replace_its_model(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = bundle.read_bytes()
    assert main([str(bundle), "--pack", str(bundle.parent / "." / bundle.name)]) == 2
    assert "would replace the model itself" in capsys.readouterr().err
    assert bundle.read_bytes() == before


def test_a_model_that_is_not_there_and_one_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nowhere.onnx", "a.png"]) == 1
    assert capsys.readouterr().err == "error: No such file or directory: nowhere.onnx\n"
    Path("text.onnx").write_text("text")
    assert main(["text.onnx", "a.png"]) == 1
    said = capsys.readouterr().err
    assert (
        "'text.onnx' is no model that can be used here. Expected the model of a run; make it with: tlcache exp" in said
    )
    assert "ONNX Runtime does not accept the model" in said


def test_bad_images_are_counted(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("good.png").write_bytes(encoded(PICTURE))
    assert main([str(bundle), "nowhere.png", "good.png", "--out", "out.csv"]) == 0
    assert "1 image of 2 cannot be used" in capsys.readouterr().err
    assert main([str(bundle), "nowhere.png", "--out", "out.csv"]) == 1
    assert capsys.readouterr().err == "1 image of 1 cannot be used; the column error says why.\n"
    assert Path("out.csv").read_text() == "path,label,confidence,error\nnowhere.png,,,No such file or directory\n"


def test_a_network_that_takes_one_image_is_given_one_at_a_time(tmp_path: Path) -> None:
    model = tiny_bundle()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(model, tmp_path / "single.onnx")
    rows = tlcache.load_model(tmp_path / "single.onnx").predict([PICTURE, b"", PICTURE[..., ::-1]])
    assert [row.labels for row in rows] == [["red"], (), ["blue"]]


@pytest.fixture
def exported(photos: Path, tiny_model: Path, tmp_path: Path) -> tuple[FrozenRun, Path]:
    """A run that knows how sure it is, and the file that was exported of it."""
    (run,) = tlcache.fit_heads([tlcache.extract(photos, tiny_model).path], heads=["ridge"], coverage=0.7)
    return run, tlcache.export(run.path, out=tmp_path / "ridge.onnx").path


@pytest.mark.parametrize("asked", [{}, {"sets": True, "top": 2}, {"right": 0.99}, {"reject": 0.3, "sets": True}])
def test_an_exported_run_says_what_predict_says(
    exported: tuple[FrozenRun, Path], tmp_path: Path, asked: dict[str, Any]
) -> None:
    run, path = exported
    # not resized, so that pixels are the same
    images = [str(write_image(tmp_path / f"{number}.png", number, number, SIDE)) for number in range(20)]
    expected, found = tlcache.predict(run, images, **asked), tlcache.load_model(path).predict(images, **asked)
    for one, other in zip(expected.rows(), found, strict=True):
        assert (other.path, other.labels, other.set) == (one.path, one.labels, one.set)
        assert other.confidences == pytest.approx(one.confidences, abs=1e-5)
        assert other.unusual == pytest.approx(one.unusual, abs=0.06)  # a rank
    if "right" in asked or "reject" in asked:
        assert {row.labels[0] for row in found} & {"unsure", "unknown"}


def test_the_command_line_gives_sets_and_refuses_what_a_model_does_not_know(
    exported: tuple[FrozenRun, Path], bundle: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(exported[1]), str(photos / "red"), "--sets", "--top", "9", "--out", "out.csv"]) == 0
    rows = list(csv.DictReader(Path("out.csv").read_text().splitlines()))
    assert list(rows[0])[-3:] == ["set", "unusual", "error"]
    assert "label_3" in rows[0]
    assert "label_4" not in rows[0]
    assert main([str(exported[1]), str(photos), "--right", "0.9999", "--out", "out.csv"]) == 0
    assert "No confidence is enough for 0.9999 right answers" in capsys.readouterr().err
    assert main([str(bundle), str(photos), "--reject", "0.05"]) == 2
    assert "tlcache fit-heads --coverage 0.9" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(bundle), "--right", "98"])
    assert "takes a number above 0 to below 1; found '98'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked", [{"top": 0}, {"top": -1}, {"top": 1.5}, {"top": True}, {"right": 98}, {"reject": float("nan")}]
)
def test_values_that_an_option_may_not_have_are_refused(bundle: Path, asked: dict[str, Any]) -> None:
    (option,) = asked
    with pytest.raises(OptionError, match=f"^{option} takes a .*number .*; asked: {next(iter(asked.values()))}"):
        tlcache.load_model(bundle).predict([PICTURE], **asked)


@pytest.mark.parametrize("image", [np.zeros((0, 5, 3), np.uint8), None, 5, io.StringIO("a.png\nb.png")])
def test_what_was_meant_as_one_image_is_one_row(bundle: Path, image: object) -> None:
    (row,) = tlcache.load_model(bundle).predict(image)  # type: ignore[arg-type]
    assert row.error


def test_options_may_stand_between_the_model_and_images(
    bundle: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    for name in ("a.png", "-b.png"):
        Path(name).write_bytes(encoded(PICTURE))
    assert main([str(bundle), "--top", "2", "a.png", "--out", "-", "--", "-b.png"]) == 0
    header, *rows = capfdbinary.readouterr().out.splitlines()
    assert header == b"path,label,confidence,label_2,confidence_2,error"
    assert [row.split(b",")[:2] for row in rows] == [[b"a.png", b"red"], [b"-b.png", b"red"]]


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        (b"a.png\0b\n.png\0", ["a.png", "b\n.png"]),
        (b"a.png\0b.png\n", ["a.png", "b.png\n"]),
        (b"a.png\r\n\r\nb c.png\r\n", ["a.png", "b c.png"]),
        (b"a.png\nb\r.png", ["a.png", "b\r.png"]),
    ],
)
def test_paths_on_standard_input(bundle: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, paths: list[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert main([str(bundle), "-", "--out", "out.csv"]) == 1
    with Path("out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, strict=True))
    assert [row["path"] for row in rows] == paths
    assert {row["error"] for row in rows} == {"No such file or directory"}
