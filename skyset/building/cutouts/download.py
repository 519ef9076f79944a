"""The images of a list of objects, in TAR archives: what no archive has yet is asked for."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from skyset.building.cutouts.declaration import ImageSource
from skyset.building.options import Options
from skyset.building.tars.sink import TarSink, numbered
from skyset.errors import UserError
from skyset.files import write_atomically
from skyset.messages import say
from skyset.progress import progress_bar

SETTINGS = "Images_settings.json"
LISTED, FAILED, PREFIX = "Images_downloaded.csv.gz", "Images_failed.csv", "images"


def download(
    folder: Path, source: ImageSource, rows: Iterable[tuple[str, dict]], total: int, key: str, options: Options
) -> dict[str, str]:
    """Fetch the images of each row that no archive has yet; the row, as JSON, is kept beside them.

    Args:
        folder: the archives'.
        source: of the images.
        rows: key and what is kept of each object.
        total: how many they are.
        key: what the objects' names are called in the lists.

    Returns:
        why there are none, by key.

    Raises:
        UserError: the folder's images were cut out in another way, or the service is down.
    """
    prepare(folder, source.settings, options.overwrite)
    waiting: dict[str, dict] = {}
    failed: dict[str, str] = {}
    with TarSink(folder, prefix=PREFIX, listed=LISTED, failed=FAILED, key=key) as sink:
        for archive, reason in sink.aside.items():
            say(f"{archive} is damaged and was put aside: {reason}", file=sys.stderr)
        bar = progress_bar(total=total, unit="image", desc="images", smoothing=0)  # lists give theirs all at once

        def wanted() -> Iterator[tuple[str, Mapping]]:
            for name, row in rows:
                if name in sink.done:
                    bar.initial += 1  # which says nothing of the rate
                    bar.update()
                    continue
                waiting[name] = row
                yield name, row

        with bar, contextlib.closing(source.answers(wanted(), folder)) as answers:
            for answer in answers:
                row = waiting.pop(answer.key)
                if answer.members is None:
                    failed[answer.key] = f"no image: {answer.reason}"
                    sink.fail(answer.key, answer.reason or "", answer.status, answer.tries, answer.url)
                    if options.strict:
                        raise UserError(f"{answer.key}: {answer.reason} (--strict stops at the first)")
                else:
                    kept = row | {"sha256": digest_of_members(answer.members)}
                    members = {**answer.members, "json": json.dumps(kept).encode()}
                    sink.add(answer.key, members, answer.status or 200, answer.tries)
                bar.set_postfix(failed=len(failed), refresh=False)
                bar.update()
    return failed


def digest_of_members(members: Mapping[str, bytes]) -> str:
    """SHA-256 of an object's images, in their order."""
    return hashlib.sha256(b"".join(members.values())).hexdigest()


def archives_in(folder: Path) -> list[Path]:
    """The archives that builds wrote, in order."""
    return numbered(folder, PREFIX, ".tar")


def prepare(folder: Path, settings: Mapping, overwrite: bool) -> None:
    """Make the folder one of images cut out like this.

    Raises:
        UserError: it holds others.
    """
    path, text = folder / SETTINGS, json.dumps(settings, indent=1) + "\n"
    known = path.read_text() if path.exists() else None
    if known != text and (known is not None or any(folder.glob("*.tar*"))):
        if not overwrite:
            raise UserError(f"{folder} holds other cutouts ({SETTINGS} says which): choose another folder, or --overwrite")
        discard(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        write_atomically(path, text)


def discard(folder: Path) -> None:
    """Delete the images, and nothing else of the folder. The settings go last: until then no others are mixed with them."""
    for ending in (".tar", ".tar.part", ".tar.damaged", ".csv"):
        for path in numbered(folder, PREFIX, ending):
            path.unlink()
    for name in (LISTED, FAILED, SETTINGS):
        (folder / name).unlink(missing_ok=True)
