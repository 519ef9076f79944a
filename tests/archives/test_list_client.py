"""Lists of cutouts and PSFs, asked of a service with faults."""

import io
import threading
import time

import pytest
import requests
from astropy.io import fits

from skyset.archives.das import IMAGES, Cut, ListRequest, cutouts, psfs
from skyset.archives.list_client import ListClient, Stopped
from skyset.errors import RecordError, UserError
from skyset.secrets import remember
from skyset.testing.hsc import CUTOUT, HscArchive
from skyset.testing.hsc_blobs import BlobSky
from skyset.testing.server import RawServer

SMALL = Cut("pdr2_wide", 2 / 3600, 2 / 3600)
SKY = BlobSky(8, seed=5)
POSITIONS = list(zip(SKY.table["ra"].tolist(), SKY.table["dec"].tolist(), strict=True))


@pytest.fixture
def server():
    with HscArchive(SKY) as server:
        remember(server.url, ("user", "pass"))
        yield server


def ask(server, request=None, **options):
    """What came, by row, and the answer."""
    found = {}
    with ListClient(backoff=0.01, **options) as client:
        answered = client.ask(request or cutouts(server.url, POSITIONS, "i", SMALL), found.__setitem__)
    return found, answered


def filters(found):
    return {row: fits.getheader(io.BytesIO(data))["FILTER"] for row, data in found.items()}


def test_every_row_is_answered_with_its_own_cutout(server):
    found, answered = ask(server)
    assert answered == ((), {}, {}, 1)
    assert sorted(found) == list(range(8))
    for row, data in found.items():
        sent = fits.getdata(io.BytesIO(data), 1)
        assert sent.shape in {(height, width) for height in (24, 25) for width in (24, 25)}
        ra, dec = (repr(value) for value in POSITIONS[row])
        asked = {"ra": ra, "dec": dec, "sw": "2asec", "sh": "2asec", "filter": "HSC-I", "image": "on", "rerun": "pdr2_wide"}
        assert requests.get(server.url + CUTOUT, asked, auth=("user", "pass"), timeout=10).content == data


def test_psfs_too_south_of_the_equator(server):
    server.sky = BlobSky(3, centre=(30.6, -6.3))
    positions = list(zip(server.sky.table["ra"].tolist(), server.sky.table["dec"].tolist(), strict=True))
    found, answered = ask(server, psfs(server.url, positions, "y", SMALL))
    assert sorted(found) == [0, 1, 2] and answered.absent == ()
    assert fits.getdata(io.BytesIO(found[0])).shape == (41, 41)


def test_what_there_is_no_data_of_is_absent(server):
    server.fault("missing", f"{POSITIONS[2][0]:.16e}")
    server.fault("missing", f"{POSITIONS[7][0]:.16e}")
    found, answered = ask(server)
    assert answered == ((2, 7), {}, {}, 1) and sorted(found) == [0, 1, 3, 4, 5, 6]


def test_an_empty_tar_is_no_data_at_all(server):
    server.fault("empty")
    found, answered = ask(server)
    assert found == {} and answered.absent == tuple(range(8))


@pytest.mark.parametrize("kind", ["503", "429", "500", "502", "html", "mute", "hang", "cut", "short"])
def test_what_passes_is_asked_again_and_only_for_what_is_missing(server, kind):
    server.fault(kind, times=2)
    server.streams = 3  # one that is given up is one of them until the service sees that nobody listens
    found, answered = ask(server, silence=1 if kind in ("mute", "hang") else 60)
    assert answered == ((), {}, {}, 3) and sorted(found) == list(range(8))
    assert set(filters(found).values()) == {"i"}
    lines = [request.list.count("\n") - 1 for request in server.requests if request.list]
    if kind in ("hang", "cut", "short"):
        assert lines == [8, 4, 2]  # what came is not asked for again
    assert server.images == 8


def test_retry_after_is_followed(server):
    server.fault("503", times=1, retry_after=1)
    start = time.monotonic()
    ask(server)
    assert time.monotonic() - start >= 1


def test_a_service_that_is_down_is_one_line(server):
    server.fault("503")
    with pytest.raises(
        UserError, match=r"could not be asked for cutouts of band i: 503 .*\(3 tries\); the same command goes on"
    ):
        ask(server, retries=2)


def test_a_wrong_password_is_one_line_and_is_not_in_it(server):
    remember(server.url, ("user", "wr0ng-password"))
    with pytest.raises(UserError, match="does not take the account: 401") as caught:
        ask(server)
    assert "wr0ng" not in str(caught.value)
    assert len(server.requests) == 1


def test_words_of_the_service_that_repeat_the_password_are_shown_without_it():
    body = "user me with password secret is not known"
    answer = f"HTTP/1.1 401 No\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    with RawServer.saying(answer) as server:
        remember(server.url, ("me", "secret"))
        with pytest.raises(UserError, match=r"password \*\*\* is not known"):
            ask(server, cutouts(server.url, POSITIONS, "i", SMALL))


def test_a_line_that_the_service_refuses_is_taken_out_with_its_words(server):
    server.fault("line", f"{POSITIONS[3][0]:.16e}")
    found, answered = ask(server)
    assert sorted(found) == [0, 1, 2, 4, 5, 6, 7]
    assert answered.refused == {3: "400 Bad Request: line 5: the position cannot be used"}


def test_a_list_that_is_refused_as_a_whole_is_one_line(server):
    server.fault("refused")
    with pytest.raises(UserError, match="refuses the list: 400 Bad Request"):
        ask(server)
    assert len(server.requests) == 1
    server.clear()
    with pytest.raises(UserError, match="refuses the list: 400 Bad Request: too many images: 1200"):
        ask(
            server,
            ListRequest(
                "cutout", server.url + CUTOUT, "i", *headed(cutouts(server.url, POSITIONS, "i", SMALL), 150), 1 << 20
            ),
        )


def headed(request, times):
    return request.header, request.lines * times


def test_a_rerun_that_is_unknown_is_refused_after_a_few_lines(server):
    with pytest.raises(UserError, match=r"refuses 21 lines of a list: .*unknown rerun"):
        ask(server, cutouts(server.url, POSITIONS * 4, "i", Cut("pdr9", 2 / 3600, 2 / 3600)))


def test_a_foreign_member_is_left_out_by_name(server):
    said = []
    server.fault("foreign", times=1)
    found, answered = ask(server, say=said.append)
    assert sorted(found) == list(range(8)) and answered == ((), {}, {}, 1)
    assert len(said) == 1 and "somebody-elses.fits, which no line of the list asked for" in said[0]


def test_what_is_missing_beside_a_foreign_member_is_asked_for_again_before_it_is_believed(server):
    server.fault("foreign")
    server.fault("missing", f"{POSITIONS[1][0]:.16e}")
    found, answered = ask(server)
    assert answered.absent == (1,) and len(found) == 7
    assert answered.tries == 2  # the second answer, for one line without data, has no members at all


def test_nothing_but_foreign_members_says_nothing_of_the_rows(server):
    server.fault("others")
    found, answered = ask(server)
    assert not found and answered.absent == () and sorted(answered.bad) == list(range(8))
    assert set(answered.bad.values()) == {f"the answer has nothing but others' files, such as {answered.bad[0].split()[-1]}"}
    assert answered.bad[0].endswith("somebody-elses-0.fits")


def test_files_that_cannot_be_used_are_asked_for_again_twice(server):
    def check(request, data):
        if len(data) < 10_000:
            raise RecordError("too short")

    server.fault("truncated", f"{POSITIONS[1][0]:.16e}", times=2)
    found, answered = ask(server, check=check)
    assert sorted(found) == list(range(8)) and answered == ((), {}, {}, 3)
    server.fault("truncated", f"{POSITIONS[1][0]:.16e}")
    server.fault("missing", f"{POSITIONS[4][0]:.16e}")
    found, answered = ask(server, check=check)
    assert answered == ((4,), {}, {1: "too short"}, 3) and len(found) == 6


def test_no_more_lines_than_a_request_may_have():
    assert len(cutouts("http://h", [(1, 2)] * IMAGES, "g", SMALL).lines) == 990
    with pytest.raises(ValueError, match="more than 990"):
        cutouts("http://h", [(1, 2)] * 331, "g", Cut("pdr2_wide", 1, 1, ("image", "mask", "variance")))
    with pytest.raises(ValueError, match="more than 990"):
        psfs("http://h", [(1, 2)] * 991, "g", SMALL)


def test_lists_are_written_as_the_official_client_writes_them():
    request = cutouts("http://h/", [(150.1, -2.25)], "z", Cut("pdr2_dud", 10 / 3600, 5 / 3600, ("image", "variance")))
    assert request.url == "http://h/das_cutout/pdr2/cgi-bin/cutout"
    assert request.text([0]) == (
        "#? rerun filter ra dec sw sh image mask variance\n"
        "pdr2_dud HSC-Z 1.5009999999999999e+02deg -2.2500000000000000e+00deg "
        "2.7777777777777779e-03deg 1.3888888888888889e-03deg true false true\n"
    )
    assert cutouts("h", [(1, 2)], "g", Cut("any", 1, 1, type="coadd/bg")).text([0]).endswith("true false false coadd/bg\n")
    assert psfs("http://h", [(1, 2)], "g", SMALL).text([0]) == (
        "#? rerun type filter tract patch ra dec centered\n"
        "pdr2_wide coadd HSC-G auto auto 1.0000000000000000e+00deg 2.0000000000000000e+00deg true\n"
    )


def test_stop_ends_what_is_being_asked(server):
    server.fault("mute")
    client = ListClient()
    threading.Timer(0.2, client.stop).start()
    start = time.monotonic()
    with client, pytest.raises(Stopped):
        client.ask(cutouts(server.url, POSITIONS, "i", SMALL), print)
    assert time.monotonic() - start < 60  # of 600


def test_a_moved_service_is_one_line():
    answer = "HTTP/1.1 301 Moved\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n"
    with RawServer.saying(answer) as server, pytest.raises(UserError, match="no cutout service at"):
        ask(server, cutouts(server.url, POSITIONS, "i", SMALL))
