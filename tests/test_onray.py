"""The shards of a pass as tasks of a cluster: the same file, whoever dies; what is decided here needs no Ray."""

import random
import socket
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import chdir
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from fakes import doom
from raylets import KILLS, attempt, two_nodes
from test_shares import awkward, content

from tlcache.datasets.dataset import reopen
from tlcache.datasets.source import Images
from tlcache.errors import CacheError, DataError, DeviceError, ModelError, OptionError
from tlcache.extraction import inflight, onray, task
from tlcache.extraction.extract import extract
from tlcache.inventory.entries import list_cache

__all__ = ["awkward"]


class RayError(Exception):
    """As that of Ray: a worker or a node died."""


class RayTaskError(RayError):
    """As that of Ray: a task raised `cause`."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause


class FakeRay(ModuleType):
    """A cluster in this process: tasks run when their answer is asked for, and die as often as `deaths` says.

    They run in a folder of their own, as those of a cluster that was started elsewhere.
    """

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self, folder: Path) -> None:
        super().__init__("ray")
        self.folder = folder
        self.deaths = Counter[str]()
        self.began = Counter[str]()

    def init(self, **_: object) -> None: ...

    def shutdown(self) -> None: ...

    def put(self, value: object) -> Callable[[], object]:
        return lambda: value

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def remote(self, **_: object) -> Callable[[Callable[..., Any]], Any]:
        return lambda act: SimpleNamespace(remote=lambda *given: partial(self._run, act, *given))

    def wait(self, refs: Sequence[Any], timeout: float) -> tuple[Sequence[Any], Sequence[Any]]:
        assert timeout
        return refs[:1], refs[1:]

    def get(self, ref: Callable[[], object]) -> object:
        return ref()

    def _run(self, act: Callable[..., Any], boxed: object, ledgers: Sequence[Path], paths: object) -> object:
        shard = ledgers[0].parent.name
        self.began[shard] += 1
        try:
            with chdir(self.folder):
                told = act(boxed, ledgers, paths)
        except Exception as error:  # as Ray does
            raise RayTaskError(error) from None
        if self.deaths[shard] >= self.began[shard]:
            ledgers[0].unlink()
            raise RayError("the worker died")
        return told


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> FakeRay:
    fake = FakeRay(tmp_path_factory.mktemp("elsewhere"))
    monkeypatch.setitem(sys.modules, "ray", fake)
    return fake


def test_a_cluster_makes_the_file_of_one_machine(awkward: Path, tiny_model: Path, tmp_path: Path, ray: FakeRay) -> None:
    whole = extract(awkward, tiny_model, max_bad=0.5, features=tmp_path / "whole")
    done = extract(awkward, tiny_model, max_bad=0.5, ray="auto")
    assert content(done.path) == content(whole.path)
    assert (done.rows, done.quarantined, done.warnings) == (whole.rows, whole.quarantined, whole.warnings)
    assert ray.began == Counter({f"shard-{number:06d}": 1 for number in range(4)})
    assert {each.suffix for each in done.path.parent.iterdir()} == {".h5", ".lock"}
    assert extract(awkward, tiny_model, max_bad=0.5, ray="auto").up_to_date


def test_shards_of_workers_that_died_are_done_again_and_no_image_is_embedded_twice(
    photos: Path, tiny_model: Path, tmp_path: Path, ray: FakeRay
) -> None:
    ray.deaths.update({"shard-000000": 2, "shard-000002": 1})
    done = extract(photos, tiny_model, ray="auto")
    assert ray.began == Counter({"shard-000000": 3, "shard-000001": 1, "shard-000002": 2})
    assert (done.rows, done.embedded) == (24, 8)  # what the dead had written was used
    assert content(done.path) == content(extract(photos, tiny_model, features=tmp_path / "whole").path)


@pytest.mark.parametrize(("died", "then"), [(2, 16), (16, 2), (1, 3)])
def test_a_shard_goes_from_a_node_to_one_with_other_cpus(
    photos: Path, tiny_model: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch, died: int, then: int
) -> None:
    monkeypatch.setattr(inflight, "available_cpus", lambda: then if ray.began["shard-000000"] > 1 else died)
    ray.deaths["shard-000000"] = 1
    done = extract(photos, tiny_model, ray="auto")
    assert (done.rows, done.quarantined, ray.began["shard-000000"]) == (24, 0, 2)


def test_what_a_slow_worker_decodes_is_not_cut_off_by_the_second(photos: Path) -> None:
    slow = task._in_flight(photos)
    slow.source = "photos"
    with slow.decoding(0, "red/3.png", None):
        assert [each.path for each in task._in_flight(photos).entries()] == ["red/3.png"]
    assert slow.source == "photos"


def test_a_shard_whose_workers_always_die_ends_the_run_and_keeps_the_others(
    photos: Path, tiny_model: Path, ray: FakeRay
) -> None:
    ray.deaths["shard-000001"] = 99
    with pytest.raises(CacheError, match="The worker of a shard died 10 times, the last time so: the worker died"):
        extract(photos, tiny_model, ray="auto")
    assert [(entry.state, entry.rows) for entry in list_cache()] == [("unfinished", 24)]
    ray.deaths.clear()
    assert extract(photos, tiny_model, ray="auto").embedded == 0


def test_what_images_hash_to_is_kept_once_and_of_all(
    photos: Path, tiny_model: Path, ray: FakeRay, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[int]()
    monkeypatch.setattr(
        Images, "remember", lambda _, paths, hashes: kept.append(len(set(zip(paths, hashes, strict=True))))
    )
    extract(photos, tiny_model, ray="auto")
    extract(photos, tiny_model, shard="1/2", features="other")
    extract(photos, tiny_model, features="third")
    assert (kept, sum(ray.began.values())) == ([24, 16, 24], 3)


def test_what_a_task_raises_is_raised_here(photos: Path, tiny_model: Path, ray: FakeRay) -> None:
    for number in range(3):
        (photos / "red" / f"{number}.png").write_bytes(f"no image {number}".encode())
    with pytest.raises(DataError, match="unusable"):
        extract(photos, tiny_model, ray="auto", max_bad=0.1)
    ray.get = lambda _: (_ for _ in ()).throw(RayTaskError(ModelError("no such layer")))  # type: ignore[method-assign]
    with pytest.raises(ModelError, match="no such layer"):
        extract(photos, tiny_model, ray="auto")


@pytest.mark.usefixtures("ray")
def test_a_node_that_does_not_see_the_images_ends_the_run_and_takes_none_for_unreadable(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as unmounted:
        unmounted.setattr(task, "reopen", lambda source: reopen(f"{source}/nowhere"))
        with pytest.raises(DataError, match="does not see the images in '.*photos'"):
            extract(photos, tiny_model, ray="auto", max_bad=0.9)
    assert extract(photos, tiny_model, ray="auto").rows == 24


@pytest.mark.usefixtures("ray")
def test_images_that_could_not_be_read_are_read_again_by_the_same_command(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(source: str) -> Images:
        def read(path: str) -> bytes:
            if path.endswith("3.png"):  # one of each shard
                raise OSError("stale file handle")
            return reopen(source).read(path)

        return Images(source, read, lambda: True)

    with monkeypatch.context() as mount:
        mount.setattr(task, "reopen", stale)
        with pytest.raises(DataError, match="3 of 24 images are unusable"):
            extract(photos, tiny_model, ray="auto", max_bad=0.1)
    done = extract(photos, tiny_model, ray="auto", max_bad=0.1)
    assert (done.rows, done.embedded, done.quarantined) == (24, 3, 0)


@pytest.mark.parametrize(
    ("have", "device", "slots"),
    [
        ({"CPU": 64.0, "GPU": 4.0}, "cuda", 4),
        ({"CPU": 64.0, "GPU": 4.0}, "cpu", 64),
        ({"CPU": 2.0, "GPU": 4.0}, "cuda", 2),
        ({}, "cuda", 1),
    ],
)
def test_as_many_tasks_run_at_once_as_the_scarcest_resource_allows(
    have: dict[str, float], device: str, slots: int
) -> None:
    assert onray._slots(have, device) == slots


@pytest.mark.usefixtures("ray")
def test_nodes_have_the_same_tlcache(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = onray.Setup
    monkeypatch.setattr(onray, "Setup", lambda version, *given: setup(f"{version}+other", *given))
    with pytest.raises(DeviceError, match="has tlcache .*other deals out the work. Install the same"):
        extract(photos, tiny_model, ray="auto")


def test_a_cluster_that_is_not_there_is_said(photos: Path, tiny_model: Path, ray: FakeRay) -> None:
    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens")

    ray.init = refuse  # type: ignore[method-assign]
    with pytest.raises(DeviceError, match="No Ray cluster at 'auto' .nobody listens"):
        extract(photos, tiny_model, ray="auto")


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:{port}", "Connection refused"),
        ("ray://127.0.0.1:{port}", "Connection refused"),
        ("127.0.0.1:six", "invalid literal .* 'six'"),
    ],
)
def test_ray_is_not_asked_for_an_address_where_nobody_listens(ray: FakeRay, address: str, why: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with onray._connected(ray, f"127.0.0.1:{port}"):
            pass
    with (
        pytest.raises(DeviceError, match=f"No Ray cluster at .*{why}"),
        onray._connected(ray, address.format(port=port)),
    ):
        pytest.fail("connected")


def test_a_cluster_deals_out_shards_itself(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tlcache.extraction.extract.run_apart", None)  # it is said before any process begins
    with pytest.raises(OptionError, match="--ray deals out all shards itself"):
        extract(photos, tiny_model, ray="local", shard="1/2")


def told(took_s: float) -> onray.Told:
    return onray.Told("host", 1, (1,), ((0.0,) * 4,), 0, "", took_s)


@pytest.mark.parametrize(
    ("waiting", "idle", "age_s", "again"),
    [([], 1, 100, [3]), ([], 2, 100, [3]), ([], 0, 100, []), ([4], 1, 100, []), ([], 1, 12, [])],
)
def test_a_shard_that_takes_far_longer_than_others_is_done_once_more(
    monkeypatch: pytest.MonkeyPatch, waiting: list[int], idle: int, age_s: float, again: list[int]
) -> None:
    monkeypatch.setattr(onray.time, "monotonic", lambda: 1000.0)
    deal = onray._Deal(deque(waiting), {"late": (3, 1000.0 - age_s), "young": (5, 999.0)}, {0: told(1), 1: told(2)})
    assert deal.slow(idle) == again
    deal.twice.update(again)
    assert deal.slow(idle) == []


@pytest.mark.worker
@pytest.mark.slow
@pytest.mark.usefixtures("sabotaged")
def test_a_real_cluster_survives_an_image_that_kills_its_decoder(photos: Path, tiny_model: Path) -> None:
    pytest.importorskip("ray")
    doom(photos / "red" / "3.png", "crash")
    done = extract(photos, tiny_model, ray="local")
    assert (done.rows, done.embedded, done.quarantined) == (23, 23, 1)


@pytest.mark.slow
def test_two_nodes_make_the_file_of_one_machine_whatever_is_killed() -> None:
    pytest.importorskip("ray")
    with two_nodes() as (bench, nodes):
        assert bench.run(nodes, None) == 1
        assert len(bench.counts()) == 2
        for what in KILLS:
            assert 1 <= attempt(bench, nodes, what, random.Random(what)) <= 1.15, what
