"""What `make bench` measures with: fair turns, honest images, and the same work on both sides of a ratio."""

import json
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from torch import nn

from benchmarks import tables
from benchmarks.audit import measure_audit
from benchmarks.extraction import Bench, Variant, measure_backbone, measure_large_photos, measure_network, variants_here
from benchmarks.finetuning import measure_finetuning
from benchmarks.growth import measure_growth, measure_large_file
from benchmarks.heads import measure_memory
from benchmarks.images import describe, find_images, make_photos, write_images, write_manifest
from benchmarks.peers import Peer, candidates, measure
from benchmarks.plain import fit_head, fit_plain, made_embeddings
from benchmarks.recipes import PLAIN
from benchmarks.targets import held, measure_paths
from benchmarks.timing import Rates, in_sequence, in_turn, ratio
from tlcache.datasets.dataset import load_dataset
from tlcache.finetuning.speed import COMPUTE_FORMATS
from tlcache.images import decode


def test_contenders_take_turns_and_ratios_are_formed_within_a_round() -> None:
    order: list[str] = []

    def contender(name: str, speed: float) -> float:
        order.append(name)
        return speed / (1 if len(order) <= 2 else 2)  # the machine slows down to half after the first round

    rates = in_turn({"a": lambda: contender("a", 30), "b": lambda: contender("b", 10)}, 2, lambda _: None)
    assert order == ["a", "b", "b", "a"]
    assert rates["a"].rounds == (30, 15)
    assert rates["a"].noisy
    assert ratio(rates["a"], rates["b"]).rounds == (3, 3)
    assert not ratio(rates["a"], rates["b"]).noisy
    assert in_sequence(Rates((2, 3)), Rates((6, 3))).rounds == (1.5, 1.5)
    assert in_sequence(Rates((2, 3)), Rates((6, 3)), 2).rounds == (3, 3)  # the mean rate, where both do as much
    assert Rates((1, 3, 2)).as_json("x_per_s") == {
        "x_per_s": 2, "x_per_s_low": 1, "x_per_s_high": 3, "rounds": [1, 3, 2], "noisy": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rounds", "told"),
    [((2.0, 2.2, 2.25), "~2.20"), ((2.0, 2.1), "2.05"), ((2.0, 2.2, 2.4), "(2.00 to 2.40)"), ((3.0,), "3.00")],
)
def test_a_ratio_whose_rounds_disagree_is_not_told(rounds: tuple[float, ...], told: str) -> None:
    found = ratio(Rates(rounds), Rates((1.0,) * len(rounds))).as_json("ratio")
    assert (found["ratio"] is None) == told.startswith("(")
    assert found["rounds"] == list(rounds)
    assert tables._ratio(found) == told


def test_rounds_have_their_cpu_seconds() -> None:
    def work() -> float:
        return float(sum(number * number for number in range(200_000)))

    rates = in_turn({"works": work, "sleeps": lambda: time.sleep(0.05) or 1.0}, 2, lambda _: None)
    assert len(rates["works"].as_json()["cpu_s"]) == 2
    assert sum(rates["works"].cpu_s) > sum(rates["sleeps"].cpu_s)


def test_made_photographs_are_as_large_as_real_ones() -> None:
    photos = list(make_photos(3, 500, 667))
    assert len(set(photos)) == 3
    assert all(30_000 < len(photo) < 100_000 for photo in photos)
    assert all(decode(photo)[1][:2] == (500, 667) for photo in photos)
    assert describe(photos).startswith("3 JPEGs, median 500 x 667")


def test_written_images_differ_in_bytes_and_not_in_pixels(tmp_path: Path) -> None:
    photos = list(make_photos(2, 60, 40))
    paths = write_images(tmp_path / "photos", photos, 10)
    written = [path.read_bytes() for path in paths]
    assert len(set(written)) == 10
    assert np.array_equal(decode(written[0])[0], decode(written[2])[0])
    assert sorted(find_images(tmp_path)) == sorted(written)
    dataset = load_dataset(write_manifest(paths[:8]))
    assert (len(dataset), dataset.classes) == (8, ("class0", "class1", "class2", "class3"))
    with pytest.raises(SystemExit, match="No JPEGs under"):
        find_images(tmp_path / "nothing")


def test_reading_one_split_of_a_large_file_does_not_read_the_others(tmp_path: Path) -> None:
    found = measure_large_file(60_000, 128, tmp_path)
    assert found["test_rows"] == 12_000
    assert found["file_bytes"] > 4 * 60_000 * 128
    if Path("/proc/self/io").exists():
        assert 4 * 12_000 * 128 <= found["test_split_read_bytes"] < 0.35 * found["file_bytes"]


@pytest.mark.worker
def test_an_audit_of_made_embeddings_finds_what_was_planted(tmp_path: Path) -> None:
    found = measure_audit(2000, 160, tmp_path)
    assert found["planted"] == found["planted_found"] == 20
    assert found["other_pairs"] == 0
    assert found["peak_rss_bytes"] > 1e8


@pytest.mark.worker
def test_heads_are_measured_on_made_embeddings_in_processes_of_their_own(tmp_path: Path) -> None:
    alone, both = measure_memory([["ridge"], ["ridge", "linear"]], 1000, 32, 4, tmp_path)
    assert (alone["heads"], both["heads"]) == (["ridge"], ["ridge", "linear"])
    assert alone["accuracy"] == both["accuracy"][:1]
    assert 0.3 < alone["accuracy"][0] < 1
    assert alone["features_bytes"] == 128_000
    assert alone["peak_rss_bytes"] < both["imported_bytes"] < both["peak_rss_bytes"]  # torch


def test_growth_says_what_every_size_cost(tmp_path: Path) -> None:
    rows = measure_growth([40, 80], tmp_path, lambda _: None)
    assert [row["rows"] for row in rows] == [40, 80]
    for row in rows:
        assert min(row["first_s_per_1000"], row["again_s_per_1000"]) > 0
        assert row["first_peak_rss_bytes"] > row["file_bytes"] > 0


def test_peers_are_tried_in_several_settings() -> None:
    assert len(candidates(2, few=False)) == 8
    assert {peer.variant for peer in candidates(8, few=True)} == {"fp32", "bf16"}
    assert Peer("fp32", 8, 1) in candidates(8, few=True)


@pytest.mark.slow
@pytest.mark.worker
def test_a_backbone_is_measured_with_every_engine_and_every_peer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.peers.candidates", lambda *_: [Peer("fp32", 0, 2), Peer("bf16", 0, 2)])
    photos = write_images(tmp_path / "photos", list(make_photos(4, 300, 200)), 384)
    bench = Bench(photos, 0.2, 1, True, variants_here("cpu"), "cpu")
    assert Variant("onnxruntime", "fp32") in bench.variants
    row = measure_backbone(bench, "squeezenet1_1", lambda _: None)
    assert [engine["engine"] for engine in row["engines"]] == [variant.engine for variant in bench.variants]
    for engine in row["engines"]:
        (decoding,), (network,), (whole,) = (
            part["rounds"] for part in (engine["decode"], engine["network"], engine["extract"])
        )
        assert engine["bound"]["rounds"] == [pytest.approx(1 / (1 / decoding + 1 / network))]
        assert engine["of_bound"]["ratio"] == pytest.approx(whole / engine["bound"]["images_per_s"])
    assert {"fp32", "bf16"} <= {peer["variant"] for peer in row["peers"]}
    large = measure_large_photos(bench, "squeezenet1_1", list(make_photos(1, 1600, 1200)), lambda _: None)
    assert large["speedup"]["ratio"] > 0
    networks = measure_network(bench, "squeezenet1_1")
    assert set(networks["network_images_per_s"]) == {variant.name for variant in bench.variants}
    json.dumps([row, large, networks], allow_nan=False)
    for table in (tables.extraction([row]), tables.large_photos(large), tables.networks([networks])):
        assert table is not None


@pytest.mark.slow
def test_fine_tuning_is_measured_against_a_bare_step_and_with_its_prefix(tmp_path: Path) -> None:
    photos = write_images(tmp_path / "photos", list(make_photos(4, 120, 90)), 80)
    figures = measure_finetuning(photos, "squeezenet1_1", tmp_path, 1, "cpu", lambda _: None)
    assert set(figures["ways"]) == {str(way) for way in COMPUTE_FORMATS}
    assert figures["of_bare"]["ratio"] == pytest.approx(
        figures["loop"]["images_per_s"] / figures["bare"]["images_per_s"]
    )
    assert figures["prefix_speedup"]["ratio"] > 0
    json.dumps(figures, allow_nan=False)
    assert tables.finetuning(figures) is not None


@pytest.mark.slow
def test_a_peer_measures_whole_batches(tmp_path: Path) -> None:
    write_images(tmp_path / "photos", list(make_photos(2, 300, 200)), 128)
    assert measure(Peer("bf16", 1, 1), "squeezenet1_1", tmp_path / "photos", 0.1, "cpu") > 1


class Small(nn.Module):
    """What the plain recipes ask of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.Linear(3, 2)

    def unfreeze(self) -> None:
        for parameter in self.body.parameters():
            parameter.requires_grad_(True)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchvision", [{0: [0.1], 299: [0.1], 300: [0.01], 600: [0.001], 899: [0.001]}]),
        ("timm", [{0: [0.05 / 15 / 1000], 3: [0.01], 15: [0.05], 457: [0.025], 899: [0.0]}]),
        ("fastai", [{0: [8e-5], 99: [0.0]}, {0: [2e-6, 2e-5, 2e-4], 269: [1e-5, 1e-4, 1e-3], 899: [0.0, 0.0, 0.0]}]),
    ],
)
def test_plain_recipes_have_the_learning_rates_of_their_scripts(
    name: str, expected: list[dict[int, list[float]]]
) -> None:
    network = Small()
    phases = PLAIN[name].phases(cast(Any, network), 100, 9)
    for (optimizer, schedule, total), known in zip(phases, expected, strict=True):
        for step in range(total):
            if step in known:
                rates = [group["lr"] for group in optimizer.param_groups]
                assert rates == pytest.approx(known[step], rel=0.02, abs=1e-6 if step > 90 else 1e-9)
            optimizer.step()
            schedule.step()
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_paths_of_labels_are_timed_and_intervals_drawn_again_hold_as_often_as_promised() -> None:
    found = measure_paths("ridge", 120, 8, 5)
    assert found["map_apart"] < 1e-9
    assert {"labels_cpu_s", "classes_wall_s"} <= set(found)
    shares = list(held(np.abs(np.random.default_rng(0).normal(size=400)), 0.8, 300))
    assert np.mean(shares) == pytest.approx(0.802, abs=0.01)


@pytest.mark.parametrize("name", ["logreg", "ridge", "ncm", "linear"])
def test_a_plain_way_is_worth_what_the_head_is(name: str, tmp_path: Path) -> None:
    """With as many settings, on the same rows."""
    file = str(made_embeddings(1500, 32, 4, tmp_path, spread=0.6))
    head, plain = fit_head(file, name), fit_plain(file, name)
    assert 0.5 < head["accuracy"] < 0.99
    assert abs(head["accuracy"] - plain["accuracy"]) < 0.03
    assert min(head["cpu_s"], plain["cpu_s"]) > 0
    assert (plain["log_loss"] is None) == (name == "ridge")
    few_epochs = 0.2 if name == "linear" else 0.05
    assert abs(head["log_loss"] - (plain["log_loss"] or head["log_loss"])) < few_epochs
