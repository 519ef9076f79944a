"""What stands beside the data in a repository: the list of its files with checksums, by which a later push knows them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from skyset.errors import UserError
from skyset.loading.pushed import FORMAT
from skyset.partitions.layout import MANIFEST
from skyset.partitions.manifest import FORMAT as BUILD_FORMAT
from skyset.partitions.tree.form import ADOPTED
from skyset.publishing.contents import Item
from skyset.publishing.journal import Sent
from skyset.publishing.source import Source
from skyset.secrets import redacted_values
from skyset.versions import __version__

#: Of Parquet the list is the manifest; a folder as it is, and HATS, have their own beside it.
PUBLISHED = "published.json"


@dataclass
class Record:
    """The files that pushes have put into a repository.

    Attributes:
        survey: whose they are; empty where there are none.
        files: SHA-256 (of those that Git holds, its SHA-1) by path.
        sent: by digest of what each was made of.
        own: the lists themselves.
        edited: whether people have changed the card on the Hub: it stays theirs.
    """

    survey: str = ""
    files: dict[str, str] = field(default_factory=dict)
    sent: dict[str, Sent] = field(default_factory=dict)
    own: list[str] = field(default_factory=list)
    edited: bool = False

    def take(self, path: str, text: bytes | None) -> None:
        """Add what ``published.json`` or ``manifest.json`` of a repository says; what is nothing of ours is passed over.

        A list of partitions that was uploaded by other means than a push counts too.
        """
        try:
            values = json.loads(text or b"{}")
            if values.get("format") == BUILD_FORMAT:
                found, sent = {str(each["path"]): str(each["sha256"]) for each in values["files"]}, {}
            elif values.get("format") == FORMAT:
                found = {str(each["path"]): str(each["sha256"]) for each in values["files"]}
                found |= {str(path): str(etag) for path, etag in values["beside"].items()}
                sent = {str(each["made_of"]): _sent(each) for each in values["files"] if "made_of" in each}
            else:
                return
            survey, edited = str(values["survey"]), values.get("card_edited") is True
        except (ValueError, LookupError, TypeError, AttributeError):
            return
        self.survey, self.edited = survey, self.edited or edited
        self.files |= found
        self.sent |= sent
        self.own.append(path)


def listed(text: bytes, name: str) -> dict[str, str]:
    """A table of a list of files, path to text; empty where it has none."""
    try:
        found = json.loads(text).get(name, {})
        return {str(path): str(value) for path, value in found.items()}
    except (ValueError, AttributeError, RecursionError):
        return {}


def _sent(entry: dict) -> Sent:
    if not re.fullmatch("[0-9a-f]{64}", entry["sha256"]):
        raise ValueError("no SHA-256")
    return Sent(entry["sha256"], int(entry["bytes"]), int(entry["rows"]))


def record_name(form: str) -> str:
    """The file of the record in a repository of one format."""
    return MANIFEST if form == "parquet" else PUBLISHED


def record_text(
    survey: str,
    form: str,
    items: Sequence[tuple[Item, Sent, str]],
    beside: Mapping[str, str],
    datasets: dict,
    edited: bool,
) -> bytes:
    """The record of a push.

    Args:
        survey: its name.
        form: ``parquet``, ``hdf5`` or ``hats``.
        items: each file with what was sent and the digest of what it was made of.
        beside: checksums of the small files, by path.
        datasets: what is said of each, by config.
        edited: whether the card is as people have changed it on the Hub.
    """
    files = [_entry(item, sent, made_of) for item, sent, made_of in sorted(items, key=lambda each: each[0].path)]
    values = {
        "format": FORMAT,
        "survey": survey,
        "form": form,
        "rows": sum(each["rows"] for each in files),
        "bytes": sum(each["bytes"] for each in files),
        "made_with": {"skyset": __version__, "pyarrow": pa.__version__},
        "card_edited": edited,
        "datasets": redacted_values(datasets),
        "beside": dict(sorted(beside.items())),
        "files": files,
    }
    return (json.dumps(values, indent=1) + "\n").encode()


def _entry(item: Item, sent: Sent, made_of: str) -> dict:
    entry: dict = {"path": item.path, "rows": sent.rows, "bytes": sent.bytes, "sha256": sent.sha256}
    if item.shard is None:
        return entry
    where = {"config": item.shard.config, "split": item.shard.split, "healpix": list(item.shard.cells)}
    return {**entry, **where, "made_of": made_of}


def described(source: Source) -> dict:
    """What a record says of a dataset: its columns with units, where it comes from, how it was built."""
    manifest = source.manifest
    values = json.loads(manifest.to_json())
    if manifest.is_adopted:  # where somebody's tree lay is of no use to others
        tree = values["build"].pop(ADOPTED)["tree"]
        values["sources"] = [Path(tree).name]
        values["build"]["command"] = [
            Path(each).name if "/" in each else each for each in values["build"].get("command", [])
        ]
    return {name: values[name] for name in ("rows", "healpix", "key", "sources", "build", "columns")}


def check_theirs(record: Record, there: Mapping[str, str], wanted: Mapping[str, frozenset[str]], overwrite: bool) -> None:
    """Raise UserError where a push would replace a file that it did not put there, or that was changed since.

    Args:
        record: what earlier pushes put there.
        there: the repository's files.
        wanted: the possible checksums of the files to be.
        overwrite: replace them all the same.
    """
    theirs = [
        path
        for path, etags in wanted.items()
        if path in there and there[path] not in etags and there[path] != record.files.get(path) and path not in record.own
    ]
    if theirs and not overwrite:
        more = f" and {len(theirs) - 1} more" if len(theirs) > 1 else ""
        raise UserError(
            f"the repository has {sorted(theirs)[0]}{more} that no push of skyset put there, or that was changed since: "
            "choose another --repo, or --overwrite"
        )
