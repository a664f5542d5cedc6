"""The public names: what the command line can do, Python can."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

import tlcache
from tlcache.cli import app

COMMANDS = {command.name or command.callback.__name__.replace("_", "-"): command for command in app.registered_commands}
NAMES: dict[str, list[str]] = {
    "help": [],  # Python has its own
    "layers": ["list_layers"],
    "extract": ["extract_layers"],
    "models": ["list_models"],
    "heads": ["list_heads"],
    "datasets": ["list_datasets"],
    "fit-heads": ["fit_heads", "fit_curves", "fit_columns"],
    "compare": ["compare", "verdict", "leakage_gaps"],
    "report": ["write_report"],
    "map": ["write_map"],
    "study": ["study", "compare_study", "verdict"],
    "ls": ["list_cache"],
    "runs": ["list_runs", "remove_runs"],
    "prune": ["find_leftovers", "remove_leftovers", "find_stores", "empty_stores"],
    "demo": ["run_demo"],
    "doctor": ["run_doctor"],
}  # of the others the name is the command's own


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_public_name_which_it_calls(command: str) -> None:
    body = ast.walk(ast.parse(inspect.getsource(COMMANDS[command].callback)))
    imported = {(line.module, name.name) for line in body if isinstance(line, ast.ImportFrom) for name in line.names}
    for name in NAMES.get(command, [command]):
        assert name in tlcache.__all__
        assert (getattr(tlcache, name).__module__, name) in imported


@pytest.mark.parametrize("name", sorted(set(tlcache.__all__) - {"__version__"}))
def test_public_names_are_there_and_described(name: str) -> None:
    public = getattr(tlcache, name)
    assert callable(public)
    assert public.__doc__
    assert f"`{name}`" in tlcache.__doc__
    assert name in dir(tlcache)


def test_the_description_names_nothing_else() -> None:
    assert {*re.findall(r"`(\w+)`", tlcache.__doc__), "__version__"} == set(tlcache.__all__)


def test_no_public_name_hides_a_module() -> None:
    modules = {name for _, name, _ in pkgutil.iter_modules(tlcache.__path__)}
    assert not modules & set(tlcache.__all__)


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'tlcache' has no attribute 'extrakt'"):
        importlib.import_module("tlcache").extrakt  # noqa: B018


def test_importing_the_package_imports_nothing() -> None:
    code = "import sys; before = set(sys.modules); import tlcache; print(*(set(sys.modules) - before))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name for name in found if name.startswith("tlcache")} == {"tlcache", "tlcache.threads", "tlcache.version"}
    assert not {"pathlib", "ast", "logging"} & set(found)
