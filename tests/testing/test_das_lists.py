"""The grammar of the archive's lists, and what its server answers over HTTP."""

import io
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from astropy.io import fits

from skyset.testing.das_lists import Refusal, angle, flag, read_list
from skyset.testing.hsc import CUTOUT, JOBS, PSF, HscArchive, digest
from skyset.testing.hsc_blobs import BlobSky

SKY = BlobSky(3, seed=1)
RA, DEC = SKY.table["ra"].tolist(), SKY.table["dec"].tolist()
LINES = "#? ra dec filter sw sh\n" + "".join(f"{ra!r} {dec!r} HSC-I 2asec 2asec\n" for ra, dec in zip(RA, DEC, strict=True))


@pytest.fixture
def server():
    with HscArchive(SKY) as server:
        yield server


def post(server, text, path=CUTOUT, auth=("user", "pass"), field="list"):
    files = {field: ("coordlist.txt", text)}
    return requests.post(server.url + path, files=files, auth=auth, timeout=10)


def contents(answer):
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


@pytest.mark.parametrize(
    "text, degrees",
    [("10", 10), ("-2.5e0", -2.5), ("3.6e3asec", 1), ("60arcmin", 1), ("30amin", 0.5), ("7200arcsec", 2), ("1deg", 1),
     ("3.141592653589793rad", 180), ("-00:30:00", -0.5), ("10:15:00.0", 10.25), ("1.5009999999999999e+02deg", 150.1)],
)  # fmt: skip
def test_angles(text, degrees):
    assert angle(text) == pytest.approx(degrees, abs=1e-12)
    assert angle("10:00", hours=True) == 150


@pytest.mark.parametrize("text", ["", "x", "1parsec", "1 deg", "nan", "inf", "1:2:3:4"])
def test_what_is_no_angle(text):
    with pytest.raises(ValueError, match="not an angle"):
        angle(text)


def test_flags():
    assert [flag(text) for text in ("true", "on", "1", "YES", "false", "no", "0")] == [True] * 4 + [False] * 3
    with pytest.raises(ValueError, match="neither"):
        flag("maybe")


def test_columns_come_in_any_order_and_the_address_says_the_rest():
    (line,) = read_list(
        "#? dec filter ra\n-2 z 1:00:00\n", {"sw": "10asec", "sh": "1amin", "mask": "on", "rerun": "pdr2_dud"}
    )
    assert (line.number, line.band, line.ra, line.dec, line.sh) == (2, "z", 15, -2, pytest.approx(1 / 60))
    assert (line.planes, line.rerun, line.tract) == (("image", "mask"), "pdr2_dud", None)


@pytest.mark.parametrize(
    "text, words",
    [
        ("ra dec\n1 2\n", "line 1: the list must begin"),
        ("#? ra dec colour\n1 2 3\n", "line 1: unknown column: colour"),
        ("#? ra ra\n1 2\n", "twice"),
        ("#? ra dec filter\n1 2 g\n1 2\n", "line 3: 2 values for 3 columns"),
        ("#? ra dec\n1 2\n", "line 2: no filter"),
        ("#? ra dec filter\n1 2 HSC-Q\n", "line 2: unknown filter: HSC-Q"),
        ("#? ra dec filter\n1 x g\n", "line 2: not an angle: x"),
        ("#? ra dec filter\n1 91 g\n", "line 2: no position"),
        ("#? ra dec filter rerun\n1 2 g pdr9\n", "line 2: unknown rerun"),
        ("#? ra dec filter type\n1 2 g warp\n", "line 2: unknown type"),
        ("#? ra dec filter sw\n1 2 g 2deg\n", "line 2: resultant image size exceeds limit"),
        ("#? ra dec filter image\n1 2 g maybe\n", "line 2: neither true nor false"),
    ],
)
def test_broken_lists_are_refused_by_line(text, words):
    with pytest.raises(Refusal, match=words):
        read_list(text, {})


def test_a_tar_of_cutouts_has_the_services_names(server):
    answer = post(server, LINES)
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith('attachment; filename="arch-')
    names = list(contents(answer))
    assert [name.partition("/")[2] for name in names] == [f"{n}-cutout-HSC-I-9813-pdr2_wide.fits" for n in (2, 3, 4)]
    assert names[0].startswith("arch-") and len(names[0].partition("/")[0]) == len("arch-201124-123456")
    assert (server.lists, server.images) == ({digest(LINES): 1}, 3)


def test_members_without_data_are_missing_and_none_at_all_is_ten_kilobytes_of_zeros(server):
    server.fault("missing", repr(RA[0]))
    assert [name.partition("/")[2][0] for name in contents(post(server, LINES))] == ["3", "4"]
    server.fault("missing")
    assert post(server, LINES).content == bytes(10240)


def test_psfs_have_no_folder_and_two_dashes_before_a_southern_declination(server):
    server.sky = BlobSky(1, centre=(30.6, -6.3))
    ra, dec = server.sky.table["ra"][0], server.sky.table["dec"][0]
    text = f"#? rerun type filter tract patch ra dec centered\npdr2_wide coadd HSC-I auto auto {ra!r} {dec!r} true\n"
    ((name, data),) = contents(post(server, text.replace("np.float64(", "").replace(")", ""), PSF + "?bulk=on")).items()
    assert name.startswith("2-psf-calexp-pdr2_wide-HSC-I-8279-") and f"-{ra:.5f}--{-dec:.5f}.fits" in name
    assert fits.getdata(io.BytesIO(data)).dtype == ">f8"


def test_one_cutout_by_get(server):
    asked = {"ra": RA[0], "dec": DEC[0], "sw": "2asec", "sh": "2asec", "filter": "HSC-G", "mask": "on", "image": "on"}
    answer = requests.get(server.url + CUTOUT, asked, auth=("user", "pass"), timeout=10)
    with fits.open(io.BytesIO(answer.content)) as hdus:
        assert [hdu.header["NAXIS"] for hdu in hdus] == [0, 2, 2, 0]
    server.fault("missing")
    answer = requests.get(server.url + CUTOUT, asked, auth=("user", "pass"), timeout=10)
    assert (answer.status_code, answer.text.strip()) == (404, "Rectangle not found in observed area")


def test_limits(server):
    assert post(server, LINES, auth=None).status_code == 401
    assert post(server, LINES, auth=("user", "no")).status_code == 401
    assert post(server, LINES, field="other").status_code == 400
    assert post(server, LINES, path="/nothing").status_code == 404
    header, *lines = LINES.splitlines(keepends=True)
    answer = post(server, header + "".join(lines) * 334)
    assert answer.status_code == 400 and "too many images: 1002" in answer.text
    server.limit = 5
    answer = post(server, LINES, path=f"{CUTOUT}?mask=on")
    assert answer.status_code == 400 and "too many images: 6" in answer.text


def test_a_third_stream_is_refused(server):
    server.pause = 0.2
    with ThreadPoolExecutor(3) as pool:
        statuses = sorted(answer.status_code for answer in pool.map(lambda _: post(server, LINES), range(3)))
    assert statuses == [200, 200, 503]
    assert post(server, LINES).status_code == 200


def test_jobs_are_answered_beside_them(server):
    answer = requests.post(f"{server.url}{JOBS}status", data=b"{}", timeout=10)
    assert answer.status_code in (400, 401, 406, 500)


@pytest.mark.parametrize(
    "kind, check",
    [
        ("swapped", lambda hdus: hdus[0].header["FILTER"] == "z"),
        ("nan", lambda hdus: not (hdus[1].data == hdus[1].data).any()),
        ("zero", lambda hdus: not hdus[1].data.any()),
        ("tract", lambda hdus: abs(hdus[1].header["CRVAL1"] - 150.2479) > 0.1 and 11 < hdus[1].header["NAXIS1"] < 40),
    ],
)
def test_faults_of_images(server, kind, check):
    server.fault(kind, times=1)
    first, second, _ = contents(post(server, LINES)).values()
    with fits.open(io.BytesIO(first)) as hdus:
        assert check(hdus)
    with fits.open(io.BytesIO(second)) as hdus:
        assert not check(hdus)
    with pytest.raises(ValueError, match="unknown fault"):
        server.fault("flood")
