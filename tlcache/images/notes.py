"""What a user should know of an image that can be used: words for counting, one per kind, and their sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from tlcache.keys import some

__all__ = [
    "BELOW_ZERO",
    "DIVIDED",
    "FEW_LEVELS",
    "NOT_OPAQUE",
    "ONE_COLOUR",
    "TRANSPARENT",
    "WINDOWED",
    "Noted",
    "sentences",
]

ONE_COLOUR, FEW_LEVELS, BELOW_ZERO = "one colour", "few levels", "below zero"
TRANSPARENT, NOT_OPAQUE, WINDOWED = "transparent", "not opaque", "windowed"
DIVIDED = "divided by "  # with the number

Noted = Mapping[str, Sequence[str]]  # a word -> the images of which it is true

_SAYS = {  # what the images are, and what to do
    ONE_COLOUR: ("of a single colour, as far as the network sees them", ""),
    TRANSPARENT: (
        "that are wholly transparent, which is white here",
        " If what they show is in their colours, save them without alpha.",
    ),
    NOT_OPAQUE: (
        "that are nowhere opaque and were composed on white",
        " If the last channel is no opacity (near infrared, a mask), save them without it.",
    ),
    FEW_LEVELS: (
        "of more than 8 bits of which fewer than 16 grey levels are left",
        " --window LOW,HIGH says which values are black and white.",
    ),
    BELOW_ZERO: (
        "with values below zero, the smallest signed range of 8 to 16 bits that holds them having become 0 to 255",
        " --window LOW,HIGH says which values are black and white (soft tissue in CT: -160,240).",
    ),
}


def sentences(noted: Noted, windowed: bool) -> Iterator[str]:
    """Yield what there is to say of images that were decoded; `windowed`: whether that was with a window."""
    for word, (what, do) in _SAYS.items():
        if found := noted.get(word):
            yield f"Images {what}: {len(found):,} ({some(found)}).{do}"
    divisors = {
        word.removeprefix(DIVIDED): len(found) for word, found in noted.items() if word.startswith(DIVIDED) and found
    }
    if len(divisors) > 1:
        by = " and ".join(f"{divisor} ({count:,})" for divisor, count in sorted(divisors.items(), key=_number))
        yield (
            f"Images of more than 8 bits were divided by {by}, the largest value of the bits that each uses, so that "
            "equal values differ between them. --window LOW,HIGH treats all alike."
        )
    if windowed and not noted.get(WINDOWED):
        yield "--window changed nothing: none of the images is grey with more than 8 bits."


def _number(divisor: tuple[str, int]) -> tuple[int, str]:
    return len(divisor[0]), divisor[0]
