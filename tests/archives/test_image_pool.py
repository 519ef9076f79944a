"""Checks of images; a pool that gets all of them once through every fault; addresses of cutouts."""

import gzip
import io
import itertools
import json
import socket
import threading
import time
import tracemalloc
import zlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from skyset.archives import fetch, pacing
from skyset.archives.hips import MIRROR, SERVICE, field_of_view, hips2fits_url
from skyset.archives.image_pool import ImagePool, ImageRequest
from skyset.archives.pacing import Hosts, Schedule
from skyset.errors import UserError
from skyset.pixels import ImageError, check_image, decode
from skyset.testing.hips import ERROR_PAGE, HIPS, Hips, HipsServer, draw, encode
from skyset.testing.server import RawServer
from tests.processes import wait_for

PIXELS = draw(150.0, 2.0, 0.01, 64, 64)


def jpg(pixels=PIXELS, **options):
    return picture(Image.fromarray(pixels), "JPEG", **options)


def picture(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def fits_file(pixels, **cards):
    hdu = fits.PrimaryHDU(pixels)
    hdu.header.update(cards)
    file = io.BytesIO()
    hdu.writeto(file)
    return file.getvalue()


# --- addresses ----------------------------------------------------------------------------------------------


def test_address_of_a_cutout():
    fov = field_of_view(10.0)
    assert fov == 2 * 10 * 1.25 / 3600
    url = hips2fits_url(SERVICE, HIPS, 180.1234567890123, -0.1, fov)
    assert url.startswith("https://alasky.cds.unistra.fr/hips-image-services/hips2fits?hips=CDS%2FP%2FSDSS9%2Fcolor&")
    query = {name: value for name, (value,) in parse_qs(urlsplit(url).query).items()}
    assert float(query["ra"]) == 180.1234567890123 and float(query["fov"]) == fov
    assert query == {
        "hips": HIPS,
        "width": "64",
        "height": "64",
        "projection": "TAN",
        "fov": repr(fov),
        "ra": "180.1234567890123",
        "dec": "-0.1",
        "coordsys": "icrs",
        "format": "jpg",
    }
    assert hips2fits_url(SERVICE, HIPS, np.float64(180.1234567890123), -0.1, np.float64(fov), np.int64(64)) == url


@pytest.mark.parametrize(
    "change",
    [
        {"base": "alasky"},
        {"base": SERVICE + "?x=1"},
        {"hips": ""},
        {"format": "gif"},
        {"width": 0},
        {"width": 2.5},
        {"height": 10**6, "width": 10**6},
        {"projection": "T&N"},
    ],
)
def test_what_cannot_be_asked_for(change):
    with pytest.raises(UserError):
        hips2fits_url(**{"base": MIRROR, "hips": HIPS, "ra": 1, "dec": 2, "fov": 0.01, **change})


@pytest.mark.parametrize("change", [{"ra": float("nan")}, {"ra": -1}, {"dec": 91}, {"fov": 0}, {"fov": float("inf")}])
def test_positions_that_are_none(change):
    with pytest.raises(ValueError):
        hips2fits_url(**{"base": MIRROR, "hips": HIPS, "ra": 1, "dec": 2, "fov": 0.01, **change})


@pytest.mark.parametrize("arguments", [(0,), (-1,), (float("nan"),), (1, -0.1), (1, float("nan"))])
def test_radii_that_are_none(arguments):
    with pytest.raises(ValueError):
        field_of_view(*arguments)


# --- what an image is ---------------------------------------------------------------------------------------


def test_real_cutouts_pass(real):
    paths = sorted(real("sdss/skyserver_jpegs").glob("*/*.jpg"))
    assert len(paths) == 15
    for path in paths:
        check_image(path.read_bytes(), "jpg", 120, 120)
        assert decode(path.read_bytes(), "jpg").shape == (120, 120, 3)


def test_a_real_bmp_named_jpeg_does_not(real):
    with pytest.raises(ImageError, match="the answer is BMP, not JPEG"):
        check_image(real("sdss/bmp_named_jpeg.jpeg").read_bytes(), "jpg", 256, 256)


def half_transparent():
    alpha = np.full((64, 64, 1), 255, np.uint8)
    alpha[:32] = 0
    return np.concatenate([PIXELS, alpha], -1)


@pytest.mark.parametrize(
    "data, expected",
    [
        (picture(Image.fromarray(PIXELS), "PNG"), PIXELS),
        (picture(Image.fromarray(PIXELS[..., 0]), "PNG"), np.repeat(PIXELS[..., :1], 3, -1)),
        (picture(Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), "PNG"), np.repeat(PIXELS[..., :1], 3, -1)),
        (picture(Image.fromarray(half_transparent()), "PNG"), PIXELS * (np.arange(64) >= 32)[:, None, None]),
        (picture(Image.fromarray(PIXELS // 128 * 255).quantize(8), "PNG"), PIXELS // 128 * 255),
        (picture(Image.fromarray(PIXELS[..., 0] > 50), "PNG"), np.repeat(PIXELS[..., :1] > 50, 3, -1) * 255),
    ],
    ids=["rgb", "grey", "16 bits", "transparent", "palette", "1 bit"],
)
def test_png_pixels(data, expected):
    pixels = decode(data, "png")
    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def test_jpg_pixels():
    pixels = decode(jpg(quality=95), "jpg")
    assert (pixels.dtype, pixels.shape, pixels.flags.writeable) == (np.uint8, (64, 64, 3), True)
    assert np.abs(pixels.astype(int) - PIXELS).mean() < 8
    grey = decode(jpg(PIXELS[..., 0]), "jpg")
    assert grey.shape == (64, 64, 3) and (grey[..., 0] == grey[..., 2]).all()


@pytest.mark.parametrize("dtype", ["u1", "i2", "i4", "i8", "f4", "f8"])
def test_fits_pixels_have_the_north_first(dtype):
    stored = np.arange(12).reshape(3, 4).astype(dtype)
    pixels = decode(fits_file(stored), "fits")
    assert pixels.dtype == np.dtype("=f4")
    np.testing.assert_array_equal(pixels, stored[::-1])
    planes = np.arange(24).reshape(3, 2, 4).astype(dtype)
    np.testing.assert_array_equal(decode(fits_file(planes), "fits"), np.moveaxis(planes, 0, -1)[::-1])


def test_fits_scaling_as_astropy_does_it():
    stored = np.arange(12, dtype="i2").reshape(3, 4)
    data = fits_file(stored, BSCALE=0.5, BZERO=10.0, BLANK=3)
    np.testing.assert_array_equal(decode(data, "fits"), fits.getdata(io.BytesIO(data)).astype("f4")[::-1])
    assert np.isnan(decode(data, "fits")).sum() == 1


def test_both_kinds_show_the_same_sky():
    south, north = decode(encode(PIXELS, "fits", 64, 64), "fits"), decode(encode(PIXELS, "png", 64, 64), "png")
    np.testing.assert_array_equal(south, north)


def bomb():
    """A PNG of 60,000 x 60,000 pixels in few bytes."""
    data = bytearray(picture(Image.new("RGB", (1, 1)), "PNG"))
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


REFUSED = {
    "page": (ERROR_PAGE, "jpg", "the answer is an HTML page", True),
    "page after blanks": (b"\xef\xbb\xbf\r\n  <HTML><body>", "jpg", "the answer is an HTML page", True),
    "json": (b'{"title": "Bad request", "description": "no such HiPS"}', "jpg", "JSON: Bad request: no such HiPS", True),
    "broken json": (b'{"title": "Bad', "jpg", 'JSON: {"title": "Bad', True),
    "xml": (b"<?xml version='1.0'?><VOTABLE/>", "jpg", "an XML document", True),
    "empty": (b"", "jpg", "the answer is empty", True),
    "noise": (bytes(range(1, 99)), "jpg", "no image", True),
    "bmp": (picture(Image.fromarray(PIXELS), "BMP"), "jpg", "the answer is BMP, not JPEG", True),
    "png for jpg": (picture(Image.fromarray(PIXELS), "PNG"), "jpg", "the answer is PNG, not JPEG", True),
    "jpg for png": (jpg(), "png", "the answer is JPEG, not PNG", True),
    "gzip": (gzip.compress(jpg()), "jpg", "the answer is gzip, not JPEG", True),
    "half": (jpg()[:800], "jpg", "truncated JPEG", True),
    "without the end": (jpg()[:-2], "jpg", "truncated JPEG", True),
    "beginning with an end": (jpg()[:400] + b"\xff\xd9", "jpg", "damaged JPEG", True),
    "half png": (picture(Image.fromarray(PIXELS), "PNG")[:800], "png", "truncated PNG", True),
    "size": (jpg(PIXELS[:32]), "jpg", "64 x 32 pixels, not 64 x 64", False),
    "black": (jpg(np.zeros_like(PIXELS)), "jpg", "blank", False),
    "grey": (jpg(np.full_like(PIXELS, 77)), "jpg", "blank", False),
    "transparent": (picture(Image.new("RGBA", (64, 64), (9, 9, 9, 0)), "PNG"), "png", "blank", False),
    "bomb": (bomb, "png", "more than 50,000,000 pixels", False),
    "NaN": (encode(None, "fits", 64, 64), "fits", "blank", False),
    "zero": (fits_file(np.zeros((64, 64), "f4")), "fits", "blank", False),
    "half fits": (fits_file(np.ones((64, 64), "f4"))[:9000], "fits", "truncated FITS", True),
    "fits without end": (fits_file(np.ones((64, 64), "f4"))[:80], "fits", "damaged FITS", True),
    "table": (fits_file(None), "fits", "not an image", False),
    "huge axes": (
        fits_file(np.ones((64, 64), "f4")).replace(b"NAXIS1  =                   64", b"NAXIS1  =           6400000000"),
        "fits",
        "more than",
        False,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_the_image(case):
    data, kind, reason, passing = REFUSED[case]
    with pytest.raises(ImageError) as caught:
        check_image(data() if callable(data) else data, kind, 64, 64)
    assert reason in caught.value.reason
    assert caught.value.passing is passing


def test_faint_sky_is_not_blank():
    sky = np.random.default_rng(0).normal(12, 2, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    check_image(jpg(sky, quality=60), "jpg", 64, 64)
    check_image(jpg() + b"\0\n", "jpg", 64, 64)  # padding after the end
    noise = np.random.default_rng(0).normal(0, 1e-12, (64, 64)).astype("f4")
    check_image(fits_file(noise), "fits", 64, 64)


@given(position=st.floats(0, 1), change=st.integers(1, 255), kind=st.sampled_from(["jpg", "png", "fits"]), cut=st.booleans())
@settings(max_examples=150, deadline=None)
def test_damaged_images_never_raise_anything_else(position, change, kind, cut):
    data = bytearray(encode(PIXELS[:8, :8], kind, 8, 8))
    place = min(int(position * len(data)), len(data) - 1)
    data[place] ^= change
    try:
        check_image(bytes(data[:place] if cut else data), kind, 8, 8)
    except ImageError as error:
        assert "\n" not in error.reason


# --- the pool -----------------------------------------------------------------------------------------------


def pool(**changes):
    options = {"connections": 4, "backoff": 0.01, "check": lambda data: check_image(data, "jpg", 32, 32), **changes}
    return ImagePool(**options)


def requests_for(count, *servers, dec=2.0):
    for number in range(count):
        urls = tuple(hips2fits_url(server.url, HIPS, 100 + number, dec, 0.01, 32, 32) for server in servers)
        yield ImageRequest(f"k{number}", urls)


def asked(server, number):
    return sum(f"ra={100 + number}.0" in query for query in server.requests)


def only(answers):
    (answer,) = answers
    return answer


def test_every_image_once():
    with HipsServer() as server:
        answers = list(pool().run(requests_for(200, server)))
    assert sorted(answer.key for answer in answers) == sorted(f"k{number}" for number in range(200))
    assert {(answer.status, answer.tries, answer.reason) for answer in answers} == {(200, 1, None)}
    by_key = {answer.key: answer.data for answer in answers}
    assert by_key["k7"] == encode(draw(107.0, 2.0, 0.01, 32, 32), "jpg", 32, 32)
    assert len(server.requests) == 200
    assert server.connections <= 4 >= server.max_concurrent


@pytest.mark.parametrize("kind", ["500", "503", "429", "408", "cut", "truncated", "html", "json", "empty", "bmp", "png"])
def test_passing_faults(kind):
    with HipsServer() as server:
        server.hips.fault(kind, "ra=101.0", times=2)
        answers = {answer.key: answer for answer in pool().run(requests_for(3, server))}
    assert [answers[f"k{number}"].tries for number in range(3)] == [1, 3, 1]
    assert all(answer.data and answer.status == 200 for answer in answers.values())


REASONS = {
    "404": (1, 404, "404 Not Found"),
    "403": (1, 403, "403 Forbidden"),
    "blank": (1, 200, "the image is blank"),
    "size": (1, 200, "the image has 64 x 32 pixels, not 32 x 32"),
    "bmp": (3, 200, "the answer is BMP, not JPEG, 3 tries"),
    "html": (3, 200, "the answer is an HTML page, 3 tries"),
    "500": (6, 500, "500 Internal Server Error, 6 tries"),
    "cut": (6, None, None),
    "truncated": (3, 200, None),
}


@pytest.mark.parametrize("kind", REASONS)
def test_lasting_faults(kind):
    tries, status, reason = REASONS[kind]
    with HipsServer() as server:
        server.hips.fault(kind, "ra=101.0")
        answers = {answer.key: answer for answer in pool().run(requests_for(3, server))}
        assert asked(server, 1) == tries
    assert answers["k0"].data and answers["k2"].data and answers["k1"].data is None
    assert (answers["k1"].tries, answers["k1"].status) == (tries, status)
    assert answers["k1"].reason == reason or (reason is None and answers["k1"].reason.endswith(f", {tries} tries"))


def test_outside_of_the_footprint_and_what_the_service_says():
    with HipsServer() as server:
        answer = only(pool().run(requests_for(1, server, dec=-30.0)))
        assert (answer.reason, answer.tries) == ("the image is blank", 1)
        wrong = ImageRequest("w", (hips2fits_url(server.url, "CDS/P/nothing", 1, 2, 0.01, 32, 32),))
        assert only(pool().run([wrong])).reason == "404 Not Found: HiPS not found: no HiPS is known as CDS/P/nothing"
        bare = ImageRequest("b", (server.url + "?hips=x",))
        assert only(pool().run([bare])).reason.startswith("400 Bad Request: Bad request: missing parameter: width")


def test_addresses_that_cannot_be_asked():
    for url in ("nonsense", "http://", "http://127.0.0.1:99999/", "ftp://127.0.0.1/x", "http://[::1/"):
        answer = only(pool().run([ImageRequest("a", (url,))]))
        assert (answer.tries, answer.data, answer.status) == (1, None, None) and answer.reason, url
    with pytest.raises(ValueError, match="no address"):
        list(pool().run([ImageRequest("a", ())]))


@pytest.mark.parametrize("kind", ["hang", "mute"])
def test_silence_ends(kind):
    with HipsServer() as server:
        server.hips.fault(kind, times=1)
        answer = only(pool(timeout=(5, 1.5)).run(requests_for(1, server)))
    assert answer.data and answer.tries == 2


@pytest.mark.parametrize("kind", ["drip", "slow-head"])
def test_drips_end(kind):
    with HipsServer() as server:
        server.hips.fault(kind, times=1)
        answer = only(pool(total=1.5).run(requests_for(1, server)))
        assert answer.data and answer.tries == 2
        server.hips.fault(kind)
        assert only(pool(total=0.3, retries=0).run(requests_for(1, server))).reason == "not complete after 0.3 s"


def test_too_large():
    with HipsServer() as server:
        answer = only(pool(max_bytes=100).run(requests_for(1, server)))
    assert (answer.reason, answer.tries) == ("more than the 100 bytes allowed", 1)


def test_chaos_loses_nothing():
    kinds = ["500", "429", "cut", "truncated", "html", "json", "empty", "bmp", "png"]
    with HipsServer() as server, HipsServer() as mirror:
        server.hips.chaos(1, 0.3, kinds)
        mirror.hips.chaos(2, 0.3, kinds)
        answers = list(pool(connections=8, retries=20).run(requests_for(150, server, mirror)))
        assert Counter(answer.key for answer in answers) == Counter(f"k{number}" for number in range(150))
        assert all(answer.data for answer in answers)
        assert sum(answer.tries for answer in answers) == len(server.requests) + len(mirror.requests) > 180


# --- mirrors ------------------------------------------------------------------------------------------------


def test_a_mirror_has_the_second_say():
    with HipsServer() as server, HipsServer() as mirror:
        server.hips.fault("404", "ra=101.0")
        server.hips.fault("blank", "ra=102.0")
        mirror.hips.fault("blank", "ra=102.0")
        answers = {answer.key: answer for answer in pool(backoff=5).run(requests_for(4, server, mirror))}
        assert answers["k1"].data and answers["k1"].tries == 2 and answers["k1"].url.startswith(mirror.url)
        assert (answers["k2"].reason, answers["k2"].tries) == ("the image is blank, 2 tries", 2)
        assert (asked(mirror, 0), asked(mirror, 1), asked(mirror, 2), asked(mirror, 3)) == (0, 1, 1, 0)


def dead():
    """An address that refuses connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    class Dead:
        url = f"http://127.0.0.1:{port}/hips2fits"

    return Dead


@pytest.mark.parametrize("kind", ["refused", "mute"])
def test_a_dead_service_costs_little(kind):
    with HipsServer() as server, HipsServer() as mirror:
        server.hips.fault("mute")
        first = server if kind == "mute" else dead()
        start = time.monotonic()
        answers = list(pool(timeout=(5, 1.5 if kind == "mute" else 60), backoff=1).run(requests_for(100, first, mirror)))
        assert time.monotonic() - start < 20  # a hundred times 1.5 s, four at a time, take 37
        assert all(answer.data for answer in answers) and len(answers) == 100
        assert sum(answer.tries == 2 for answer in answers) <= 5 + 4


def test_a_service_that_is_down_is_not_asked_for_ever():
    start = time.monotonic()
    answers = []
    with pytest.raises(UserError, match="20 images in a row could not be had from 127"):
        answers.extend(pool(retries=1, give_up=20).run(requests_for(10_000, dead())))
    assert time.monotonic() - start < 60  # ten thousand take longer
    assert len(answers) == 20


@pytest.mark.parametrize(
    "kind, about_one", [("404", True), ("blank", True), ("size", True), ("403", False), ("html", False)]
)
def test_what_counts_against_a_service(kind, about_one):
    with HipsServer() as server:
        server.hips.fault(kind)
        run = pool(give_up=20).run(requests_for(40, server))
        if about_one:
            assert len(list(run)) == 40
        else:
            with pytest.raises(UserError):
                list(run)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


def test_hosts_rest_longer_each_time():
    clock = Clock()
    hosts, urls = Hosts(clock), ["http://a/1", "http://b/1"]
    for _ in range(pacing.DEAD_AFTER):
        assert hosts.choose(urls) == urls[0]
        hosts.failed(urls[0])
    assert hosts.choose(urls) == urls[1]
    assert hosts.choose(urls[:1]) == urls[0]  # without a mirror there is no choice
    clock.now += pacing.SHORTEST_REST
    assert [hosts.choose(urls) for _ in range(3)] == [urls[0], urls[1], urls[1]]  # one finds out
    hosts.failed(urls[0])
    clock.now += pacing.SHORTEST_REST * 1.9
    assert hosts.choose(urls) == urls[1]
    clock.now += pacing.SHORTEST_REST * 0.2
    assert hosts.choose(urls) == urls[0]
    hosts.answered(urls[0])
    assert [hosts.choose(urls) for _ in range(3)] == [urls[0]] * 3
    hosts.rest(urls[0], 10)
    assert hosts.choose(urls) == urls[1]
    clock.now += 10
    assert hosts.choose(urls) == urls[0]


# --- the rate -----------------------------------------------------------------------------------------------


@given(rate=st.floats(0.1, 1000), steps=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 3)), min_size=1, max_size=60))
@settings(max_examples=100, deadline=None)
def test_schedule(rate, steps):
    """No two starts are closer than the rate says, none is before its time or within a hold, and none waits without need."""
    clock = Clock()
    schedule, starts, hold = Schedule(rate, clock), [], 0.0
    for pause, held in steps:
        clock.now += pause
        if held > 2:
            schedule.hold(held)
            hold = max(hold, clock.now + held)
        start = schedule.reserve()
        earliest = max(clock.now, hold, *(last + 1 / rate for last in starts[-1:]))
        assert start == pytest.approx(earliest, abs=1e-6)
        starts.append(start)
    assert all(b - a >= 1 / rate - 1e-6 for a, b in itertools.pairwise(starts))


def test_rate_over_all_threads():
    with HipsServer() as server:
        start = time.monotonic()
        assert len(list(pool(rate=50, connections=8).run(requests_for(30, server)))) == 30
        assert time.monotonic() - start >= 29 / 50


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_too_many_requests_hold_all_threads_up(form):
    with HipsServer(latency=0.1) as server:
        when = 1 if form == "seconds" else datetime.now(UTC) + timedelta(seconds=2)
        server.hips.fault("429", "ra=100.0", times=1, retry_after=when)
        start = time.monotonic()
        answers = [(time.monotonic() - start, answer) for answer in pool().run(requests_for(40, server))]
        early = [answer for seconds, answer in answers if seconds < 0.9]  # of 36 that nothing would hold up
        assert len(early) <= 16  # those on their way, and what a quick thread began before the answer was there
        assert all(answer.data for _, answer in answers) and len(server.requests) == 41


def test_retry_after_of_a_busy_service_sends_to_the_mirror():
    with HipsServer(latency=0.1) as server, HipsServer() as mirror:
        server.hips.fault("503", times=4, retry_after=100)
        start = time.monotonic()
        answers = list(pool().run(requests_for(40, server, mirror)))
        assert time.monotonic() - start < 50
        assert all(answer.data for answer in answers)
        assert len(server.requests) <= 16 and len(mirror.requests) >= 24


def test_two_busy_services_are_both_left_alone():
    with HipsServer() as server, HipsServer() as mirror:
        for each in (server, mirror):
            each.hips.fault("503", times=1, retry_after=1)
        start = time.monotonic()
        assert all(answer.data for answer in pool(connections=1).run(requests_for(5, server, mirror)))
        assert time.monotonic() - start >= 1
        assert len(server.requests) + len(mirror.requests) == 7


@pytest.mark.parametrize("value, seconds", [("7", 7), ("soon", None), ("-3", None), (None, None)])
def test_retry_after(value, seconds):
    class Response:
        headers = {} if value is None else {"Retry-After": value}

    assert fetch.retry_after(Response) == seconds


# --- ending -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hang", "mute", "drip", "500", "429"])
def test_closing_ends_at_once(kind):
    before = threading.active_count()
    with HipsServer() as server:
        server.hips.fault(kind, "ra=10", retry_after=300)  # not the first one below
        server.hips._faults[0].match = "dec=3.0"
        run = pool(backoff=100).run(itertools.chain(requests_for(1, server), requests_for(50, server, dec=3.0)))
        assert next(run).key == "k0"
        time.sleep(0.3)
        start = time.monotonic()
        run.close()
        assert time.monotonic() - start < 20
        wait_for(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("images-")])
    assert threading.active_count() <= before + 60


def test_an_error_that_nobody_thought_of_refuses_the_image():
    def broken(data):
        raise ZeroDivisionError("one\nof many")

    with HipsServer() as server:
        answers = list(pool(check=broken).run(requests_for(5, server)))
    assert {answer.reason for answer in answers} == {"ZeroDivisionError: one of many, 3 tries"} and len(answers) == 5


def test_an_error_of_the_caller_ends_it():
    with HipsServer() as server, pytest.raises(KeyError):
        list(pool().run(ImageRequest({}["a"], (server.url,)) for _ in range(3)))


def test_requests_are_read_a_few_ahead_in_this_thread():
    taken = []

    def counted():
        for request in requests_for(200, server):
            taken.append(threading.current_thread())
            yield request

    with HipsServer() as server:
        run = pool(connections=2).run(counted())
        for number, _ in enumerate(run, start=1):
            assert len(taken) <= number + 8
    assert set(taken) == {threading.current_thread()}


def test_proxies_of_the_environment(monkeypatch):
    """The environment is looked at once a host, and obeyed."""
    with HipsServer() as server:
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/hips2fits"))
        monkeypatch.setenv("no_proxy", "")
        url = hips2fits_url("http://images.example/hips2fits", HIPS, 100, 2, 0.01, 32, 32)
        assert only(pool().run([ImageRequest("a", (url,))])).data
        monkeypatch.setenv("no_proxy", "images.example")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: (_ for _ in ()).throw(socket.gaierror(-2, "unknown")))
        assert only(pool(retries=0).run([ImageRequest("a", (url,))])).status is None


def test_what_a_pool_cannot_be():
    for options in ({"connections": 0}, {"retries": -1}, {"rate": 0}):
        with pytest.raises(ValueError):
            ImagePool(**options)


# --- the service that the tests use -------------------------------------------------------------------------


def test_galaxies_are_the_same_at_a_position_and_smaller_in_wider_fields():
    np.testing.assert_array_equal(draw(1.5, 2.5, 0.01, 40, 30), draw(1.5, 2.5, 0.01, 40, 30))
    near, far = draw(1.5, 2.5, 0.01, 64, 64), draw(1.5, 2.5, 0.1, 64, 64)
    assert near.mean() > far.mean() > 5
    assert (draw(1.6, 2.5, 0.01, 64, 64) != near).any()


def test_service_without_a_server(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", quality=95)
    query = "hips=CDS%2FP%2FSDSS9%2Fcolor&width=32&height=16&fov=0.01&ra=1&dec=2&projection=TAN&format=png"
    answer = Hips(folder=tmp_path).answer("GET", "/hips2fits", query, {})
    assert (answer.status, answer.headers["Content-Type"]) == (200, "image/png")
    assert decode(answer.body, "png").shape == (16, 32, 3)
    assert Hips().answer("GET", "/elsewhere", query, {}).status == 404
    assert json.loads(Hips().answer("GET", "/hips2fits", "", {}).body)["title"] == "Bad request"
    with pytest.raises(ValueError):
        Hips().fault("no such")


# --- answers that are wrong on purpose ----------------------------------------------------------------------


def told(answer, **options):
    """Why there is no image where a server says this."""
    with RawServer.saying(answer) as server:
        options = {"retries": 1, "backoff": 0.01, "timeout": (2, 2)} | options
        (found,) = ImagePool(1, **options).run([ImageRequest("k", (server.url,))])
    assert found.data is None and found.reason.isprintable()
    return found.reason


@pytest.mark.parametrize(
    "encoding, body, reason",
    [
        ("gzip", gzip.compress(bytes(100 << 20), mtime=0), "more than the 1,000,000 bytes allowed"),
        ("deflate", zlib.compress(bytes(100 << 20)), "more than the 1,000,000 bytes allowed"),
        ("gzip", gzip.compress(bytes(1000), mtime=0)[:-9], "an answer that ends before it is unpacked, 2 tries"),
        ("gzip", b"no gzip", "Error -3 while decompressing data: incorrect header check, 2 tries"),
        ("br", b"x", "an answer in the encoding 'br', which was not asked for, 2 tries"),
        ("\x1b[31m", b"x", r"an answer in the encoding '\x1b[31m', which was not asked for, 2 tries"),
    ],
)
def test_bodies_that_are_packed_unasked_unpack_within_bounds(encoding, body, reason):
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode()
    tracemalloc.start()
    try:
        assert told(head + body, max_bytes=1_000_000) == reason
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("encoding, pack", [("gzip", gzip.compress), ("deflate", zlib.compress), ("identity", bytes)])
def test_bodies_that_are_packed_unasked_are_unpacked(encoding, pack):
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\n\r\n".encode()
    with RawServer.saying(head + pack(b"hello" * 1000)) as server:
        (found,) = ImagePool(1).run([ImageRequest("k", (server.url,))])
    assert found.data == b"hello" * 1000


@pytest.mark.parametrize(
    "answer, reason",
    [
        ("garbage\x1b[31m\r\n\r\n", r"not an HTTP answer: 'garbage\\x1b[31m', 2 tries"),
        ("\r\n", "not an HTTP answer: '', 2 tries"),
        (
            "HTTP/1.1 503 x\r\nRetry-After: Fri, 31 Dec 99999 23:59:59 GMT\r\nContent-Length: 0\r\n\r\n",
            "503 Service Unavailable, 2 tries",
        ),
        ("HTTP/1.1 302 Found\r\nLocation: http://[broken\r\n\r\n", "Invalid IPv6 URL"),
        (
            "HTTP/1.1 302 Found\r\nLocation: \xff\xfe\r\n\r\n",
            "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        ),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n", "read length must be non-negative or -1"),
    ],
)
def test_whatever_the_answer_is_one_image_is_lost(answer, reason):
    assert told(answer) == reason


def test_a_head_without_end_is_given_up():
    def endless(connection):
        while True:
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            time.sleep(0.01)

    with RawServer(endless) as server:
        (found,) = ImagePool(1, retries=0, total=0.3).run([ImageRequest("k", (server.url,))])
    assert found.reason == "not complete after 0.3 s"
