"""ONNX files as people have them: each gives the rows that its graph gives by hand, or a message that says why not."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from PIL import Image

from tlcache.backbones.engines import ENGINES, open_network
from tlcache.backbones.load import load_model
from tlcache.backbones.model import Parted
from tlcache.errors import ModelError, OptionError, UnknownNameError
from tlcache.extraction.forks import forked
from tlcache.files import cache_folder
from tlcache.images import prepare

FLOAT = TensorProto.FLOAT
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 16, 16), dtype=np.uint8)
PLANES = np.array([1, 2, 3]).reshape(3, 1, 1)
PREPARED = {"resize": 16, "mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
NORMAL = (
    (IMAGES / 255 - np.array(PREPARED["mean"]).reshape(3, 1, 1)) / np.array(PREPARED["std"]).reshape(3, 1, 1)
).astype(np.float32)


def value(name: str, shape: Sequence[int | str | None] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def network(
    *after: onnx.NodeProto,
    shape: Sequence[int | str] = ("n", 3, 16, 16),
    before: Sequence[onnx.NodeProto] = (),
    channels: int = 3,
    outputs: Sequence[onnx.ValueInfoProto] = (),
    weights: dict[str, Any] | None = None,
    opset: int = 13,
    ir: int = 8,
) -> onnx.ModelProto:
    """Make `input` -> [before] -> `map` (n, 6, 8, 8) -> `pooled` (n, 6, 1, 1) -> `emb` (n, 6) -> [after]."""
    random = np.random.default_rng(1)
    arrays = {"kernel": random.normal(size=(6, channels, 3, 3)).astype(np.float32), **(weights or {})}
    nodes = [
        *(before or [helper.make_node("Identity", ["input"], ["x"])]),
        helper.make_node("Conv", ["x", "kernel"], ["c"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["emb"], axis=1),
        *after,
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [value("input", shape)],
        list(outputs) or [value("emb", ["n", 6])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    domains = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 2)]
    return helper.make_model(graph, opset_imports=domains, ir_version=ir)


LAST = [helper.make_node("Transpose", ["input"], ["x"], perm=[0, 3, 1, 2])]


def rows(
    model: onnx.ModelProto, images: NDArray[np.uint8] = IMAGES, engine: str = "onnxruntime", **options: Any
) -> NDArray[np.float32]:
    """Save the model, and return the embeddings of images as an extraction makes them."""
    onnx.save(model, "model.onnx")
    return open_network(load_model("model.onnx", **{**PREPARED, **options}).onnx(), "cpu", engine=engine).embed(images)


def by_hand(
    model: onnx.ModelProto, output: str = "emb", images: NDArray[np.float32] = NORMAL, **others: Any
) -> NDArray[np.float32]:
    """Run the model as it is, which ONNX Runtime takes whatever its age, on images that are prepared already."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run([output], {"input": images, **others})[0]
    return result


def close(found: NDArray[np.float32], expected: NDArray[np.float32]) -> bool:
    return found.shape == expected.shape and bool(np.allclose(found, expected, rtol=1e-4, atol=1e-5))


def old() -> onnx.ModelProto:
    """Make a file of before 2019, when weights had to be inputs, too."""
    model = network(ir=3, opset=7)
    model.graph.input.append(value("kernel", [6, 3, 3, 3]))
    return model


def branching() -> onnx.ModelProto:
    """Make a network with an If, whose branches use tensors from outside."""
    inside = [
        helper.make_graph([helper.make_node("Mul", ["emb", "two"], ["a"])], "then", [], [value("a", ["n", 6])]),
        helper.make_graph([helper.make_node("Identity", ["emb"], ["b"])], "else", [], [value("b", ["n", 6])]),
    ]
    choice = helper.make_node("If", ["yes"], ["out"], then_branch=inside[0], else_branch=inside[1])
    return network(choice, outputs=[value("out", ["n", 6])], weights={"two": np.float32(2), "yes": np.array(True)})


def looping() -> onnx.ModelProto:
    """Make a network with a Loop, whose body takes a weight that nothing outside takes."""
    body = helper.make_graph(
        [helper.make_node("Mul", ["state", "two"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("turn", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", ["n", 6])],
        [value("on", [], TensorProto.BOOL), value("next", ["n", 6])],
    )
    weights = {"two": np.float32(2), "three": np.array(3), "yes": np.array(True)}
    loop = helper.make_node("Loop", ["three", "yes", "emb"], ["out"], body=body)
    return network(loop, outputs=[value("out", ["n", 6])], weights=weights)


@pytest.mark.parametrize(
    ("model", "output"), [(old(), "emb"), (branching(), "out"), (looping(), "out"), (network(opset=20, ir=10), "emb")]
)
def test_graphs_of_every_age_with_subgraphs_or_without(model: onnx.ModelProto, output: str) -> None:
    before = model.SerializeToString()
    assert close(rows(model), by_hand(model, output))
    assert model.SerializeToString() == before


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("order", [[4, 3, 2, 1, 0], [1, 2, 3, 4, 0], [0, 2, 1, 4, 3]])
def test_nodes_in_any_order(order: list[int], engine: str) -> None:
    model = network()
    nodes = list(model.graph.node)
    expected = by_hand(model)
    del model.graph.node[:]
    model.graph.node.extend(nodes[number] for number in order)
    assert close(rows(model, engine=engine), expected)


def test_nodes_that_wait_for_each_other_are_refused() -> None:
    model = network()
    model.graph.node[0].input[0] = "emb"
    with pytest.raises(ModelError, match="some of its nodes wait for each other"):
        rows(model)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_images_of_other_floating_types(kind: int, engine: str) -> None:
    model = network(before=[helper.make_node("Cast", ["input"], ["x"], to=FLOAT)])
    model.graph.input[0].type.tensor_type.elem_type = kind
    images = NORMAL.astype(helper.tensor_dtype_to_np_dtype(kind))
    assert np.allclose(rows(model, engine=engine), by_hand(model, images=images), atol=2e-3)


def test_a_file_that_a_converter_made_half_precision_of() -> None:
    """Its casts stand behind what takes them."""
    half = convert_float_to_float16(network(), keep_io_types=True)
    assert np.allclose(rows(half), by_hand(network()), atol=1e-2)


@pytest.mark.parametrize("shape", [("n", 16, 16, 3), ("n", "a", "b", "c"), (1, "a", "b", 3)])
def test_channels_after_height_and_width_are_seen_or_found_by_trying(shape: Sequence[int | str]) -> None:
    model = network(shape=shape, before=LAST)
    expected = np.concatenate([by_hand(model, images=each[None].transpose(0, 2, 3, 1)) for each in NORMAL])
    assert close(rows(model, crop=16), expected)


@pytest.mark.parametrize("last", [False, True])
def test_grey_is_made_as_pillow_makes_it(last: bool) -> None:
    """With mean 0 and std 1 the network sees grey values of Pillow's, but for their rounding."""
    model = network(channels=1, shape=("n", 16, 16, 1) if last else ("n", 1, 16, 16), before=LAST if last else ())
    grey = np.stack([np.asarray(Image.fromarray(each.transpose(1, 2, 0)).convert("L")) for each in IMAGES])[:, None]
    images = (grey / 255).astype(np.float32)
    found = rows(model, mean=(0, 0, 0), std=(1, 1, 1))
    expected = by_hand(model, images=images.transpose(0, 2, 3, 1) if last else images)
    assert np.allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize("shape", [("n", 4, 16, 16), ("n", 2, 16, 16), ("n", 16, 16, 7)])
def test_other_numbers_of_channels_are_refused(shape: Sequence[int | str]) -> None:
    with pytest.raises(ModelError, match=r"three channels \(RGB\) or one \(grey\), .*; found input: float"):
        rows(network(shape=shape))


def test_the_first_output_that_can_be_an_embedding_is_taken_and_named(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tlcache")
    nodes = [
        helper.make_node("ArgMax", ["emb"], ["best"], axis=1, keepdims=1),
        helper.make_node(
            "LabelEncoder", ["best"], ["label"], domain="ai.onnx.ml", keys_int64s=[0, 1], values_strings=["a", "b"]
        ),
        helper.make_node("SequenceConstruct", ["emb"], ["list"]),
    ]
    odd = [value("label", ["n", 1], TensorProto.STRING), helper.make_tensor_sequence_value_info("list", FLOAT, None)]
    model = network(*nodes, outputs=[*odd, value("emb", ["n", 6])])
    assert close(rows(model), by_hand(model))
    assert "the embedding is output emb" in caplog.text
    with pytest.raises(
        ModelError, match=r"label: string .*list: sequence. The last tensors inside, .*emb: float \(\?, 6\)"
    ):
        rows(network(*nodes, outputs=odd))


def for_images_and_texts() -> onnx.ModelProto:
    """Make a network of two inputs, with an output for each of them and one for both."""
    model = network(
        helper.make_node("Cast", ["ids"], ["text"], to=FLOAT),
        helper.make_node("Add", ["emb", "text"], ["both"]),
        outputs=[value("both", ["n", 6]), value("text", ["n", 6]), value("emb", ["n", 6])],
    )
    model.graph.input.insert(0, value("ids", ["n", 6], TensorProto.INT64))
    return model


@pytest.mark.parametrize("output", [None, "emb"])
def test_the_image_branch_of_several_inputs_is_cut_out(output: str | None) -> None:
    model = for_images_and_texts()
    assert close(rows(model, output=output), by_hand(model, ids=np.zeros((5, 6), np.int64)))


def test_an_output_that_needs_a_text_is_refused() -> None:
    with pytest.raises(ModelError, match=r"Output 'both' needs more than the image: ids. Its outputs: .*emb: float"):
        rows(for_images_and_texts(), output="both")


def test_an_unknown_output_gets_the_list() -> None:
    with pytest.raises(
        UnknownNameError, match=r"no output 'nosuch'. Its outputs: emb: .* for --output: .*map: float \(\?, 6, 8, 8\)"
    ):
        rows(network(), output="nosuch")


def tokens() -> onnx.ModelProto:
    """Make a network whose first output is (n, 1 + 63, 6) and whose second one is flat."""
    nodes = [
        helper.make_node("Reshape", ["map", "shape"], ["flat map"]),
        helper.make_node("Transpose", ["flat map"], ["last_hidden_state"], perm=[0, 2, 1]),
    ]
    outputs = [value("last_hidden_state", ["n", "tokens", 6]), value("emb", ["n", 6])]
    return network(*nodes, outputs=outputs, weights={"shape": np.array([0, 6, -1])})


@pytest.mark.parametrize(
    ("pool", "expected"),
    [
        ("cls", lambda all_of: all_of[:, 0]),
        ("avg", lambda all_of: all_of[:, 1:].mean(1)),
        ("max", lambda all_of: all_of[:, 1:].max(1)),
        ("gem", lambda all_of: np.cbrt((all_of[:, 1:].clip(0) ** 3).mean(1))),
        ("cls+avg", lambda all_of: np.hstack([all_of[:, 0], all_of[:, 1:].mean(1)])),
        ("tokens", lambda all_of: all_of.mean(1)),
        ("flatten", lambda all_of: all_of.reshape(len(all_of), -1)),
    ],
)
@pytest.mark.parametrize("opset", [9, 13])
def test_tokens_are_pooled(pool: str, expected: Any, opset: int) -> None:
    model = tokens()
    model.opset_import[0].version = opset
    assert close(rows(model, pool=pool), expected(by_hand(model, "last_hidden_state")))


@pytest.mark.parametrize(("channels", "last"), [(3, False), (3, True), (1, False), (1, True)])
def test_a_shape_that_says_nothing_is_tried_and_what_it_is_is_told(
    channels: int, last: bool, caplog: pytest.LogCaptureFixture
) -> None:
    model = network(shape=("n", "a", "b", "c"), channels=channels, before=LAST if last else ())
    with caplog.at_level("INFO", "tlcache"):
        assert rows(model, crop=16).shape == (5, 6)
    colours, place = ("RGB" if channels == 3 else "grey"), ("after" if last else "before")
    assert f"it runs with {colours}, channels {place} height and width." in caplog.text


def test_tokens_without_pooling_name_the_flat_output() -> None:
    with pytest.raises(
        OptionError, match=r"takes --pool avg, max, gem, flatten, cls, cls\+avg or tokens; .* Or take --output emb"
    ):
        rows(tokens())


def test_a_map_of_one_pixel_is_an_embedding() -> None:
    model = network(outputs=[value("pooled", ["n", 6, 1, 1])])
    assert close(rows(model), by_hand(model, "pooled").reshape(5, 6))


def test_normalisation_of_uint8_images_is_refused() -> None:
    model = network(before=[helper.make_node("Cast", ["input"], ["x"], to=FLOAT)])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, "model.onnx")
    plain = open_network(load_model("model.onnx", resize=16).onnx(), "cpu").embed(IMAGES)
    assert close(plain, by_hand(model, images=IMAGES))
    with pytest.raises(OptionError, match="normalises its uint8 images itself; leave --mean and --std out"):
        rows(model)


def test_a_size_that_the_file_has_not_is_refused() -> None:
    with pytest.raises(OptionError, match="takes images of 32 x 16 pixels; asked: --crop 20"):
        rows(network(shape=("n", 3, 32, 16)), crop=20, resize=20)


@pytest.mark.parametrize("picture", [(80, 20), (32, 16), (90, 300), (64, 64)])
@pytest.mark.parametrize(("height", "width"), [(32, 16), (24, 96), (8, 80)])
@pytest.mark.parametrize("more", [1, 1.5])
def test_images_that_are_not_square_are_covered_and_cut(
    picture: tuple[int, int], height: int, width: int, more: float
) -> None:
    """What is seen is the centre, in the model's own ratio, as large as fits into the picture but for `more`."""
    across, down = (np.linspace(0, 255, length) for length in picture[::-1])
    pixels = np.stack(np.broadcast_arrays(down[:, None], across, 0 * across), axis=2).astype(np.uint8)
    Image.fromarray(pixels).save("picture.png")
    model = network(shape=("n", 3, height, width))
    onnx.save(model, "model.onnx")
    short = min(height, width)
    found = load_model("model.onnx", **{**PREPARED, "resize": int(short * more)})
    seen, _ = prepare(Path("picture.png").read_bytes(), found.preprocess)
    assert seen.shape == (3, height, width)
    scale = max(height * more / picture[0], width * more / picture[1])
    for channel, length, whole in ((0, height, picture[0]), (1, width, picture[1])):
        spread = seen[channel].astype(float).max() - seen[channel].min()
        assert spread == pytest.approx(255 * length / (scale * whole), abs=255 * 2.5 / length + 3)
        assert np.median(seen[channel]) == pytest.approx(127, abs=255 * 1.5 / length + 3)
    assert open_network(found.onnx(), "cpu").embed(seen[None]).shape == (1, 6)


def test_channels_last_and_not_square_and_the_key_says_so() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 3, 24, 32), dtype=np.uint8)
    model = network(shape=("n", 24, 32, 3), before=LAST)
    normal = (images / 255 - np.array(PREPARED["mean"]).reshape(3, 1, 1)) / np.array(PREPARED["std"]).reshape(3, 1, 1)
    assert close(rows(model, images, resize=24), by_hand(model, images=normal.astype(np.float32).transpose(0, 2, 3, 1)))
    assert load_model("model.onnx", **{**PREPARED, "resize": 24}).identity["preprocess"]["shape"] == [24, 32]
    onnx.save(network(), "model.onnx")
    assert "shape" not in load_model("model.onnx", **PREPARED).identity["preprocess"]


def test_a_newer_format_than_the_runtime_knows_is_said() -> None:
    with pytest.raises(ModelError, match="ONNX Runtime does not accept the model: .*Unsupported model IR version: 99"):
        rows(network(ir=99))


def test_a_pointer_of_git_lfs_is_called_so() -> None:
    Path("model.onnx").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ModelError, match="is a Git LFS pointer, .*git lfs pull"):
        load_model("model.onnx")


def parted(*locations: str, offset: int = 0) -> onnx.ModelProto:
    """Make a network whose weights are in other files, and write these beside where it will be."""
    model = network(helper.make_node("Mul", ["emb", "two"], ["out"]), weights={"two": np.full(6, 2, np.float32)})
    model.graph.output[0].name = "out"
    for tensor, location in zip(model.graph.initializer, locations, strict=True):
        onnx.external_data_helper.set_external_data(tensor, location, offset, len(tensor.raw_data))
        with Path(Path(location).name).open("ab") as file:
            file.write(bytes(offset) + tensor.raw_data)
        tensor.ClearField("raw_data")
    return model


def loaded(model: onnx.ModelProto) -> Any:
    Path("model.onnx").write_bytes(model.SerializeToString())  # as it is
    return load_model("model.onnx", **PREPARED)


@pytest.mark.parametrize("offset", [0, 64])
@pytest.mark.parametrize("engine", ENGINES)
def test_weights_in_files_beside_it_are_read_and_part_of_the_key(offset: int, engine: str) -> None:
    expected = by_hand(network(), "emb") * 2
    model = loaded(parted("model.onnx.data", "./more.bin", offset=offset))
    assert close(open_network(model.onnx(), "cpu", engine=engine).embed(IMAGES), expected)
    with Path("more.bin").open("r+b") as file:
        file.seek(offset)
        file.write(np.float32(3).tobytes())
    changed = load_model("model.onnx", **PREPARED)
    assert changed.key != model.key
    assert close(open_network(changed.onnx(), "cpu").embed(IMAGES)[:, :1], expected[:, :1] * 1.5)


def test_weights_in_a_subgraph_are_read() -> None:
    model = branching()
    (inside,) = (each.g for each in model.graph.node[-1].attribute if each.name == "then_branch")
    tensor = numpy_helper.from_array(np.float32(5), "two")
    Path("w").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "w", 0, 4)
    tensor.ClearField("raw_data")
    inside.initializer.append(tensor)
    model.graph.initializer.remove(next(each for each in model.graph.initializer if each.name == "two"))
    assert close(open_network(loaded(model).onnx(), "cpu").embed(IMAGES), by_hand(network()) * 5)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/b.bin", "..", "a\\b", "C:b"])
def test_weights_elsewhere_are_never_read(location: str) -> None:
    model = network()
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, location)
    tensor.ClearField("raw_data")
    with pytest.raises(ModelError, match="only files that lie beside it are read"):
        loaded(model)


def test_weights_that_are_missing_linked_or_cut_are_said() -> None:
    model = parted("w", "v")
    data = Path("w").read_bytes()
    Path("w").rename("kept")
    with pytest.raises(ModelError, match="keeps weights in 'w': No such file .* Put that file beside it"):
        loaded(model)
    Path("w").symlink_to("kept")
    with pytest.raises(ModelError, match="no file of its own but a link"):
        loaded(model)
    Path("w").unlink()
    Path("w").write_bytes(data[:-1])
    with pytest.raises(ModelError, match="not all weights of 'kernel'. Fetch it again"):
        loaded(model)


@pytest.fixture
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every model count as a large one, and almost every tensor."""
    monkeypatch.setattr("tlcache.backbones.onnx_weights.MOST_BYTES", 0)
    monkeypatch.setattr("tlcache.backbones.onnx_weights._LARGE", 20)


def beside(model: onnx.ModelProto) -> onnx.ModelProto:
    """Put all initializers of a model into one file, at odd places."""
    with Path("model.onnx.data").open("wb") as file:
        for tensor in model.graph.initializer:
            file.write(b"odd")
            onnx.external_data_helper.set_external_data(tensor, "model.onnx.data", file.tell(), len(tensor.raw_data))
            file.write(tensor.raw_data)
            tensor.ClearField("raw_data")
    return model


LARGE = {
    "plain": (network, {}),
    "old": (old, {}),
    "If": (branching, {}),
    "Loop": (looping, {}),
    "tokens": (tokens, {"pool": "avg"}),
    "images and texts": (for_images_and_texts, {"output": "emb"}),
    "an inner tensor": (tokens, {"output": "map", "pool": "max"}),
    "a shape that says nothing": (lambda: network(shape=("n", "a", "b", "c"), before=LAST), {"crop": 16}),
}


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("place", [beside, lambda model: model], ids=["in another file", "in one file"])
@pytest.mark.parametrize(("make", "options"), LARGE.values(), ids=LARGE)
def test_large_weights_stay_beside_the_graph_and_nothing_else_changes(
    make: Any, options: dict[str, Any], place: Any, engine: str, request: pytest.FixtureRequest
) -> None:
    Path("model.onnx").write_bytes(place(make()).SerializeToString())
    whole = load_model("model.onnx", **PREPARED, **options)
    expected = open_network(whole.onnx(), "cpu", engine=engine, batch=4).embed(IMAGES)
    request.getfixturevalue("small_bounds")
    model = load_model("model.onnx", **PREPARED, **options)
    parted = model.onnx()
    assert isinstance(parted, Parted)
    assert "kernel" in parted.weights
    assert np.array_equal(open_network(parted, "cpu", engine=engine, batch=4).embed(IMAGES), expected)
    assert model.key == whole.key


@pytest.mark.usefixtures("small_bounds")
def test_large_weights_are_mapped_and_only_those_that_are_needed() -> None:
    data = np.zeros((100, 6), np.float32)
    model = beside(network(helper.make_node("MatMul", ["data", "emb"], ["other"]), weights={"data": data}))
    Path("model.onnx").write_bytes(model.SerializeToString())
    parted = load_model("model.onnx", **PREPARED).onnx()
    assert isinstance(parted, Parted)
    assert list(parted.weights) == ["kernel"]
    assert b"model.onnx.data" not in parted.graph


@pytest.mark.usefixtures("small_bounds")
def test_large_weights_are_shared_with_forked_processes() -> None:
    opened = open_network(loaded(parted("w", "v")).onnx(), "cpu")
    assert np.array_equal(forked(lambda: opened.embed(IMAGES))(), opened.embed(IMAGES))


@pytest.mark.usefixtures("small_bounds")
def test_large_weights_in_float16() -> None:
    """On a GPU this is what runs; here ONNX Runtime's CPU kernels run it, which users are not offered."""
    expected = open_network(loaded(parted("w", "v")).onnx(), "cpu").embed(IMAGES)
    half = load_model("model.onnx", **PREPARED, precision="fp16").onnx()
    assert isinstance(half, Parted)
    assert {each.dtype for each in half.weights.values()} == {np.dtype(np.float16)}
    found = open_network(half, "cpu").embed(IMAGES)
    assert 0 < np.abs(found - expected).max() <= 1e-2 * np.abs(expected).max()


@pytest.mark.usefixtures("small_bounds")
@pytest.mark.parametrize("engine", ENGINES)
def test_other_large_weights_are_another_network_and_are_tried_again(engine: str) -> None:
    model = parted("w", "v")
    first = open_network(loaded(model).onnx(), "cpu", engine=engine).embed(IMAGES)
    tried = len(list((cache_folder() / "opened").iterdir()))
    Path("v").write_bytes(np.full(6, 3, np.float32).tobytes())
    assert close(open_network(loaded(model).onnx(), "cpu", engine=engine).embed(IMAGES), first * 1.5)
    assert len(list((cache_folder() / "opened").iterdir())) == tried + 1


@pytest.mark.usefixtures("small_bounds")
def test_large_weights_that_are_cut_or_of_another_shape_are_said() -> None:
    model = parted("w", "v")
    Path("w").write_bytes(Path("w").read_bytes()[:-1])
    with pytest.raises(ModelError, match="'w' has 647 bytes, not all weights of 'kernel'. Fetch it again"):
        loaded(model)
    Path("w").write_bytes(bytes(648))
    model.graph.initializer[0].dims[0] = 7
    with pytest.raises(ModelError, match=r"has 648 bytes of weights 'kernel' \(7, 3, 3, 3\). Fetch it again"):
        loaded(model)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"range": 255}, IMAGES),
        ({"range": 255, "channels": "bgr"}, IMAGES[:, ::-1]),
        ({"range": 255, "mean": (10, 20, 30), "std": (1, 2, 3)}, (IMAGES - PLANES * 10) / PLANES),
        ({"range": 255, "channels": "bgr", "mean": (10, 20, 30)}, IMAGES[:, ::-1] - PLANES * 10),
        ({"range": 2, "mean": (1, 1, 1), "std": (1, 1, 1)}, IMAGES / 127.5 - 1),
        ({"channels": "bgr", "mean": (0, 0, 0), "std": (1, 1, 1)}, IMAGES[:, ::-1] / 255),
    ],
)
@pytest.mark.parametrize("last", [False, True])
def test_colours_and_values_as_the_network_takes_them(options: dict[str, Any], expected: Any, last: bool) -> None:
    model = network(shape=("n", 16, 16, 3) if last else ("n", 3, 16, 16), before=LAST if last else ())
    onnx.save(model, "model.onnx")
    loaded = load_model("model.onnx", resize=16, **options)
    images = np.ascontiguousarray(expected.transpose(0, 2, 3, 1) if last else expected).astype(np.float32)
    assert close(open_network(loaded.onnx(), "cpu").embed(IMAGES), by_hand(model, images=images))
    assert loaded.identity["preprocess"].keys() & {"channels", "range"} == options.keys() & {"channels", "range"}


def test_what_is_usual_is_no_part_of_the_key() -> None:
    onnx.save(network(), "model.onnx")
    assert load_model("model.onnx", **PREPARED, channels="rgb", range=1).key == load_model("model.onnx", **PREPARED).key


def test_colours_and_values_that_would_be_passed_over_are_refused(tiny_model: Path) -> None:
    onnx.save(network(channels=1, shape=("n", 1, 16, 16)), "grey.onnx")
    with pytest.raises(OptionError, match="takes grey images; leave --channels out"):
        load_model("grey.onnx", **PREPARED, channels="bgr")
    with pytest.raises(OptionError, match="part of its graph"):
        load_model(str(tiny_model), range=255)
    with pytest.raises(OptionError, match="--channels and --range are of .onnx files; resnet18 takes RGB"):
        load_model("resnet18", "random", channels="bgr", range=255)
    model = network(before=[helper.make_node("Cast", ["input"], ["x"], to=FLOAT)])
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    onnx.save(model, "bytes.onnx")
    with pytest.raises(OptionError, match="normalises its uint8 images itself; leave --range out"):
        load_model("bytes.onnx", resize=16, range=255)
    bgr = open_network(load_model("bytes.onnx", resize=16, channels="bgr").onnx(), "cpu").embed(IMAGES)
    assert close(bgr, by_hand(model, images=np.ascontiguousarray(IMAGES[:, ::-1])))


def test_colours_and_values_that_there_are_none_of() -> None:
    onnx.save(network(), "model.onnx")
    with pytest.raises(UnknownNameError, match="Unknown order of channels 'grb'"):
        load_model("model.onnx", **PREPARED, channels="grb")
    with pytest.raises(OptionError, match="White is a whole number from 1 on; found 0"):
        load_model("model.onnx", **PREPARED, range=0)
