"""Runs that are as good as another up to a margin, and runs over several datasets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fakes import make_run, right_but
from scipy import stats
from test_cli import invoke

from tlcache.evaluation.across import across, friedman, ranks, wilcoxon
from tlcache.evaluation.compare import compare
from tlcache.evaluation.margins import margins
from tlcache.evaluation.significance import Difference, compare_paired
from tlcache.evaluation.verdict import verdict

N = 400


@pytest.fixture
def three() -> None:
    """The picked one; one that is wrong about the same and one more; one that is much worse."""
    make_run(head="svm", right=right_but(20), held_out=0.95)
    make_run(head="ridge", right=right_but(21), held_out=0.94)
    make_run(head="knn", right=right_but(80), held_out=0.80)


@pytest.mark.usefixtures("three")
@pytest.mark.parametrize(
    ("margin", "said"),
    [
        (0.1, {"ridge": "not shown", "knn": "not shown"}),
        (3.0, {"ridge": "equivalent", "knn": "not shown"}),
        (30.0, {"ridge": "equivalent", "knn": "equivalent"}),
    ],
)
def test_a_margin_is_what_intervals_lie_within(margin: float, said: dict[str, str]) -> None:
    (found,) = compare(margin=margin)
    assert {each.name.partition(" ")[0]: each.words for each in found.margins} == said
    for each, entry in zip(found.margins, found.entries[1:], strict=True):
        assert each.found == found.pair(entry, found.picked[0]).found


def test_alone_it_is_the_interval_and_among_several_p_is_corrected() -> None:
    """The p of the other side of a 95 % interval is 0.025 at its end; of two, Holm doubles the smaller one."""
    random = np.random.default_rng(0)
    first = compare_paired(random.random(N) < 0.9, random.random(N) < 0.9)
    second = compare_paired(random.random(N) < 0.88, random.random(N) < 0.9)
    entry = ("svm", "svm.json")
    (each,) = margins([entry], [first], -first.low)
    assert each.p_worse == pytest.approx(0.025)
    (each,) = margins([entry], [first], first.high)
    assert each.p_better == pytest.approx(0.025)
    both = margins([entry, entry], [first, second], 0.08)
    alone = [margins([entry], [found], 0.08)[0].p_worse for found in (first, second)]
    assert min(each.p_worse for each in both) == pytest.approx(2 * min(alone))


def test_of_a_loss_the_smaller_one_is_not_worse() -> None:
    sure = np.where(np.arange(2) == (np.arange(N) % 2)[:, None], 0.9, 0.1).astype(np.float32)
    unsure = np.where(np.arange(2) == (np.arange(N) % 2)[:, None], 0.6, 0.4).astype(np.float32)
    make_run(head="svm", right=right_but(0), probabilities=sure)
    make_run(head="ridge", right=right_but(0), probabilities=unsure)
    (found,) = compare(by="log_loss", margin=1)
    (each,) = found.margins
    assert (each.name, each.words) == ("ridge on tinynet", "not shown")
    assert each.found.difference == pytest.approx(np.log(0.6) - np.log(0.9))


def test_a_run_that_never_differs_is_equivalent_whatever_the_margin() -> None:
    (each,) = margins([("svm", "svm.json")], [Difference(0, 0, 0.0, 0.0, 0.0, 1.0)], 0.001)
    assert each.equivalent


@pytest.mark.usefixtures("three")
def test_the_margin_is_in_the_sentence_the_table_the_json_and_the_page(tmp_path: Path) -> None:
    told = " ".join(invoke("compare", "--margin", "3", "--json", "found.json").split())
    said = (
        "Against svm on tinynet, up to a margin of 3 points, equivalent: ridge on tinynet; neither is shown: knn on "
        "tinynet."
    )
    assert said in told
    assert "Against svm on tinynet, margin 3 points" in told
    (found,) = json.loads(Path("found.json").read_text())["datasets"]
    assert found["margin"] == 3
    assert [each["equivalent"] for each in found["margins"]] == [True, False]
    invoke("report", "--margin", "3", "--out", str(tmp_path / "page.html"))
    assert said in (tmp_path / "page.html").read_text()
    (plain,) = compare()
    assert "margin" not in verdict(plain)
    assert "margins" not in plain.as_json()


@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (12, 6), (8, 2)])
def test_friedmans_test_is_that_of_scipy_and_of_two_a_sign_test(rows: int, columns: int) -> None:
    values = np.random.default_rng(0).normal(size=(rows, columns)).round(1)
    placed = ranks(values)
    assert placed.tolist() == stats.rankdata(values, axis=1).tolist()
    if columns > 2:
        assert friedman(placed) == pytest.approx(stats.friedmanchisquare(*values.T).pvalue, abs=1e-12)
    else:
        won, lost = (int((placed[:, 0] == rank).sum()) for rank in (1, 2))
        assert friedman(placed) == pytest.approx(stats.chi2.sf((won - lost) ** 2 / (won + lost), 1), abs=1e-12)
    assert friedman(np.full((4, 3), 2.0)) == 1


@pytest.mark.parametrize("n", [3, 6, 20, 40])
def test_wilcoxons_test_is_that_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).normal(0.3, 1, n)
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values, method="exact").pvalue, abs=1e-12)


def test_wilcoxons_test_of_equal_differences_counts_all_signs() -> None:
    values = np.array([-3, -2, 9, -4, -3, -13, 10, 11, -2, 0]) / 10
    every = stats.PermutationMethod(n_resamples=np.inf)
    assert wilcoxon(values) == pytest.approx(stats.wilcoxon(values[:-1], method=every).pvalue, abs=1e-12)
    assert wilcoxon(np.zeros(4)) == 1


def test_runs_over_datasets_are_ranked_and_held_against_the_first() -> None:
    for number in range(6):
        for head, wrong in (("svm", 10 + number), ("ridge", 20 + 2 * number), ("knn", 40 - number)):
            make_run(head=head, right=right_but(wrong), dataset=f"set{number}", digest=f"d{number}")
    make_run(head="logreg", right=right_but(1), dataset="set0", digest="d0")  # is not on all of them
    comparisons = compare()
    found = across(comparisons)
    assert found is not None
    assert found.names == tuple(f"{head} on tinynet" for head in ("svm", "ridge", "knn"))
    assert found.mean_ranks == (1, 2, 3)
    assert found.mean_values[0] == pytest.approx(1 - 12.5 / N)
    assert found.p == pytest.approx(stats.chi2.sf(12, 2))
    assert found.p_first == (0.0625, 0.0625)  # 2 of 2^6 signs, for two runs
    assert across(comparisons[:1]) is None
    told = " ".join(invoke("compare", "--json", "found.json").split())
    assert "Over 6 datasets: set0, set1, set2" in told
    assert "With 6 datasets and 3 runs none of them can be below 0.05." in told
    assert json.loads(Path("found.json").read_text())["over_datasets"]["mean_ranks"] == [1, 2, 3]
