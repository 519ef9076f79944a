"""The three ways in which things go wrong, and who has to act."""


class UserError(Exception):
    """What was asked for cannot be done (unknown survey, no such folder, full disk): one line, exit status 2."""


class RecordError(Exception):
    """One object of the archive cannot be used: it goes to ``rejected.csv`` and the build goes on."""


class PartitionError(Exception):
    """A partition file is missing, damaged, or not what the manifest says; the message names it."""
