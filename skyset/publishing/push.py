"""``skyset push``: a survey's data into a repository of the Hugging Face Hub, whole or not at all.

How it stays invisible until it is whole: bytes are sent first, and nobody sees them before a commit names them. Where all
files fit into one commit (the Hub advises at most 100), that commit, with the parent that was looked at, makes them visible
at once. More than that go into a pull request, 100 a commit, which is merged at its end: the Hub has no other way to change
many files of a branch at once. A branch other than ``main`` takes no pull requests: there the commits are made as they come,
the card and the list of files last.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from skyset.errors import UserError
from skyset.files import human_bytes
from skyset.messages import counted, say
from skyset.publishing.beside import Beside, etags_of
from skyset.publishing.bucket import BucketHub
from skyset.publishing.client import Hub, Moved, ObjectsGone, Operation, State, quiet
from skyset.publishing.contents import Item
from skyset.publishing.journal import Journal, default_folder
from skyset.publishing.plan import Plan
from skyset.publishing.record import PUBLISHED, Record, check_theirs
from skyset.publishing.sender import MOST_BYTES_OF_GIT, Ready, send_all

#: Commits an hour; the Hub refuses the 129th.
MOST_COMMITS = 100
#: How often a push begins anew at the head that somebody else has moved.
TRIES = 5


def push(plan: Plan) -> str:
    """Send a plan's files; the address of the repository's page.

    Raises:
        UserError: no login, no permission, no network, a full disk, a partition that is not what the manifest says, files
            of others in the way.
    """
    request = plan.request
    name = request.place if request.bucket else request.repository
    with quiet(), Journal(request.work_dir or default_folder(name, request.revision)) as journal:
        hub = BucketHub(request.repository, journal) if request.bucket else Hub(request.repository, request.revision)
        user = hub.log_in()
        say(f"as {user}, to {hub.page}" + ("" if request.revision == "main" else f", branch {request.revision}"))
        hub.create(request.private, request.gated)
        _Push(plan, hub, journal).run()
        return hub.page


class _Push:
    """One push: what is sent, and the commits that name it."""

    def __init__(self, plan: Plan, hub: Hub, journal: Journal) -> None:
        self.plan, self.hub, self.journal, self.request = plan, hub, journal, plan.request
        self.ready: dict[str, Ready] = {}
        self.commits = self.bytes = 0

    def run(self) -> None:
        state = self.hub.state()
        record, readme = self._look(state)
        if self.journal.pull and not self.hub.pull_is_open(self.journal.pull):
            self.journal.open_pull(0)
        self._send(state, record)
        for _ in range(TRIES):
            try:
                self._make_visible(state, record, readme)
                break
            except Moved:
                say("somebody else has changed the repository meanwhile: once more, on its newest state")
                state = self.hub.state()
                record, readme = self._look(state)
            except ObjectsGone as gone:
                self.journal.forget([each.made_of for each in self.ready.values()])
                raise UserError(f"the Hub no longer has what was sent ({gone}): the same command sends it again") from gone
        else:
            raise UserError(f"others change {self.hub.name} all the time: the same command goes on from here")
        self.journal.done()

    def _look(self, state: State) -> tuple[Record, bytes | None]:
        """What earlier pushes put there, and the card."""
        record = Record()
        for name in ("manifest.json", PUBLISHED):
            if name in state.files:
                record.take(name, self.hub.content(name, state.head, self.journal.folder))
        if record.survey not in ("", self.request.survey) and not self.request.overwrite:
            raise UserError(f"{self.hub.name} holds {record.survey}: choose another --repo, or --overwrite")
        readme = self.hub.content("README.md", state.head, self.journal.folder) if "README.md" in state.files else None
        Beside(self.plan.datasets, self.request.format).check(self.request, record, state.files, readme)
        if not self.request.overwrite:
            new = [item for item in self.plan.items if item.path in state.files and item.path not in record.files]
            check_theirs(record, state.files, {item.path: self._etags(item) for item in new}, overwrite=False)
        return record, readme

    def _etags(self, item: Item) -> frozenset[str]:
        """The checksums that a file of the repository may have under a name that no list of files has."""
        if item.shard is not None or item.file is None:
            return self._ours
        content = item.file.read_bytes() if item.bytes <= MOST_BYTES_OF_GIT else None
        return self._ours | (etags_of(content) if content is not None else {item.made_of()})

    @property
    def _ours(self) -> frozenset[str]:
        """Checksums of what was sent: an interrupted push may have committed it, without the list of files."""
        return frozenset(sent.sha256 for sent in self.journal.sent.values())

    def _send(self, state: State, record: Record) -> None:
        """Send what is neither in the repository nor was sent before."""
        known = {made_of: sent for made_of, sent in record.sent.items() if sent.sha256 in set(state.files.values())}
        known |= self.journal.sent
        began, waiting = time.monotonic(), []
        there = self.hub.state(self._where()).files if self.journal.pull else state.files
        for ready in send_all(self.request, self.plan.datasets, self.plan.items, self.hub, self.journal, known, there):
            self.ready[ready.item.path] = ready
            self.bytes += ready.sent_now
            waiting.append(ready)
            if len(waiting) == self.hub.most_files and self._is_long:
                self._commit_some(waiting)
                waiting = []
        seconds = max(time.monotonic() - began, 1e-9)
        new = sum(1 for each in self.ready.values() if each.sent_now)
        rate = f", {human_bytes(self.bytes / seconds)}/s" if self.bytes else ""
        others = "" if new == len(self.ready) else "; the others are there"
        sent = f"{new} of {counted(len(self.ready), 'file')} {'was' if new == 1 else 'were'} sent"
        say(f"{sent} ({human_bytes(self.bytes)}{rate}){others}")

    @property
    def _is_long(self) -> bool:
        """Whether the push takes more than one commit."""
        return len(self.plan.items) + len(Beside.NAMES) > self.hub.most_files

    @property
    def _takes_pulls(self) -> bool:
        return self.request.revision == "main"

    def _where(self) -> str:
        """The branch that commits go to."""
        return f"refs/pr/{self.journal.pull}" if self.journal.pull else self.request.revision

    def _commit_some(self, waiting: Sequence[Ready]) -> None:
        """Name files that were sent, out of sight: what no commit names, the Hub throws away some day."""
        operations: list[Operation] = [each.operation() for each in waiting if each.is_new]
        if operations:
            self._commit(operations, "data")

    def _commit(self, operations: Sequence[Operation], what: str) -> None:
        """One commit, to the pull request where there are many."""
        if pause := self.journal.pause(MOST_COMMITS):
            say(f"{MOST_COMMITS} commits in this hour: the next one in {pause / 60:.0f} minutes, as the Hub asks")
            time.sleep(pause)
        message = f"{self.request.survey}: {what}"
        if self._is_long and self._takes_pulls and not self.journal.pull:
            self.journal.open_pull(self.hub.open_pull(operations, message))
        else:
            where = self._where()
            self.hub.commit(operations, message, where, self.hub.state(where).head)
        self.journal.committed()
        self.commits += 1

    def _make_visible(self, state: State, record: Record, readme: bytes | None) -> None:
        """Bring the branch to what it shall be, in one step that others see."""
        beside = Beside(self.plan.datasets, self.request.format).made(
            self.request,
            [self.ready[item.path] for item in self.plan.items],
            record,
            readme,
            state.files.get("README.md", ""),
        )
        beside = self.hub.completed(beside, {path: ready.etag for path, ready in self.ready.items()})
        wanted = {path: frozenset({ready.etag}) for path, ready in self.ready.items()}
        wanted |= {path: etags_of(content) for path, content in beside.items()}
        ours = self._ours
        checked = {path: etags | ours for path, etags in wanted.items() if path != "README.md"}
        check_theirs(record, state.files, checked, self.request.overwrite)
        goal = _Goal(wanted, self._gone(state, record, wanted))
        if not self._is_long:
            operations = self._missing(goal, state, beside)
            if operations:
                self._wait_and_commit(operations, state.head)
            self._say_done(len(operations))
            return
        self._fill(goal, beside)
        if self.journal.pull:
            number = self.journal.pull
            try:
                self.hub.merge(number)
            except Moved:
                self.hub.close_pull(number)
                self.journal.open_pull(0)
                raise
        self._say_done(1)

    def _wait_and_commit(self, operations: Sequence[Operation], head: str) -> None:
        if pause := self.journal.pause(MOST_COMMITS):
            time.sleep(pause)
        self.hub.commit(operations, f"{self.request.survey}: data and card", self.request.revision, head)
        self.journal.committed()
        self.commits += 1

    def _fill(self, goal: _Goal, beside: Mapping[str, bytes]) -> None:
        """Commit all that a pull request, or a branch, lacks; card and list in the last commit."""
        for _ in range(TRIES):
            state = self.hub.state(self._where())
            operations = self._missing(goal, state, beside)
            if not operations:
                return
            last = [each for each in operations if each.path_in_repo in beside]
            data = [each for each in operations if each.path_in_repo not in beside]
            for start in range(0, len(data), self.hub.most_files):
                self._commit(data[start : start + self.hub.most_files], "data")
            if last:
                self._commit(last, "card and list of files")
        raise UserError(f"{self.hub.name} does not come to what it shall be: the same command goes on from here")

    def _missing(self, goal: _Goal, state: State, beside: Mapping[str, bytes]) -> list[Operation]:
        """What a branch lacks, and what it has too much."""
        operations: list[Operation] = []
        for path, etags in goal.wanted.items():
            if state.files.get(path) not in etags:
                content = beside.get(path)
                operations.append(self.ready[path].operation() if content is None else CommitOperationAdd(path, content))
        gone = {path for path in goal.gone if path in state.files}
        ours = self._ours  # by this push, before the build changed
        gone |= {path for path, etag in state.files.items() if etag in ours and path.startswith("data/")}
        return [*operations, *(CommitOperationDelete(path) for path in sorted(gone - goal.wanted.keys()))]

    def _gone(self, state: State, record: Record, wanted: Iterable[str]) -> list[str]:
        """Files of earlier pushes that are none of this one's; what others changed stays."""
        ours = [path for path, etag in record.files.items() if state.files.get(path) == etag] + record.own
        return [path for path in ours if path not in set(wanted)]

    def _say_done(self, operations: int) -> None:
        if operations:
            rows = sum(ready.rows for ready in self.ready.values())
            say(f"{self.hub.page}: {len(self.ready)} files and the card" + (f", {rows:,} rows" if rows else ""))
        else:
            say(f"{self.hub.page} is up to date")


@dataclass(frozen=True)
class _Goal:
    """Checksums that the files of a branch shall have, by path, and the files that shall not be there."""

    wanted: Mapping[str, frozenset[str]]
    gone: Sequence[str]
