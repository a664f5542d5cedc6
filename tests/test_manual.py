"""The manual on a terminal."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from tlcache.cli import app
from tlcache.errors import UnknownNameError
from tlcache.manual import find_topic, list_topics


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["help", *arguments], env={"COLUMNS": "100"})
    assert result.exit_code == 0, result.output
    return result.stdout


def test_pages_are_listed_with_their_titles() -> None:
    assert {"Page", "audit", "glossary", "tutorial"} <= set(shown().split())
    assert list_topics()["glossary"] == "Glossary"


def test_a_page_is_shown_without_its_markup() -> None:
    page = shown("cache")
    assert "tlcache verify" in page
    assert "```" not in page


@pytest.mark.parametrize(
    ("topic", "said"),
    [
        ("fit-heads", "# tlcache fit-heads"),  # a command that has no page
        ("ls", "# tlcache ls"),
        ("near-duplicate", "**duplicate**: two images of equal bytes"),  # a word within an entry
        ("Features", "**embedding, features**: the numbers"),  # the second word of one
        ("audit.md", "#"),
    ],
)
def test_a_topic_is_a_page_a_command_or_a_word(topic: str, said: str) -> None:
    assert find_topic(topic).startswith(said)


def test_every_command_is_a_topic() -> None:
    for each in app.registered_commands:
        name = each.name or each.callback.__name__.replace("_", "-")  # type: ignore[union-attr]
        assert find_topic(name)


def test_an_unknown_topic_is_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'fit-heads'"):
        find_topic("fit-head")


def test_the_text_is_also_json() -> None:
    assert json.loads(shown("leak", "--json", "-"))["text"].startswith("**leak**: a test image that has")
