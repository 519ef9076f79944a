"""The ways in which things go wrong, and who has to act. Whatever skyset raises on purpose is a `SkysetError`."""

from skyset.messages import plain


class SkysetError(Exception):
    """Base of every exception of skyset's own. Its text is one line without secrets or control characters."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(plain(each) if isinstance(each, str) else each for each in args))

    def __str__(self) -> str:
        return plain(super().__str__())


class UserError(SkysetError):
    """What was asked for cannot be done (unknown survey, no such folder, full disk): one line, exit status 2."""


class RecordError(SkysetError):
    """One object of the archive cannot be used: it goes to ``rejected.csv`` and the build goes on."""


class PartitionError(SkysetError):
    """A partition file is missing, damaged, or not what the manifest says; the message names it."""
