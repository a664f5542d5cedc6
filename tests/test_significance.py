"""The statistics, against other implementations and against the truth in simulations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from tlcache.evaluation.distributions import fair_coin_below, t_below, t_quantile
from tlcache.evaluation.significance import (
    accuracy_interval,
    clustered_interval,
    compare_paired,
    correct_for_many,
    unit_numbers,
)

Right = NDArray[np.bool_]
TOLERANCE = 0.015


def answers(won: int, lost: int, both: int, neither: int) -> tuple[Right, Right]:
    """Return two runs' right answers with so many images of each kind."""
    first = np.repeat([True, False, True, False], [won, lost, both, neither])
    second = np.repeat([False, True, True, False], [won, lost, both, neither])
    return first, second


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (1, 0), (3, 9), (12, 12), (68, 16), (400, 310)])
def test_p_is_mcnemars_exact_test(won: int, lost: int) -> None:
    found = compare_paired(*answers(won, lost, 500, 30))
    expected = mcnemar([[500, won], [lost, 30]], exact=True).pvalue
    assert found.p == pytest.approx(min(1, expected), rel=1e-9)
    assert (found.won, found.lost) == (won, lost)


@pytest.mark.parametrize("freedom", [0.1, 1, 2.5, 17, 999.3, 1e5])
def test_students_t_is_scipys(freedom: float) -> None:
    for t in (-300, -8, -1.96, -1e-5, 0, 0.5, 60):
        assert t_below(freedom, t) == pytest.approx(stats.t.cdf(t, freedom), rel=1e-8)
    for share in (0.6, 0.975, 0.9999):
        assert t_quantile(freedom, share) == pytest.approx(stats.t.ppf(share, freedom), rel=1e-8)


def test_a_quantile_that_no_number_can_hold_is_infinite() -> None:
    assert t_quantile(1e-5, 0.975) == np.inf


@pytest.mark.parametrize(("heads", "throws"), [(0, 0), (0, 1), (1, 3), (3, 3), (480, 1000), (49_700, 100_000)])
def test_a_fair_coin_is_scipys(heads: int, throws: int) -> None:
    assert fair_coin_below(heads, throws) == pytest.approx(stats.binom.cdf(heads, throws, 0.5), rel=1e-7)


def test_p_values_are_corrected_as_by_statsmodels() -> None:
    p = np.random.default_rng(0).uniform(size=50) ** 4
    assert correct_for_many(list(p)) == pytest.approx(multipletests(p, method="holm")[1])


def test_the_interval_of_independent_images_is_wilsons() -> None:
    right = np.arange(250) < 231
    assert clustered_interval(right) == pytest.approx(proportion_confint(231, 250, method="wilson"))
    each_alone = clustered_interval(right, np.arange(250))
    assert each_alone == pytest.approx(accuracy_interval(231, 250), abs=2e-3)


def test_a_difference_agrees_with_the_bootstrap() -> None:
    first, second = answers(68, 16, 1100, 149)
    found = compare_paired(first, second)
    gains = first.astype(float) - second
    expected = stats.bootstrap((gains,), np.mean, method="percentile", rng=0, n_resamples=4000).confidence_interval
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1.5e-3)


def test_groups_agree_with_a_bootstrap_of_groups() -> None:
    right, other, units = next(clustered_runs(np.random.default_rng(5), groups=150, gap=0.0))
    sizes = np.bincount(units)

    def of_groups(sums: NDArray[np.float64]) -> tuple[float, float]:
        chosen = np.random.default_rng(0).integers(0, len(sizes), (4000, len(sizes)))
        low, high = np.quantile(sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1), [0.025, 0.975])
        return float(low), float(high)

    assert clustered_interval(right, units) == pytest.approx(of_groups(np.bincount(units, right)), abs=0.01)
    found = compare_paired(right, other, units)
    expected = of_groups(np.bincount(units, right.astype(float) - other))
    assert (found.low, found.high) == pytest.approx(expected, abs=0.01)


def test_the_same_predictions_do_not_differ() -> None:
    right = np.random.default_rng(0).uniform(size=1000) < 0.9
    for units in (None, np.arange(1000) // 7):
        found = compare_paired(right, right, units)
        assert (found.p, found.difference, found.won, found.lost) == (1, 0, 0, 0)
        assert found.low < 0 < found.high


def test_a_shifted_copy_differs_in_the_right_direction_by_the_right_amount() -> None:
    right = np.arange(1000) < 900
    worse = np.arange(1000) < 850
    found, back = compare_paired(right, worse), compare_paired(worse, right)
    assert found.difference == pytest.approx(0.05)
    assert 0.03 < found.low < 0.05 < found.high < 0.07
    assert found.p < 1e-10
    assert back.reversed() == found
    assert (back.difference, back.low, back.high, back.p) == pytest.approx((-0.05, -found.high, -found.low, found.p))


def test_flipping_signs_of_single_images_is_mcnemars_test() -> None:
    first, second = answers(9, 3, 80, 8)
    alone = compare_paired(first, second, np.arange(100))
    assert alone.p == pytest.approx(compare_paired(first, second).p)


def test_images_that_go_together_tell_less() -> None:
    first, second = answers(40, 10, 900, 50)
    units = np.arange(1000) // 10  # 4 groups won, 1 lost
    assert compare_paired(first, second).p < 1e-4
    assert compare_paired(first, second, units).p == pytest.approx(12 / 32)
    low, high = clustered_interval(first, units)
    alone = accuracy_interval(int(first.sum()), 1000)
    assert high - low > 2 * (alone[1] - alone[0])


def test_groups_without_any_variation_are_worth_one_image_each() -> None:
    low, high = clustered_interval(np.ones(200, bool), np.arange(200) // 10)
    assert high == 1
    assert low < accuracy_interval(20, 20)[0] + 0.01


def test_images_without_a_group_stand_alone() -> None:
    assert unit_numbers([b"", b""]) is None
    units = unit_numbers([b"a", b"", b"a", b"b", b""])
    assert units is not None
    assert sorted(np.bincount(units)) == [1, 1, 1, 2]
    assert units[0] == units[2]


def paired_runs(rng: np.random.Generator, n: int, gap: float) -> Iterator[tuple[Right, Right, None]]:
    """Yield two runs that find the same images hard; the first is more accurate by `gap`."""
    while True:
        hard = rng.standard_normal(n)
        first, second = (0.8 * hard + 0.6 * rng.standard_normal(n) for _ in range(2))
        bounds = stats.norm.ppf([0.9 + gap, 0.9])
        yield first < bounds[0], second < bounds[1], None


def clustered_runs(
    rng: np.random.Generator, groups: int, gap: float
) -> Iterator[tuple[Right, Right, NDArray[np.int64]]]:
    """Yield the same for images in groups of 2 to 19 that are right or wrong together."""
    while True:
        units = np.repeat(np.arange(groups), rng.integers(2, 20, groups))
        hard = 0.5 * rng.standard_normal(groups)[units] + 0.5**0.5 * rng.standard_normal(len(units))
        first, second = (hard + 0.5 * rng.standard_normal(groups)[units] for _ in range(2))
        bounds = stats.norm.ppf([0.9 + gap, 0.9])
        yield first < bounds[0], second < bounds[1], units


@pytest.mark.parametrize("runs", [lambda rng: paired_runs(rng, 300, 0.03), lambda rng: clustered_runs(rng, 150, 0.03)])
def test_intervals_hold_the_truth_as_often_as_they_say(
    runs: Callable[[np.random.Generator], Iterator[tuple[Right, Right, NDArray[np.int64] | None]]],
) -> None:
    times, source = 2500, runs(np.random.default_rng(7))
    accuracy = difference = rejected = 0
    for _, (first, second, units) in zip(range(times), source, strict=False):
        low, high = clustered_interval(second, units)
        accuracy += low <= 0.9 <= high
        found = compare_paired(first, second, units)
        difference += found.low <= 0.03 <= found.high
        rejected += found.p < 0.05
    assert accuracy / times == pytest.approx(0.95, abs=TOLERANCE)
    assert difference / times == pytest.approx(0.95, abs=TOLERANCE)
    assert rejected / times > 0.2  # and they are not simply wide


def test_equal_runs_are_seldom_called_different() -> None:
    for source in (paired_runs(np.random.default_rng(8), 300, 0.0), clustered_runs(np.random.default_rng(9), 60, 0.0)):
        p = [compare_paired(*next(source)).p for _ in range(1500)]
        assert np.mean(np.array(p) < 0.05) < 0.05 + TOLERANCE
