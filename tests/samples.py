"""Made-up samples for TAR archives, by key."""

import hashlib

from skyset.building.tars.sink import TarSink


def content(key):
    return hashlib.sha256(str(key).encode()).digest() * (1 + int(key) % 40)


def members(key):
    return {"jpg": content(key), "json": b'{"key": %d}' % int(key)}


def fill(folder, keys, **options):
    """A sink's folder with these samples, each got at its first, second or third try."""
    with TarSink(folder, **{"per_archive": 4, **options}) as sink:
        for key in map(str, keys):
            if key not in sink.done:
                sink.add(key, members(key), 200, 1 + int(key) % 3)
    return sink
