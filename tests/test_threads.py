"""How many threads compute, and how they wait."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from tlcache import threads
from tlcache.heads.base import Head
from tlcache.heads.knn import Knn
from tlcache.heads.lightgbm import LightGbm


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, [2]),
        ("0::/\n", {"cpu.max": "max 100000"}, []),
        (
            "0::/a.slice/b.scope\n",
            {"a.slice/cpu.max": "200000 100000", "a.slice/b.scope/cpu.max": "50000 10000"},
            [5, 2],
        ),
        ("0::/of/the/host\n", {"cpu.max": "300000 100000"}, [3]),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n0::/\n",
            {"cpu/x/cpu.cfs_quota_us": "400000\n", "cpu/x/cpu.cfs_period_us": "100000\n", "memory/x/cpu.max": "1 1"},
            [4],
        ),
        ("2:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, []),
        ("1:cpuset:/\n", {"cpu.max": "100000 100000"}, []),
        (None, {}, []),
    ],
    ids=["whole", "no limit", "nested", "container", "version 1", "version 1, no limit", "another kind", "no groups"],
)
def test_quotas_of_all_groups_around_count(
    tmp_path: Path, groups: str | None, files: dict[str, str], expected: list[int]
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    if groups is not None:
        (tmp_path / "groups").write_text(groups)
    assert list(threads._quotas(str(tmp_path / "groups"), str(tmp_path))) == expected


@pytest.mark.parametrize(("seen", "quotas", "expected"), [(8, [], 8), (8, [3, 12], 3), (2, [4], 2), (4, [0], 1)])
def test_no_more_cpus_than_affinity_and_quota_allow(
    monkeypatch: pytest.MonkeyPatch, seen: int, quotas: list[int], expected: int
) -> None:
    monkeypatch.setattr(threads, "_seen_cpus", lambda: seen)
    monkeypatch.setattr(threads, "_quotas", lambda: iter(quotas))
    assert threads.available_cpus() == expected


@pytest.mark.parametrize(
    ("mine", "whole", "load", "own", "expected"),
    [
        *((8, 8, load, 0.0, free) for load, free in ((0.2, 8), (3.0, 5), (9.0, 1))),
        (4, 64, 16.0, 0.0, 3),
        (8, 8, 7.0, 6.0, 7),
        (2, 2, 0.0, 2.0, 2),
    ],
)
def test_a_team_leaves_to_others_the_cpus_that_these_use(
    monkeypatch: pytest.MonkeyPatch, mine: int, whole: int, load: float, own: float, expected: int
) -> None:
    monkeypatch.setattr(threads, "available_cpus", lambda: mine)
    monkeypatch.setattr(os, "cpu_count", lambda: whole)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(threads.time, "monotonic", lambda: threads._BEGAN + 100)
    monkeypatch.setattr(threads.time, "process_time", lambda: 100 * own)
    assert threads.team_for(threads.SMALL + 1) == expected
    assert threads.team_for(threads.SMALL) == 1


def test_threads_that_wait_sleep_in_this_process_and_its_children_unless_the_user_says_otherwise() -> None:
    code = (
        "import os, tlcache, subprocess, sys\n"
        "asked = 'import os; print([os.environ.get(name) for name in sys.argv[1:]])'\n"
        "subprocess.run([sys.executable, '-c', 'import sys;' + asked, *sys.argv[1:]], check=True)"
    )
    names = ["OMP_WAIT_POLICY", "OPENBLAS_THREAD_TIMEOUT", "KMP_BLOCKTIME"]
    env = {name: value for name, value in os.environ.items() if name not in names} | {"KMP_BLOCKTIME": "200"}
    done = subprocess.run([sys.executable, "-c", code, *names], env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "['passive', '4', '200']\n"


def test_a_quota_is_told_to_libraries_that_see_more_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_seen_cpus", lambda: 8)
    for quotas, told in (([3], "3"), ([], None)):
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.setattr(threads, "_quotas", lambda quotas=quotas: iter(quotas))
        threads.set_waiting()
        assert os.environ.get("OMP_NUM_THREADS") == told


def test_boosted_trees_are_the_same_with_any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    X, y = random.standard_normal((600, 32), np.float32), random.integers(0, 3, 600)
    answers = []
    for count in (1, 3):
        monkeypatch.setattr("tlcache.heads.lightgbm.team_for", lambda _, count=count: count)
        answers.append(LightGbm(components=16, rounds=12).fit(X, y).logits(X))
    assert answers[0].tobytes() == answers[1].tobytes()


@pytest.mark.parametrize(("rows", "threads_inside"), [(12, 1), (200, None)], ids=["small", "large"])
def test_products_of_small_problems_take_one_thread(
    monkeypatch: pytest.MonkeyPatch, rows: int, threads_inside: int | None
) -> None:
    def blas() -> set[int]:
        return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}

    class Seen(Knn):
        def _fit(self, *_: object) -> None:
            self.seen = blas()

        _fit_heads = Head._fit_heads

    monkeypatch.setattr(threads, "SMALL", 100)
    before = blas()
    X, y = np.arange(4.0 * rows).reshape(-1, 4), np.arange(rows) % 2
    assert Seen().fit(X, y).seen == ({threads_inside} if threads_inside else before)
    assert blas() == before
