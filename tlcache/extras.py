"""Packages that only some of the work needs: imported when it is done, and named where they are not installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from tlcache.errors import OptionError, TlcacheError

__all__ = ["extra"]


def extra(module: str, what: str, install: str, error: type[TlcacheError] = OptionError) -> Any:
    """Import `package` or `package.module` and return the package.

    Parameters
    ----------
    module
        Its name.
    what
        How the message begins, which goes on with "is not installed".
    install
        What pip is to install.
    error
        What is raised where it is not there.

    Raises
    ------
    TlcacheError
        It is not there: an `error`.
    """
    try:
        import_module(module)
        return import_module(module.partition(".")[0])
    except ImportError:
        raise error(f"{what} is not installed. Install it with: pip install {install}") from None
