"""An HTTP server on 127.0.0.1 that runs while a ``with`` block does: what all simulated archives have in common."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from skyset.errors import UserError


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up in the middle are part of the game: no traceback."""


class Loopback:
    """Answers on 127.0.0.1 while the ``with`` block runs.

    Args:
        handler: answers one connection.
        port: 0 takes any free one.

    Raises:
        UserError: the port is another's.

    Attributes:
        host: address of the server, without a slash at its end.
        closing: set once the block ends, for answers that wait.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], port: int = 0) -> None:
        self.closing = threading.Event()
        try:
            self._http = _Http(("127.0.0.1", port), handler)
        except (OSError, OverflowError) as error:
            raise UserError(
                f"cannot serve at port {port}: {getattr(error, 'strerror', '') or error}; --port 0 takes any free one"
            ) from error
        self.host = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        # The pause between two looks at the shutdown flag is what closing costs.
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
