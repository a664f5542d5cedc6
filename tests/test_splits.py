from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcache.datasets.splits import check_splits, draw_splits, find_leaks
from tlcache.errors import DataError

IMAGES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(0, 200)), min_size=1, max_size=120)


def columns(images: list[tuple[int, int, int]]) -> tuple[np.ndarray, list[str], list[str]]:
    labels = np.array([label for label, _, _ in images])
    groups = [f"g{group}" if group else "" for _, group, _ in images]
    return labels, groups, [f"{content:064x}" for _, _, content in images]


@given(IMAGES, st.integers(0, 5))
def test_groups_and_equal_bytes_are_never_torn_apart(images: list[tuple[int, int, int]], seed: int) -> None:
    labels, groups, sha256 = columns(images)
    splits = draw_splits(labels, ["train"] * len(images), groups, sha256, seed)
    for names in (groups, sha256):
        seen = defaultdict(set)
        for name, split in zip(names, splits, strict=True):
            seen[name].add(split)
        assert all(len(found) == 1 for name, found in seen.items() if name)


@given(IMAGES, st.randoms())
def test_order_does_not_matter(images: list[tuple[int, int, int]], random: object) -> None:
    shuffled = list(images)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def drawn(rows: list[tuple[int, int, int]]) -> Counter:
        labels, groups, sha256 = columns(rows)
        return Counter(zip(rows, draw_splits(labels, ["train"] * len(rows), groups, sha256, 0), strict=True))

    unique = list({content: (label, group, content) for label, group, content in images}.values())
    kept = [row for row in shuffled if row in set(unique)]
    assert drawn(unique) == drawn(list(dict.fromkeys(kept)))


def test_a_fifth_of_every_class_for_val_and_for_test() -> None:
    labels = np.repeat([0, 1, 2], [100, 50, 5])
    sha256 = [f"{number:064x}" for number in range(155)]
    splits = draw_splits(labels, ["train"] * 155, [""] * 155, sha256, 0)
    counts = Counter(zip(labels.tolist(), splits, strict=True))
    assert [counts[label, "test"] for label in range(3)] == [20, 10, 1]
    assert [counts[label, "val"] for label in range(3)] == [20, 10, 1]
    other = draw_splits(labels, ["train"] * 155, [""] * 155, sha256, 1)
    assert other != splits


def test_only_what_is_missing_is_drawn_and_only_from_train() -> None:
    labels = np.zeros(30, int)
    given_splits = ["train"] * 20 + ["test"] * 10
    splits = draw_splits(labels, given_splits, [""] * 30, [f"{number:064x}" for number in range(30)], 0)
    assert splits[20:] == ("test",) * 10
    assert Counter(splits[:20]) == {"train": 16, "val": 4}
    complete = ["train", "val", "test"] * 10
    assert draw_splits(labels, complete, [""] * 30, ["0" * 64] * 30, 0) == complete


def test_a_dataset_that_grows_keeps_nearly_all_of_its_split() -> None:
    sha256 = [f"{number * 7919:064x}" for number in range(1000)]

    def drawn(n: int) -> Sequence[str]:
        return draw_splits(np.zeros(n, int), ["train"] * n, [""] * n, sha256[:n], 0)

    before, after = drawn(950), drawn(1000)
    assert sum(a != b for a, b in zip(before, after, strict=False)) < 0.03 * 950


def test_classes_that_are_too_small_are_named_before_anything_is_done() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2])
    with pytest.raises(DataError, match="needs 3 images in every class; too few in: dog, owl"):
        check_splits(labels, ["train"] * 6, ["cat", "dog", "owl"])
    check_splits(labels, ["train", "val", "test"] * 2, ["cat", "dog", "owl"])
    with pytest.raises(DataError, match="Drawing val from train needs 2 images"):
        check_splits(labels, ["train"] * 4 + ["test"] * 2, ["cat", "dog", "owl"])


def test_leaks_and_conflicts() -> None:
    splits = ["train", "test", "train", "train"]
    across, conflicts = find_leaks(["a", "b", "c", "d"], np.array([0, 0, 1, 0]), splits, "xxxy")
    assert across == [("a", "b")]
    assert conflicts == [("a", "c")]
