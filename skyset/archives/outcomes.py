"""What a request to a service may end in, other than the answer hoped for."""

from skyset.errors import SkysetError


class Refused(SkysetError):
    """A final no; `status` is the HTTP status, None if the words came with a 200."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class Passing(SkysetError):
    """A failure that a later try may not meet; `pause` is the number of seconds that the service asked for."""

    def __init__(self, reason: str, pause: float | None = None, status: int | None = None) -> None:
        super().__init__(reason)
        self.pause = pause
        self.status = status
