"""One extraction shared by many processes: the same file as one makes, whoever dies, claims or comes twice."""

import json
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import onnx
import pytest
from fakes import doom, write_image
from test_one_pass import OPTIONS, network
from typer.testing import CliRunner

from tlcache.cache.feature_file import open_features
from tlcache.cache.find import features_folder
from tlcache.cli import app
from tlcache.datasets.folder import FileImages
from tlcache.errors import CacheError, DataError, OptionError
from tlcache.extraction import claims, target
from tlcache.extraction import shares as shares_module
from tlcache.extraction.claims import Claimant, claimed, is_held
from tlcache.extraction.extract import extract, extract_layers
from tlcache.extraction.ledgers import Ledgers, shards_of
from tlcache.extraction.merge import merge
from tlcache.inventory.checks import verify
from tlcache.inventory.entries import list_cache
from tlcache.inventory.leftovers import find_leftovers, remove_leftovers
from tlcache.report.tables import provider_words

NO_PROCESS = 2**22 + 1  # more than Linux has


@pytest.fixture
def awkward(photos: Path) -> Path:
    """Images of which some are copies, some no images, one cannot be read, and some are of a group."""
    paths = sorted(photos.glob("*/*.png"))
    (photos / "blue" / "copy.png").write_bytes(paths[20].read_bytes())  # of another shard
    (photos / "red" / "text.png").write_bytes(b"no image")
    (photos / "red" / "text2.png").write_bytes(b"no image")
    (photos / "green" / "folder.png").symlink_to(photos)
    rows = [
        f"{path.relative_to(photos)},{path.parent.name},{'one' if path.name in ('1.png', '2.png') else ''}"
        for path in sorted(photos.glob("*/*.png"))
    ]
    manifest = photos.parent / "photos.csv"
    manifest.write_text("\n".join(["path,label,group", *rows]))
    return manifest


def content(path: Path) -> dict[str, Any]:
    """Return all that a feature file holds but when and how fast it was made."""
    with open_features(path) as file:
        rows = file.split("train", "val", "test")
        kept = {name: value for name, value in file.attrs.items() if name not in MADE}
        columns = (rows.paths, rows.features.tobytes(), rows.labels.tobytes(), file.hashes().tobytes())
        return {**kept, "rows": columns, "quarantine": file.quarantine, "sizes": file.stored().tobytes()}


MADE = ("created", "generated_by", "header_sha256", "decode_s", "infer_s", "write_s", "wall_s", "arguments")


def shares(data: Path, model: Path, count: int, **options: Any) -> list[Any]:
    return [extract(data, model, shard=f"{number}/{count}", **options) for number in range(1, count + 1)]


def test_shards_are_whole_powers_of_two() -> None:
    for images in (0, 1, 2, 24, 1000, 100_000):
        found = shards_of(images)
        assert [number for each in found for number in each] == list(range(images))
        assert len({len(each) for each in found[:-1]} | {1}) <= 2
        assert len(found) <= 2 * max(1, images) ** 0.5


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_shares_make_the_file_that_one_process_makes(
    awkward: Path, tiny_model: Path, tmp_path: Path, count: int
) -> None:
    whole = extract(awkward, tiny_model, max_bad=0.5, features=tmp_path / "whole")
    done = shares(awkward, tiny_model, count, max_bad=0.5)
    last = done[min(count, 4) - 1]
    assert [each.shards is None for each in done] == [number == min(count, 4) - 1 for number in range(count)]
    assert content(last.path) == content(whole.path)
    assert (last.rows, last.quarantined, last.warnings) == (whole.rows, whole.quarantined, whole.warnings)
    assert {each.suffix for each in last.path.parent.iterdir()} == {".h5", ".lock"}
    assert extract(awkward, tiny_model, max_bad=0.5).up_to_date


def test_who_is_last_reads_no_image(photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledgers, "result", lambda _: None)
        assert [each.shards for each in shares(photos, tiny_model, 2)] == [(2, 3), (3, 3)]
    monkeypatch.setattr(FileImages, "read_several", None)
    monkeypatch.setattr("tlcache.extraction.worker.open_networks", None)
    (done,) = merge()
    assert (done.rows, done.embedded, done.reused, done.shards) == (24, 0, 24, None)
    assert merge() == []
    with pytest.raises(CacheError, match="Nothing under .* is in shards"):
        merge("elsewhere")


def test_two_that_publish_at_once_make_one_file(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledgers, "result", lambda _: None)
        shares(photos, tiny_model, 2)
    published: list[Any] = []
    write = target.publish
    monkeypatch.setattr(target, "publish", lambda plan: (published.append(plan), write(plan)))
    with ThreadPoolExecutor(3) as pool:
        done = [each for (each,) in pool.map(lambda _: merge(), range(3)) if each.shards is None]
    assert len(published) == 1
    assert {each.rows for each in done} == {24}
    assert [check.sound for check in verify()] == [True]
    assert {each.suffix for each in done[0].path.parent.iterdir()} == {".h5", ".lock"}


def test_a_share_that_was_killed_and_is_repeated_embeds_only_what_it_had_not(
    photos: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = extract(photos, tiny_model, features=tmp_path / "whole")
    with monkeypatch.context() as patch:
        write = shares_module.write_ledger

        def killed(path: Path, ledger: Any) -> None:
            if path.parent.name == "shard-000002":
                raise KeyboardInterrupt
            write(path, ledger)

        patch.setattr(shares_module, "write_ledger", killed)
        with pytest.raises(KeyboardInterrupt):
            extract(photos, tiny_model, shard="1/2")
    assert extract(photos, tiny_model, shard="2/2").embedded == 8
    again = extract(photos, tiny_model, shard="1/2")
    assert (again.rows, again.embedded) == (24, 0)
    assert content(again.path) == content(whole.path)


def test_parts_that_are_lost_are_made_again_and_those_only(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    whole = extract(photos, tiny_model, features=tmp_path / "whole")
    extract(photos, tiny_model, shard="1/2")
    (workspace,) = (tmp_path / "features" / "photos").glob(".*.parts")
    for part in (workspace / "shard-000002").glob("*.safetensors"):
        part.write_bytes(b"damaged")
    with pytest.raises(CacheError, match="Parts of 1 shard were damaged or removed"):
        extract(photos, tiny_model, shard="2/2")
    again = extract(photos, tiny_model, claim=True)
    assert again.embedded == 8
    assert content(again.path) == content(whole.path)


def test_a_ledger_of_other_images_does_not_count(photos: Path, tiny_model: Path, tmp_path: Path) -> None:
    extract(photos, tiny_model, shard="1/2")
    write_image(photos / "blue" / "0a.png", 99, 0)  # moves all that follow
    done = shares(photos, tiny_model, 2)[-1]
    assert (done.rows, done.shards) == (25, None)
    assert content(done.path) == content(extract(photos, tiny_model, features=tmp_path / "whole").path)


def test_layers_share_a_pass_and_each_is_published(photos: Path, tmp_path: Path) -> None:
    onnx.save(network(), tmp_path / "layers.onnx")
    given = (photos, tmp_path / "layers.onnx", ["stem", "block"], "max")
    whole = extract_layers(*given, **OPTIONS, features=tmp_path / "whole")
    extract_layers(*given, **OPTIONS, shard="1/2")
    done = extract_layers(*given, **OPTIONS, shard="2/2")
    assert [content(each.path) for each in done] == [content(each.path) for each in whole]


def test_unusable_images_are_counted_against_all_images(photos: Path, tiny_model: Path) -> None:
    for number in range(3):  # all of the first share's own first shard
        (photos / "blue" / f"{number}.png").write_bytes(f"no image {number}".encode())
    assert extract(photos, tiny_model, shard="1/3", max_bad=0.2).quarantined == 3
    with pytest.raises(DataError, match="3 of 24 images are unusable"):
        extract(photos, tiny_model, shard="1/3", max_bad=0.1, features="other")


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "1/0", "a/b", "1/2/3", "-1/4", "1.5/4"])
def test_a_share_is_one_of_those_there_are(photos: Path, tiny_model: Path, shard: str) -> None:
    with pytest.raises(OptionError, match="takes a share and how many there are, from 1/1 on, like 3/16"):
        extract(photos, tiny_model, shard=shard)


ME = Claimant("3/16")
CLAIMS = {  # who holds it, how old it is -> whether it is held against us
    "nobody": (None, 0, False),
    "ourselves": (ME, 0, True),  # another worker of this command
    "alive": (replace(ME, share="4/16", command="b", process=os.getppid()), 0, True),
    "alive but silent": (replace(ME, share="4/16", command="b", process=os.getppid()), claims.GONE_S + 1, False),
    "dead": (replace(ME, share="4/16", command="b", process=NO_PROCESS), 0, False),
    "before us": (replace(ME, share="4/16", command="b"), 0, False),  # its number is ours now
    "elsewhere": (replace(ME, share="4/16", command="b", host="other"), 0, True),
    "elsewhere, silent": (replace(ME, share="4/16", command="b", host="other"), claims.GONE_S + 1, False),
    "elsewhere, our share": (replace(ME, command="b", host="other"), 0, False),
    "half written": ("{", 0, True),
    "half written long ago": ("{", claims.GONE_S + 1, False),
}


@pytest.mark.parametrize(("holder", "age_s", "held"), CLAIMS.values(), ids=CLAIMS.keys())
def test_a_shard_is_taken_over_from_who_is_gone(
    tmp_path: Path, holder: Claimant | str | None, age_s: float, held: bool
) -> None:
    path = tmp_path / "claim-000001"
    if holder is not None:
        path.write_text(json.dumps(asdict(holder)) if isinstance(holder, Claimant) else holder)
        os.utime(path, (time.time() - age_s,) * 2)
    assert is_held(tmp_path, ME) == held
    with claimed(tmp_path, ME) as ours:
        assert ours != held
        assert is_held(tmp_path, replace(ME, share="5/16", command="c", host="third"))
    assert path.exists() == held
    assert len(list(tmp_path.iterdir())) == held


def test_what_is_void_is_taken_over_by_one(tmp_path: Path) -> None:
    (tmp_path / "claim-000001").write_text(json.dumps(asdict(replace(ME, command="b", process=NO_PROCESS))))
    with ThreadPoolExecutor(8) as pool, ExitStack() as claims:
        taken = list(pool.map(lambda _: claims.enter_context(claimed(tmp_path, ME)), range(8)))
    assert sum(taken) == 1


def test_a_claim_is_kept_young_while_its_shard_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "BEAT_S", 0.01)
    path = tmp_path / "claim-000001"
    with claimed(tmp_path, ME):
        os.utime(path, (0, 0))
        until = time.monotonic() + 5
        while not path.stat().st_mtime and time.monotonic() < until:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


@pytest.fixture
def held(photos: Path, tiny_model: Path, tmp_path: Path) -> Path:
    """The folder of parts of a first share of three, and another host at the second one's shard."""
    extract(photos, tiny_model, shard="1/3")
    (workspace,) = (tmp_path / "features" / "photos").glob(".*.parts")
    path = workspace / "shard-000001" / "claim-000001"
    path.parent.mkdir()
    path.write_text(json.dumps(asdict(Claimant("2/3", 1, "other", "b"))))
    return path


def test_claiming_does_what_is_left_but_not_what_others_are_at(photos: Path, tiny_model: Path, held: Path) -> None:
    assert extract(photos, tiny_model, claim=True).shards == (2, 3)
    assert extract(photos, tiny_model, shard="3/3", claim=True).shards == (2, 3)
    os.utime(held, (0, 0))
    done = extract(photos, tiny_model, shard="3/3", claim=True)
    assert (done.rows, done.embedded, done.shards) == (24, 8, None)


def test_shards_are_listed_and_not_removed_while_somebody_is_at_one(held: Path) -> None:
    (entry,) = list_cache()
    assert (entry.state, entry.rows, entry.images, entry.detail) == ("running", 8, 24, "1 of 3 shards")
    assert find_leftovers() == []
    os.utime(held, (0, 0))
    (entry,) = list_cache()
    assert (entry.state, entry.detail) == ("unfinished", "1 of 3 shards")
    remove_leftovers(find_leftovers())
    assert list_cache() == []


def test_a_plain_extraction_uses_what_shares_have_done(photos: Path, tiny_model: Path) -> None:
    extract(photos, tiny_model, shard="1/2")
    done = extract(photos, tiny_model)
    assert (done.rows, done.embedded, done.reused) == (24, 8, 16)
    assert {each.suffix for each in done.path.parent.iterdir()} == {".h5", ".lock"}


@pytest.mark.worker
@pytest.mark.slow
@pytest.mark.usefixtures("sabotaged")
def test_an_image_that_kills_its_decoder_costs_a_share_that_image(photos: Path, tiny_model: Path) -> None:
    doom(photos / "red" / "3.png", "crash")
    done = shares(photos, tiny_model, 2)[-1]
    assert (done.rows, done.quarantined) == (23, 1)


def parts_of(extraction: Any) -> Path:
    return Path(extraction.path).with_name(f".{Path(extraction.path).stem}.parts")


@pytest.mark.parametrize("fault", ["damaged", "missing"])
def test_an_image_that_is_mended_is_taken_by_its_share_alone(
    photos: Path, tiny_model: Path, tmp_path: Path, fault: str
) -> None:
    image = photos / "blue" / "0.png"  # of the first shard of three
    mended = image.read_bytes()
    image.unlink()
    if fault == "damaged":
        image.write_bytes(mended[:60])
    else:
        image.symlink_to("nowhere.png")
    first = extract(photos, tiny_model, shard="1/3", max_bad=0.5)
    assert (first.quarantined, first.shards) == (1, (1, 3))
    assert extract(photos, tiny_model, shard="1/3", max_bad=0.5).embedded == 0  # as it was
    image.unlink()
    image.write_bytes(mended)
    assert extract(photos, tiny_model, shard="2/3", max_bad=0.5).shards == (2, 3)  # whose images are others
    again = extract(photos, tiny_model, shard="1/3", max_bad=0.5)
    assert (again.embedded, again.quarantined, again.shards) == (1, 0, (2, 3))
    last = extract(photos, tiny_model, shard="3/3", max_bad=0.5)
    whole = extract(photos, tiny_model, max_bad=0.5, features=tmp_path / "whole")
    assert (last.rows, last.quarantined) == (24, 0)
    assert content(last.path) == content(whole.path)


def test_an_image_that_is_mended_after_all_is_published_leaves_the_quarantine(photos: Path, tiny_model: Path) -> None:
    image = photos / "red" / "7.png"  # of the last shard
    mended = image.read_bytes()
    image.write_bytes(b"no image")
    done = shares(photos, tiny_model, 3, max_bad=0.5)[-1]
    assert (done.rows, done.quarantined) == (23, 1)
    image.write_bytes(mended)
    again = shares(photos, tiny_model, 3, max_bad=0.5)
    assert [(each.embedded, each.shards) for each in again] == [(0, (1, 3)), (0, (2, 3)), (1, None)]
    assert (again[-1].rows, again[-1].quarantined, parts_of(done).exists()) == (24, 0, False)


def test_merging_again_changes_nothing(awkward: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Ledgers, "result", lambda _: None)
        shares(awkward, tiny_model, 2, max_bad=0.5)
    (done,) = merge()
    before = done.path.read_bytes()
    assert done.quarantined == 3
    assert merge() == []
    assert done.path.read_bytes() == before


def test_images_that_were_added_between_shares_are_told_and_ls_counts_as_merge_does(
    photos: Path, tiny_model: Path
) -> None:
    assert extract(photos, tiny_model, shard="1/3").warnings == ()
    write_image(photos / "blue" / "0a.png", 99, 0)  # of the first shard, and moves all that follow
    second = extract(photos, tiny_model, shard="2/3")
    assert (second.shards, second.missing_shares) == ((1, 4), ("1/3", "3/3"))
    assert second.warnings == (
        "The images have changed since these shares were done: 1/3. Give their commands again: only images that are "
        "new are embedded.",
    )
    (listed,) = list_cache()
    assert listed.detail == "1 of 4 shards; the images of 1 more have changed since"
    write_image(photos / "red" / "9.png", 100, 0)  # in the end: no shard that is done has others
    write_image(photos / "blue" / "0b.png", 101, 0)  # and in front of those of the second
    (merged,) = merge()
    (listed,) = list_cache()
    assert merged.shards == (0, 4)
    assert listed.detail == "0 of 4 shards; the images of 2 more have changed since"
    done = shares(photos, tiny_model, 3)[-1]
    assert (done.rows, done.warnings, list_cache()[0].state) == (27, (), "complete")


def test_merge_says_which_shares_are_missing_in_place_of_a_table(photos: Path, tiny_model: Path) -> None:
    extract(photos, tiny_model, shard="1/4")
    result = CliRunner().invoke(app, ["merge"])
    assert result.exit_code == 1
    assert "not yet, 1 of 3 shards done" in result.stdout
    assert "shares 2/4, 3/4 are missing: give their commands again" in result.stdout
    assert "Embedded" not in result.stdout


def test_without_shares_merge_asks_for_a_claim(photos: Path, tiny_model: Path, held: Path) -> None:
    (held.parent.parent / "shards.json").unlink()
    assert extract(photos, tiny_model, claim=True).shards == (2, 3)
    result = CliRunner().invoke(app, ["merge"])
    assert "the rest is missing: give the command again with --claim" in result.stdout


def test_what_others_are_at_is_not_missing(held: Path) -> None:
    (merged,) = merge()
    assert merged.missing_shares == ("3/3",)
    os.utime(held, (0, 0))
    assert merge()[0].missing_shares == ("2/3", "3/3")


def test_a_share_names_its_images_that_cannot_be_used(photos: Path, tiny_model: Path) -> None:
    (photos / "blue" / "1.png").write_bytes(b"no image")
    (photos / "blue" / "2.png").unlink()
    (photos / "blue" / "2.png").symlink_to("nowhere.png")
    told = "2 of 24 images cannot be used (1 not-an-image, 1 unreadable): blue/1.png, blue/2.png."
    for _ in range(2):  # and again where there is nothing to do
        assert extract(photos, tiny_model, shard="1/3", max_bad=0.5).warnings == (told,)
    assert extract(photos, tiny_model, shard="2/3", max_bad=0.5).warnings == ()
    assert merge()[0].warnings == (told,)


def test_a_new_share_of_what_is_published_says_that_the_file_stays(photos: Path, tiny_model: Path) -> None:
    done = extract(photos, tiny_model)
    again = extract(photos, tiny_model, shard="1/3")
    assert provider_words(again) == "as it was before, 1 of 3 shards done"
    file, parts = list_cache()
    assert (file.state, parts.state) == ("complete", "unfinished")
    assert parts.detail == f"1 of 3 shards; '{done.path.name}' stays as it is until all are done"


def test_where_only_shards_or_rows_are_left_verify_says_what_they_are(photos: Path, tiny_model: Path) -> None:
    extract(photos, tiny_model, shard="1/2")
    with pytest.raises(CacheError, match=r"No feature files under .*parts' has shards\. .*tlcache merge"):
        verify()
    done = extract(photos, tiny_model, file_size=1000, features="several")
    done.path.unlink()
    with pytest.raises(CacheError, match=rf"'{done.path.name}' is missing, whose rows are in .*same tlcache extract"):
        verify(features="several")


def test_a_dataset_that_is_gone_does_not_keep_others_from_being_published(
    photos: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = photos.parent / "early"
    shutil.copytree(photos, gone)
    extract(gone, str(tiny_model), shard="1/2")
    with monkeypatch.context() as patch:
        patch.setattr(Ledgers, "result", lambda *_: None)  # stopped before it published
        extract(photos, str(tiny_model), shard="1/1")
    shutil.rmtree(gone)
    with pytest.raises(CacheError, match=r"The shards in '.*early.*' cannot be published: .*early"):
        merge()
    with open_features(next(features_folder().glob("photos/*.h5"))) as file:
        assert len(file.paths()) == 24
