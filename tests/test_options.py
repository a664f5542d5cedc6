"""Options: what is recorded of them does not change with their names."""

from dataclasses import asdict

from tlcache.finetuning.recipe import Recipe, arguments_of, settings_of
from tlcache.keys import hash_json
from tlcache.probing.search import SearchProtocol


def test_equal_settings_have_the_identities_of_the_first_version() -> None:
    """Hashes made by the first version, when these were called class_weights and budget, in minutes."""
    assert hash_json(Recipe().as_json()).startswith("8ab29e6bebe93cd0")  # names the folder of checkpoints
    assert hash_json(arguments_of(Recipe())).startswith("24e7c95303501e9a")
    swept = arguments_of(
        Recipe(class_weight="balanced", lr=0.01), {"class_weight": [None, "balanced"], "lr": [0.1, 0.2]}, 1800.0
    )
    assert swept["class_weights"] is True
    assert swept["sweep"] == {"class_weights": [False, True], "lr": [0.1, 0.2]}
    assert hash_json(swept).startswith("c310929f7e506778")
    assert hash_json(asdict(SearchProtocol())).startswith("01ef5b9f2aa28ff1")
    other = SearchProtocol("full", 5, "macro_f1", True, "balanced", 3, 7, 90.0)
    assert hash_json(asdict(other)).startswith("c5954453e80aa540")


def test_what_is_recorded_is_read_by_the_names_of_today() -> None:
    recipe, sweep = Recipe(class_weight="balanced", lr=0.01), {"class_weight": [None, "balanced"], "lr": [0.1]}
    assert settings_of(arguments_of(recipe, sweep, 90.0)) == {**asdict(recipe), "sweep": sweep, "budget_s": 90.0}
