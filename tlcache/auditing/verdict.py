"""What a leak means for accuracies, in plain sentences: what it was measured to be worth, or at most."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

from tlcache.auditing.findings import Audit
from tlcache.auditing.labels import NeighbourGap
from tlcache.auditing.leak import Leak
from tlcache.auditing.leakage import LeakageGap
from tlcache.text import counted

__all__ = ["alarm", "told", "torn_by_folds", "verdict"]

_BETTER = (
    "Figures on this split are better for that than on new images. "
    "To measure them on a split that tears no group apart:"
)
_LITTLE = 0.10  # share of test images; below it the split leaks a little


def verdict(
    leak: Leak,
    gap: NeighbourGap | None,
    command: str,
    judged: bool = True,
    measured: Sequence[LeakageGap] = (),
    *,
    guessed: bool = False,
    accuracies: bool = True,
) -> str:
    """Return what the leak means for accuracies on this split, and what to do.

    Parameters
    ----------
    command
        Fits heads by groups.
    judged
        Whether near-duplicates could be told from others; if not, only equal embeddings were looked for.
    measured
        Leakage gaps under this split.
    guessed
        Whether there were no altered copies to compare with.
    accuracies
        Whether it is accuracies that a leak is told to be worth.
    """
    if not leak.test:
        return "There is no test split, so nothing can leak into it."
    if not leak.found:
        return " ".join(filter(None, (_groups_whole(leak), _clean(leak, judged, guessed), _suspicion(gap))))
    bound = _at_most(leak) if accuracies else _BETTER
    worth = _measured(measured) if measured else f"{bound} {command}"
    return f"{_counts(leak)} {worth}"


def told(audit: Audit, gaps: Sequence[LeakageGap]) -> str:
    """Return the verdict of an audit, with what was measured since then in place of a bound."""
    measured = [each for each in gaps if each.digest == audit.dataset_digest]
    return f"{_counts(audit.leak)} {_measured(measured)}" if audit.leaks and measured else audit.verdict


def alarm(audit: Audit, gaps: Sequence[LeakageGap]) -> tuple[str, bool]:
    """Return that the split leaks, and whether that is a warning; empty where it does not.

    It is none where both splits were measured and the difference is not shown.
    """
    if not audit.leaks:
        return "", False
    measured = [each for each in gaps if each.digest == audit.dataset_digest]
    matters = not measured or bool(_shown(measured))
    little = " a little" if not measured and audit.leak.leaking < _LITTLE * audit.leak.test else ""
    return f"{f'The split leaks{little}. ' if matters else ''}{told(audit, gaps)}", matters


def torn_by_folds(audit: Audit, gaps: Sequence[LeakageGap], digest: str) -> tuple[str, bool]:
    """Return that folds tear apart what an audit grouped, and whether that is a warning; empty where they do not.

    Folds keep groups of the dataset's own and byte-identical images whole; `digest` is that of runs on these folds.
    """
    if audit.group_by == "column" or not (audit.near_count or audit.alike or audit.group_by == "regex"):
        return "", False
    found = f"{counted(audit.groups, 'group')} of {audit.images:,} images, the largest of {audit.largest:,}"
    torn = f"These folds tear apart what belongs together: an audit found {found}."
    if measured := [each for each in gaps if each.digest == digest]:
        return f"{torn} {_measured(measured)}", bool(_shown(measured))
    return f"{torn} To keep them whole: tlcache fit-heads --cv ... --split group", True


def _groups_whole(leak: Leak) -> str:
    """Return that known groups are whole; nothing where none are known."""
    if not leak.known:
        return ""
    share = "" if leak.known == 1 else f"; of {_percent(round(leak.known * leak.test), leak.test)} the group is known"
    return f"No test image is in a group with images in train or val{share}."


def _clean(leak: Leak, judged: bool, guessed: bool) -> str:
    if not judged:
        other = "" if leak.known == 1 else ", or say what belongs together with --group-regex"
        return (
            "Nothing can be said of near-duplicates: to this network some altered copies of an image are no closer "
            "to it than other images are. No test image is the same as one in train or val. Try another "
            f"backbone{other}."
        )
    if guessed:
        return (
            "No test image seems to have a near-duplicate in train or val, but that is a guess, as there were no "
            "altered copies to compare with."
        )
    return "No test image has a near-duplicate in train or val."


def _suspicion(gap: NeighbourGap | None) -> str:
    return (
        f"Yet the nearest neighbour beats a linear head by {100 * gap.gap:.0f} points, as it does where "
        "images leak: where you know what belongs together (a patient, a video), say so with --group-regex."
        if gap and gap.suspicious
        else ""
    )


def _counts(leak: Leak) -> str:
    has, are = ("has" if leak.duplicated == 1 else "have"), ("is" if leak.grouped == 1 else "are")
    images = f"of {counted(leak.test, 'test image')}"
    if not leak.duplicated:
        share = _percent(leak.grouped, leak.test)
        return f"{leak.grouped:,} {images} ({share}) {are} in a group with images in train or val."
    share = _percent(leak.duplicated, leak.test)
    found = f"{leak.duplicated:,} {images} ({share}) {has} a duplicate or near-duplicate in train or val"
    if leak.grouped > (0 if leak.known else leak.duplicated):
        found += f", and {leak.grouped:,} ({_percent(leak.grouped, leak.test)}) {are} in a group with images there"
    return f"{found}."


def _at_most(leak: Leak) -> str:
    """Say what the leak can be worth: all of these images that are right might be wrong without it, and no others."""
    leaking = leak.leaking
    right = leaking if leak.right is None else leak.right
    why = "" if leak.right is None else f" (a linear head is right on {right:,} of these {leaking:,})"
    points = f"{100 * right / leak.test:.{0 if right >= 0.1 * leak.test else 1}f}"
    return (
        f"That makes accuracy on this split at most about {points} points too high{why}. "
        "To measure it on a split that tears no group apart:"
    )


def _measured(gaps: Sequence[LeakageGap]) -> str:
    """Say what both splits gave, and whether the leak is shown to matter."""
    middles = sorted(each.difference[0] for each in gaps)
    low, high = min(each.difference[1] for each in gaps), max(each.difference[2] for each in gaps)
    who = f"{gaps[0].head} on {gaps[0].backbone}" if len(gaps) == 1 else f"{len(gaps)} heads"
    span = " to ".join(dict.fromkeys(f"{100 * each:+.1f}" for each in (middles[0], middles[-1])))
    scores = f"Measured with {who}, the given split scores {span} points against one that tears no group apart"
    shown = _shown(gaps)
    if not shown:
        return f"{scores} (95 % intervals from {100 * low:+.1f} to {100 * high:+.1f}): the leak is not shown to matter."
    some = "" if len(gaps) == 1 else f" for {len(shown)} of them"
    return f"{scores}: the leak is shown to matter{some}. Quote the accuracy under the group split."


def _shown(gaps: Sequence[LeakageGap]) -> list[LeakageGap]:
    """Return the gaps that are above 0, with intervals widened for as many comparisons (Bonferroni)."""
    normal = NormalDist()
    wider = normal.inv_cdf(1 - 0.025 / len(gaps)) / normal.inv_cdf(0.975)
    return [each for each in gaps if each.difference[0] > wider * (each.difference[0] - each.difference[1])]


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.1f} %" if count < 0.1 * total else f"{100 * count / total:.0f} %"
