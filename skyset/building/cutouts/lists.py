"""Cutouts and PSFs of Hyper Suprime-Cam's archive, asked by lists of one filter and one tract."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import math
import queue
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from skyset.archives.account import account_for
from skyset.archives.das import HOST, IMAGES, STREAMS, Cut, ListRequest, cutouts, psfs
from skyset.archives.hsc_skymap import tract_at
from skyset.archives.list_client import BACKOFF, SILENCE, ListClient, Stopped
from skyset.building.cutouts.declaration import Answer
from skyset.building.cutouts.spool import Galaxy, Group, Listed, Spool
from skyset.building.cutouts.stamps import read_psf, read_stamp
from skyset.errors import RecordError, UserError
from skyset.messages import plain, say
from skyset.sky import check_position

LOOKAHEAD = 20_000  # galaxies that are sorted into tracts at a time
ACTIVE = 3  # groups whose cutouts are on disk at a time, each 990 x 5 at most
JOIN = 2.0  # seconds that a thread is waited for
TELL_AFTER = 10.0  # seconds that a list takes to be worth a line


@dataclass(frozen=True)
class DasImages:
    """An image source: see `declaration.ImageSource`. A galaxy's files are ``g.fits`` ... and ``g.psf.fits`` ...

    Args:
        host: address of the archive.
        rerun: see `das.RERUNS`.
        half_size: half of a cutout's side, arcsec.
        planes: of `das.PLANES`.
        psf: whether each band's PSF is asked for too.
        type: of `das.TYPES`.
        bands: all of which a galaxy must have.
        streams: requests at a time.
        images: of a request.
        lookahead: galaxies that are sorted into tracts at a time.
        backoff: seconds after a failure, doubled each time.
        silence: seconds that the service may take for the next image.
    """

    host: str = HOST
    rerun: str = "pdr2_wide"
    half_size: float = 10.0
    planes: tuple[str, ...] = ("image",)
    psf: bool = False
    type: str = "coadd"
    bands: str = "grizy"
    streams: int = STREAMS
    images: int = IMAGES
    lookahead: int = LOOKAHEAD
    backoff: float = BACKOFF
    silence: float = SILENCE

    @classmethod
    def asked(cls, asked: argparse.Namespace) -> DasImages:
        """As asked for on the command line (``options.add_das_options``)."""
        return cls(
            asked.archive_url,
            asked.rerun,
            asked.half_size,
            ("image", *(plane for plane in asked.planes if plane != "image")),
            asked.psf,
            streams=min(STREAMS, asked.max_connections),
        )

    @property
    def address(self) -> str:
        return self.host

    @property
    def settings(self) -> dict:
        """Sizes in arcsec."""
        size = {"sw": self.half_size, "sh": self.half_size}
        return {"rerun": self.rerun, **size, "planes": list(self.planes), "psf": self.psf, "type": self.type}

    @property
    def cut(self) -> Cut:
        return Cut(self.rerun, self.half_size / 3600, self.half_size / 3600, self.planes, self.type)

    @property
    def lists(self) -> tuple[str, ...]:
        """Names of a group's lists, which are the endings of a galaxy's files without ``.fits``."""
        return (*self.bands, *(f"{band}.psf" for band in self.bands if self.psf))

    @property
    def lines(self) -> int:
        """Galaxies of a group."""
        return max(1, self.images // len(self.planes))

    def request(self, name: str, galaxies: Iterable[Galaxy]) -> ListRequest:
        """A list of a group."""
        positions = [(galaxy.ra, galaxy.dec) for galaxy in galaxies]
        make = psfs if name.endswith(".psf") else cutouts
        return make(self.host, positions, name[0], self.cut)

    def describe(self, row: Mapping) -> dict:
        """Nothing: what there is to know is in the FITS headers."""
        return {}

    def answers(self, wanted: Iterable[tuple[str, Mapping]], folder: Path) -> Generator[Answer, None, None]:
        """See `declaration.ImageSource`. Galaxies are given when all lists of their group are complete."""
        try:
            with contextlib.closing(_Run(self, folder)) as run:
                yield from run.answers(iter(wanted))
        except OSError as error:
            raise UserError(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error


def tract_of(row: Mapping) -> int:
    """The tract of a catalogue's row: that of its ``skymap_id``, or the one in which it is."""
    text = str(row.get("skymap_id") or "").strip()
    return int(text) // 10_000 if text.isdecimal() and int(text) >= 10_000 else tract_at(row["ra"], row["dec"])


class _Run:
    """The groups and threads of one `DasImages.answers`."""

    def __init__(self, source: DasImages, folder: Path) -> None:
        self.source = source
        self.spool = Spool(folder, source.settings, source.lists)
        self.groups: list[Group] = []  # that are active
        self._sorted: dict[int, list[Galaxy]] = defaultdict(list)  # by tract, for groups to come
        self._kept = {galaxy.key: (group, galaxy) for group in self.spool.groups for galaxy in group.galaxies}
        self._jobs: queue.SimpleQueue[tuple[Group, str] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[Group, str, Listed] | BaseException] = queue.SimpleQueue()
        self._clients: list[ListClient] = []
        self._threads: list[threading.Thread] = []
        self._images = 0
        self._lock = threading.Lock()

    def answers(self, wanted: Iterator[tuple[str, Mapping]]) -> Iterator[Answer]:
        yield from self._look_ahead(wanted)
        self._kept.clear()
        for kept in self.spool.groups:
            if kept.wanted:
                self._begin(kept)
            else:
                kept.remove(self.source.lists)
        while True:
            while len(self.groups) < ACTIVE and (group := self._new_group()) is not None:
                self._begin(group)
                yield from self._look_ahead(wanted)
            if not self.groups:
                return
            complete = [each for each in self.groups if len(each.lists) == len(self.source.lists)]
            if not complete:
                done = self._done.get()
                if isinstance(done, BaseException):
                    raise done
                answered, name, listed = done
                answered.lists[name] = listed
            for each in complete:
                yield from self._complete(each)
                self.groups.remove(each)

    def close(self) -> None:
        """Stop the threads. One that waits for a host's name ends by itself later; it holds nothing up."""
        for client in self._clients:
            client.stop()
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(JOIN)
        self.spool.close()

    # galaxies into groups

    def _look_ahead(self, wanted: Iterator[tuple[str, Mapping]]) -> Iterator[Answer]:
        """Sort as many galaxies as are looked at ahead into their tracts; answer those that cannot be had."""
        while sum(map(len, self._sorted.values())) < self.source.lookahead:
            if (found := next(wanted, None)) is None:
                return
            key, row = found
            galaxy = Galaxy(key, *(math.nan if row[name] is None else row[name] for name in ("ra", "dec")))
            try:
                check_position(galaxy.ra, galaxy.dec)
            except RecordError as error:
                yield Answer(key, None, None, 0, self.source.host, str(error))
                continue
            group, kept = self._kept.get(key, (None, None))
            if group is not None and kept == galaxy:
                group.wanted.add(key)
            elif (reason := self.spool.no_data(galaxy)) is not None:
                yield Answer(key, None, 200, 0, self.source.host, reason)
            else:
                self._sorted[tract_of(row)].append(galaxy)

    def _new_group(self) -> Group | None:
        """The galaxies of the tract that has most of them, as many as a list has lines, by position."""
        if not self._sorted:
            return None
        tract = max(self._sorted, key=lambda tract: (len(self._sorted[tract]), -tract))
        waiting, lines = self._sorted.pop(tract), self.source.lines
        if waiting[lines:]:
            self._sorted[tract] = waiting[lines:]
        return self.spool.group(tract, sorted(waiting[:lines], key=lambda galaxy: (galaxy.ra, galaxy.dec)))

    def _begin(self, group: Group) -> None:
        """Have the lists asked that are missing."""
        self.groups.append(group)
        missing = [name for name in self.source.lists if name not in group.lists]
        if missing and not self._threads:
            account_for(self.source.host)
            for _ in range(self.source.streams):
                client = ListClient(backoff=self.source.backoff, silence=self.source.silence, say=_tell, check=_check)
                self._clients.append(client)
                self._threads.append(threading.Thread(target=self._work, args=(client,), daemon=True))
                self._threads[-1].start()
        for name in missing:
            self._jobs.put((group, name))

    # lists

    def _work(self, client: ListClient) -> None:
        with client:
            try:
                while (job := self._jobs.get()) is not None:
                    group, name = job
                    self._done.put((group, name, self._ask(client, group, name)))
            except Stopped:
                return
            except BaseException as error:  # for the caller
                self._done.put(error)

    def _ask(self, client: ListClient, group: Group, name: str) -> Listed:
        """Ask a list and keep what it brings."""
        begun = time.monotonic()
        with group.writer(name) as writer:
            answered = client.ask(self.source.request(name, group.galaxies), writer.add)
            listed, size = writer.complete(answered), writer.size
        took, count = time.monotonic() - begun, len(listed.places)
        with self._lock:
            self._images += count
        if took > TELL_AFTER:
            _tell(
                f"tract {group.tract}, {name}: {count:,} of {len(group.galaxies):,}, {size / 1e6:.0f} MB in {took:.0f} s "
                f"({count / took:.1f}/s); {self._images:,} files so far"
            )
        return listed

    def _complete(self, group: Group) -> Iterator[Answer]:
        """The answers of a group all of whose lists are there; then its files are deleted."""
        reasons = {
            galaxy: reason
            for row, galaxy in enumerate(group.galaxies)
            if galaxy.key in group.wanted and (reason := self._reason(group, row)) is not None
        }
        # A list of many that brought nothing at all may be the service's fault: those are asked for again by the next run.
        if len(group.galaxies) == 1 or all(listed.places for listed in group.lists.values()):
            bad = {row for listed in group.lists.values() for row in listed.bad}
            believed = {galaxy for row, galaxy in enumerate(group.galaxies) if row not in bad}
            self.spool.add_no_data({galaxy: reason for galaxy, reason in reasons.items() if galaxy in believed})
        tries = max(listed.tries for listed in group.lists.values())
        for row, galaxy in enumerate(group.galaxies):
            if galaxy.key not in group.wanted:
                continue
            answer = Answer(galaxy.key, None, 200, tries, self.source.host, reasons.get(galaxy))
            if answer.reason is None:
                files = {f"{name}.fits": group.lists[name].read(row) for name in self.source.lists}
                answer = dataclasses.replace(answer, members=files)
            yield answer
        group.remove(self.source.lists)

    def _reason(self, group: Group, row: int) -> str | None:
        """Why there is no whole answer for a galaxy."""
        for name in self.source.lists:
            if row in group.lists[name].refused:
                return f"the archive refuses it in band {name[0]}: {group.lists[name].refused[row]}"
            if row in group.lists[name].bad:
                return f"{name}.fits cannot be used: {group.lists[name].bad[row]}"
        for kind, what in (("", "data"), (".psf", "PSF")):
            lacking = [band for band in self.source.bands if _lacks(group.lists.get(f"{band}{kind}"), row)]
            if lacking:
                return f"no {what} in {'band' if len(lacking) == 1 else 'bands'} {', '.join(lacking)} there"
        return None


def _lacks(listed: Listed | None, row: int) -> bool:
    return listed is not None and row in listed.absent


def _check(request: ListRequest, data: bytes) -> None:
    """RecordError where a file is of no use, such as one of another band."""
    if request.service == "psf":
        read_psf(data)
    else:
        read_stamp(data, request.band)


def _tell(text: str) -> None:
    """A line, also while a bar is shown."""
    if sys.stderr is not None and sys.stderr.isatty():
        tqdm.write(plain(text), file=sys.stderr)
    else:
        say(text, file=sys.stderr)
