"""The simulated job API behind a small HTTP server, and a sky of a few objects for it."""

from http.server import BaseHTTPRequestHandler

import numpy as np

from skyset.testing.hsc_jobs import Jobs
from skyset.testing.loopback import Loopback

LOGIN = ("astronomer", "Milky Way, 4!")
PATH = "/datasearch/api/catalog_jobs/"


class Sky:
    """Objects with ids of 17 digits; columns as given, or of a good galaxy."""

    def __init__(self, count=12, **columns):
        number = np.arange(count)
        made = {
            "object_id": 36407053045309821 + number,
            "ra": 30.1 + number / 10,
            "dec": -6.5 + number / 10,
            "coord": np.array([f"(0.{n}, 0.5, -0.11)" for n in number]),
            "skymap_id": 84350603 + number,
            "specz_redshift": 0.1 + number / 10,
            "specz_redshift_err": np.full(count, 0.0001),
            "specz_mag_i": np.full(count, 20.5),
            "specz_name": np.array([f"SDSS-DR14-{n}" for n in number]),
            "specz_ra": 30.1 + number / 10,
            "specz_dec": -6.5 + number / 10,
            "specz_flag_homogeneous": np.ones(count, bool),
            **{f"{band}_cmodel_mag": np.full(count, 21.3, np.float32) + number.astype(np.float32) / 16 for band in "grizy"},
            **{f"{band}_cmodel_magsigma": np.full(count, 0.01, np.float32) for band in "grizy"},
        }
        self.columns = made | columns

    def catalogue(self):
        return self.columns


class JobsServer(Loopback):
    """``Jobs`` on 127.0.0.1 while the ``with`` block runs.

    Attributes:
        url: of the archive.
        jobs: the service.
        redirects: address by action, answered with 307 (or the status given beside it).
        headers: those of every request.
        wait: an event without which no answer is given, by action.
    """

    def __init__(self, sky=None, **options):
        self.jobs = Jobs(sky or Sky(), **{"login": LOGIN, "queue": ()} | options)
        self.redirects, self.headers, self.wait = {}, [], {}
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.headers.append(dict(self.headers))
                action = self.path.removeprefix(PATH)
                if action in server.redirects:
                    status, headers, body = 307, {"Location": server.redirects[action]}, b"moved"
                else:
                    status, headers, body = server.jobs.answer(action, body)
                if event := server.wait.get(action):
                    event.wait(20)
                self.send_response(status)
                headers = {"Content-Length": str(len(body))} | headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                self.close_connection |= int(headers["Content-Length"]) != len(body)

            def log_message(self, *_):
                pass

        super().__init__(Handler)
        self.url = self.host
