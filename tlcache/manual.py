"""The manual on a terminal: its pages, the words of its glossary, and what the reference says of a command."""

from __future__ import annotations

import re
from pathlib import Path

from tlcache.errors import UnknownNameError, closest

__all__ = ["find_topic", "list_topics"]

_HERE = Path(__file__).parent
_PAGES = next((folder for folder in (_HERE / "docs", _HERE.parent / "docs") if folder.is_dir()), _HERE / "docs")


def list_topics() -> dict[str, str]:
    """Return the pages of the manual by name, with the title of each."""
    return {path.stem: path.read_text("utf-8").partition("\n")[0].lstrip("# ") for path in sorted(_PAGES.glob("*.md"))}


def find_topic(topic: str) -> str:
    """Return what the manual says of a topic, as Markdown.

    Parameters
    ----------
    topic
        A page's name (`audit`), a command (`fit-heads`), or a word of the glossary (`near-duplicate`).

    Raises
    ------
    UnknownNameError
        There is no such page, command or word.

    >>> print(find_topic("backbone"))
    **backbone**: the pretrained network without its last layer
    """
    name = topic.strip().lower().removesuffix(".md")
    pages = {path.stem: path for path in _PAGES.glob("*.md")}
    if name in pages:
        return pages[name].read_text("utf-8")
    words, commands = _words(), _commands()
    said = (words | commands).get(name)
    if said is None:
        raise UnknownNameError(closest("topic", topic, sorted({*pages, *commands})))
    return said


def _commands() -> dict[str, str]:
    """Return the sections of the reference by command."""
    sections = re.split(r"^## tlcache ", (_PAGES / "reference.md").read_text("utf-8"), flags=re.MULTILINE)[1:]
    return {name: f"# tlcache {name}\n{text}" for name, _, text in (each.partition("\n") for each in sections)}


def _words() -> dict[str, str]:
    """Return what the glossary says, by every word of it."""
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", (_PAGES / "glossary.md").read_text("utf-8"), flags=re.MULTILINE)
    said = {}
    for words, meaning in rows[1:]:
        for word in (*words.split(", "), *re.findall(r"\*([^*]+)\*", meaning)):
            said[word.lower()] = f"**{words}**: {meaning}"
    return said
