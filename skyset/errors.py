"""The ways in which things go wrong, and who has to act. Whatever skyset raises on purpose is a `SkysetError`."""

from skyset.messages import plain


class SkysetError(Exception):
    """Base of every exception of skyset's own. Its text is one line without secrets or control characters."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(plain(_last_line(each)) if isinstance(each, str) else each for each in args))

    def __str__(self) -> str:
        return plain(super().__str__())


def _last_line(text: str) -> str:
    """What a ``DataLoader`` makes of the error of a worker, without its traceback, which would leave no room."""
    if "\nOriginal Traceback" not in text:
        return text
    lines = text.strip().splitlines()
    return f"{lines[0]} {lines[-1]}"


class UserError(SkysetError):
    """What was asked for cannot be done (unknown survey, no such folder, full disk): one line, exit status 2."""


class MissingPackage(UserError, ImportError):
    """A package that not everybody has is not installed: one line that says how to get it; ``name`` is the package's."""

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name

    def __reduce__(self) -> tuple:
        return type(self), (*self.args, self.name)


class RecordError(SkysetError):
    """One object of the archive cannot be used: it goes to ``rejected.csv`` and the build goes on."""


class PartitionError(SkysetError):
    """A partition file is missing, damaged, or not what the manifest says; the message names it."""
