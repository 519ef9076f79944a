"""Images in remote ZIP archives of many gigabytes, built one archive after the other.

The disk holds one archive beside the output: each is downloaded, its images go into the partitions, it is deleted. A
partition whose sky is in several archives is written once an archive; the rows that it has are copied.
``archives/<name>.json`` says what an archive held, once its images are in the partitions: it is not downloaded again.
"""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import json
import shutil
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from skyset import remote
from skyset.archives.fetch import Fetcher, FetchError
from skyset.archives.zenodo import RecordFile
from skyset.building import zips
from skyset.building.downloads import RAW, Downloads
from skyset.building.imagefiles import Images, Place, is_image, stem_of
from skyset.building.images_and_votes.objects import NothingToBuild
from skyset.errors import RecordError, UserError
from skyset.files import write_atomically
from skyset.http import innermost
from skyset.messages import csv_cell, say
from skyset.partitions.layout import REJECTED

LEDGER, FEW = "archives", "few"
#: Bytes of a remote archive that are asked for at a time, where only a few of its images are wanted.
_BLOCK_BYTES = 1 << 20

#: An archive's name, and the number of a member.
Origin = tuple[str, int]
#: Builds the images that the function gives (called while the folder is locked): whether they are the last, and whether
#: what an earlier build left is to be replaced. Returns an exit status.
BuildImages = Callable[[Callable[[], Images], bool, bool], int]


def fetched_file(network: Fetcher, url: str, target: Path, checksum: str | None = None) -> Path:
    """A file that the build needs before it can begin; UserError where it cannot be had."""
    try:
        return network.fetch(url, target, checksum)
    except FetchError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"{error.filename or target}: {error.strerror or error}") from error


def build_archives(
    files: Sequence[RecordFile],
    root: Path,
    made_of: str,
    network: Fetcher,
    keep: bool,
    overwrite: bool,
    build: BuildImages,
    wanted: set[str] | None = None,
    rename: Callable[[Images], Images] = lambda images: images,
) -> int:
    """Build archive after archive.

    Args:
        files: the archives.
        root: the output folder.
        made_of: what the rows are made of beside the images; one folder holds one kind.
        keep: do not delete the archives.
        overwrite: begin anew.
        build: builds the images so far.
        wanted: the objects that are built, where not all are; archives that were built for others are downloaded again.
        rename: gives the images by the names of the objects.

    Returns:
        the exit status of the last build, which rejects what all of them rejected.

    Raises:
        UserError: the folder holds rows of other catalogues.
    """
    ledger = {} if overwrite else _read_ledger(root, made_of)
    for file in files:
        if file.name in ledger and ledger[file.name]["checksum"] != file.checksum:
            say(f"{file.name} has another checksum than when it was built: its images are built again", file=sys.stderr)
            del ledger[file.name]
    only = None if wanted is None else sorted(wanted)
    waiting = [file for file in files if file.name not in ledger or ledger[file.name]["only"] not in (None, only)]
    downloads: list[Downloads] = []

    def begin() -> None:
        """Called while the folder is locked."""
        if downloads:
            return
        downloads.append(Downloads(root, keep))
        if anew:
            _forget(root)
        for name in ledger.keys() - {file.name for file in waiting}:  # killed at the wrong moment
            downloads[0].remove(root / RAW / name)
        shutil.rmtree(root / RAW / FEW, ignore_errors=True)

    def fetch(file: RecordFile) -> Path:
        downloads[0].expect(root / RAW / file.name)
        return network.fetch(file.url, root / RAW / file.name, file.checksum)

    def again(paths: set[Path]) -> None:
        """Archives that are done, for rows that are no longer there."""
        for file in files:
            if (root / RAW / file.name).absolute() in paths:
                fetch(file)

    anew, status = overwrite, 0
    for file in waiting:
        fetched: list[Images] = []

        def images(file: RecordFile = file, fetched: list[Images] = fetched) -> Images:
            begin()
            unnamed = Images()
            unnamed.add_archive(fetch(file))
            unnamed.checksums[root / RAW / file.name] = file.checksum
            fetched.append(rename(unnamed))
            return dataclasses.replace(_together(ledger, root, fetched[0]), fetch=again)

        try:
            status = build(images, file is waiting[-1], overwrite)
            overwrite = False
        except NothingToBuild:
            if file is waiting[-1]:
                raise  # else the next ones may have what is wanted
        ledger[file.name] = _note(root, file, made_of, only, fetched[0])
        zips.close()
        downloads[0].remove(root / RAW / file.name)

    def done() -> Images:
        begin()
        return dataclasses.replace(_together(ledger, root, Images()), fetch=again)

    if not waiting:
        status = build(done, True, False)
    zips.close()
    for file in files:
        downloads[0].remove(root / RAW / file.name)
    downloads[0].close()
    return status


def _read_ledger(root: Path, made_of: str) -> dict[str, dict]:
    ledger = {}
    for path in sorted((root / LEDGER).glob("*.json")):
        try:
            entry = json.loads(path.read_text())
            same, few = entry["made_of"] == made_of, entry.get("few", False)
            if same or not few:
                ledger[entry["archive"]] = entry
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path} is damaged: remove it, and its archive is downloaded again") from error
        if not same and not few:
            raise UserError(
                f"{root} was built from other catalogues or options: use the same, another folder, or --overwrite "
                "(its archives are then downloaded again)"
            )
    return ledger


def _note(root: Path, file: RecordFile, made_of: str, only: list[str] | None, images: Images) -> dict:
    """Write down what an archive held; images that the build rejected are not in the partitions."""
    problems = {stem: reason for stem, _, reason in images.problems if stem not in images.places}
    archive, stems = csv_cell((root / RAW / file.name).absolute()), {csv_cell(stem): stem for stem in images.places}
    # Of this archive's images alone: a second row of an object in a catalogue says nothing of its image.
    own = (row for row in _rejected(root) if row["file"] == archive)
    problems |= {stems[row["key"]]: row["reason"] for row in own if row["key"] in stems}
    kept = {stem: place.member for stem, place in images.places.items() if stem not in problems}
    return _write_note(root, file, made_of, only, kept, problems)


def _rejected(root: Path) -> list[dict[str, str]]:
    """What the last build rejected."""
    path = root / REJECTED
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def _forget(root: Path) -> None:
    """No archive is done any more."""
    for path in (root / LEDGER).glob("*.json"):
        path.unlink()


def _write_note(
    root: Path,
    file: RecordFile,
    made_of: str,
    only: list[str] | None,
    images: Mapping[str, int],
    problems: Mapping[str, str],
    few: bool = False,
) -> dict:
    """Note which members of an archive are in the partitions, by object; ``few``: read out of it, it was not downloaded."""
    known = {"archive": file.name, "checksum": file.checksum, "made_of": made_of, "only": only, "few": few}
    entry = known | {"images": dict(images), "problems": dict(problems)}
    (root / LEDGER).mkdir(exist_ok=True)
    write_atomically(root / LEDGER / f"{file.name}.json", json.dumps(entry))
    return entry


def _together(ledger: dict[str, dict], root: Path, fetched: Images) -> Images:
    """The images of the archives that are done, which are in the partitions, and of the one at hand."""
    images = Images(dict(fetched.places), list(fetched.problems), list(fetched.archives), dict(fetched.checksums))
    for name, entry in ledger.items():
        path, only = root / RAW / name, entry["only"] and set(entry["only"])
        images.checksums.setdefault(path, entry["checksum"])
        for stem, member in entry["images"].items():
            if only is None or stem in only:
                images.places.setdefault(stem, Place(path, member))
        images.problems += [(stem, str(path), reason) for stem, reason in entry["problems"].items()]
    return images


def build_few(
    files: Sequence[RecordFile],
    wanted: set[str],
    count: int,
    root: Path,
    made_of: str,
    overwrite: bool,
    build: BuildImages,
    rename: Callable[[Images], Images] = lambda images: images,
) -> int:
    """Build some galaxies of the first archives, whose images are read out of these without downloading them.

    Args:
        files: the archives.
        wanted: stems of the images that will do.
        count: how many.
        root, made_of, overwrite, rename: as in ``build_archives``, which takes these galaxies over.
        build: builds them.

    Returns:
        its exit status.

    Raises:
        UserError: an archive cannot be read.
    """
    folder = root / RAW / FEW
    origins: dict[Path, Origin] = {}
    begun: list[Images] = []

    def images() -> Images:
        begun.append(Images())  # the folder is locked: this is no other build's
        if overwrite:
            _forget(root)
        begun[0] = rename(_few_images(files, wanted, count, folder, origins))
        return begun[0]

    try:
        status = build(images, False, overwrite)
        _note_few(root, files, made_of, begun[0], origins)
        return status
    finally:
        if begun:
            shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                (root / RAW).rmdir()


def _note_few(root: Path, files: Sequence[RecordFile], made_of: str, images: Images, origins: Mapping[Path, Origin]) -> None:
    """Note the images that were read out of archives and are in the partitions now."""
    rejected = {row["file"] for row in _rejected(root)}
    kept = {key: place.path for key, place in images.places.items() if csv_cell(place.path.absolute()) not in rejected}
    for file in files:
        if own := {key: origins[path][1] for key, path in kept.items() if origins[path][0] == file.name}:
            _write_note(root, file, made_of, sorted(own), own, {}, few=True)


def _few_images(
    files: Sequence[RecordFile], wanted: set[str], count: int, folder: Path, origins: dict[Path, Origin]
) -> Images:
    images = Images()
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        try:
            with remote.os_errors():
                system, path = remote.opened(file.url)
                remote.check_parts(system, path)
                with system.open(path, "rb", block_size=_BLOCK_BYTES) as source, zips.Archive(source) as archive:
                    taken = _take(archive, wanted, count, folder, images)
            origins |= {path: (file.name, member) for path, member in taken.items()}
            images.checksums |= dict.fromkeys(taken, file.checksum)
        except Exception as error:  # also what zipfile finds in the bytes
            raise UserError(f"{file.url}: {innermost(error)}") from None
        if len(images.places) >= count:
            break
    return images


def _take(archive: zipfile.ZipFile, wanted: set[str], count: int, folder: Path, images: Images) -> dict[Path, int]:
    """Read images out of an archive; returns the members' numbers by the files that they are in now."""
    infos, taken = archive.infolist(), {}
    for member in zips.members_of(archive):
        if len(images.places) >= count:
            break
        if not is_image(member.name) or stem_of(member.name) not in wanted or member.problem:
            continue
        path = folder / member.name.rpartition("/")[2]
        if path in images.checksums or path in taken:
            continue  # a second image of this name
        try:
            path.write_bytes(zips.read_member(archive, infos[member.number]))
            images.add(path.name, Place(path))
            taken[path] = member.number
        except RecordError as error:
            images.add(path.name, Place(path), str(error))
    return taken
