"""Files of the Hugging Face Hub: where its own cache has them, or downloaded into that."""

from __future__ import annotations

from pathlib import Path

from tlcache.errors import WeightsError, first_line
from tlcache.files import hub_folder
from tlcache.progress import say

__all__ = ["cached", "fetched"]

TIMEOUT_S = 4


def cached(repository: str, file: str) -> Path | None:
    """Return the file of a repository (`ORG/NAME`, `ORG/NAME@REVISION`) that is on this machine; no network is used."""
    from huggingface_hub import try_to_load_from_cache

    name, _, revision = repository.partition("@")
    found = try_to_load_from_cache(name, file, cache_dir=hub_folder(), revision=revision or None)
    return Path(found) if isinstance(found, str) else None


def fetched(repository: str, file: str, purpose: str) -> Path:
    """Return the file of a repository, downloaded where it is not on this machine.

    Parameters
    ----------
    repository, file
        As for `cached`.
    purpose
        What needs it, and what to do instead, for the message: sentences.

    Raises
    ------
    WeightsError
        It cannot be had. Where there is no network that is known within seconds.
    """
    if found := cached(repository, file):
        return found
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.utils import disable_progress_bars

    name, _, revision = repository.partition("@")
    place = _by_hand(name, revision or "main", file)
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("HF_HUB_OFFLINE is set")
        get_hf_file_metadata(hf_hub_url(name, file, revision=revision or None), timeout=TIMEOUT_S)  # tried once
        say(f"downloading {file} of {name} (once) ...")
        disable_progress_bars()
        return Path(hf_hub_download(name, file, revision=revision or None, cache_dir=hub_folder()))
    except Exception as error:  # of the network, of the hub, of the disk: all end the same
        raise WeightsError(
            f"Could not download {file} of {name} from the Hugging Face Hub: {first_line(error).rstrip('.')}.\n"
            f"{purpose} Put the file at {place} by hand."
        ) from None


def _by_hand(name: str, revision: str, file: str) -> Path:
    """Return where a file may be put so that it is found, by timm as well."""
    folder = hub_folder() / f"models--{name.replace('/', '--')}"
    known = folder / "refs" / revision
    return folder / "snapshots" / (known.read_text() if known.is_file() else revision) / file
