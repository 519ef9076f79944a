"""Files of a Zenodo record: what its API says of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

from skyset.archives.checksums import Checksum
from skyset.archives.fetch import Fetcher, FetchError
from skyset.errors import UserError
from skyset.files import is_plain_name
from skyset.messages import plain
from skyset.secrets import without_login

API_URL = "https://zenodo.org/api/records/"
LARGEST_ANSWER = 16 << 20  # bytes: what the API says of a record


@dataclass(frozen=True)
class RecordFile:
    """One file: its name, address, size in bytes, and checksum (``"md5:<hex>"``)."""

    name: str
    url: str
    bytes: int
    checksum: str


def record_files(network: Fetcher, record: int | str, api_url: str = API_URL) -> dict[str, RecordFile]:
    """The files of a record by name.

    Args:
        record: its number; that of all versions gives the newest.

    Raises:
        UserError: there is no such record, or the answer is none of this API.
    """
    url = f"{api_url.rstrip('/')}/{record}"
    try:
        answer = json.loads(network.content(url, LARGEST_ANSWER))
        files = [_file(entry) for entry in answer["files"]]
    except FetchError as error:
        raise UserError(f"cannot get record {record}: {error}") from error
    except Exception as error:  # whatever the JSON is made of, down to numbers that are infinite
        text = plain(f"{type(error).__name__} {error}", 300)
        raise UserError(f"{url} does not answer as Zenodo's API does: {text}") from error
    return {file.name: file for file in files}


def _file(entry: dict) -> RecordFile:
    file = RecordFile(entry["key"], entry["links"]["self"], int(entry["size"]), entry["checksum"])
    if not file.url.startswith(("https://", "http://")) or not is_plain_name(file.name) or file.bytes < 0:
        raise ValueError(f"a file named {file.name!r} of {file.bytes} bytes at {file.url!r}")
    Checksum.parse(file.checksum)
    return replace(file, url=without_login(file.url))


def need(files: Mapping[str, RecordFile], name: str, record: int | str) -> RecordFile:
    """A file of the record; UserError with the names of those there are if it is not among them."""
    if name not in files:
        raise UserError(f"record {record} has no {name} (it has {', '.join(sorted(files))})")
    return files[name]
