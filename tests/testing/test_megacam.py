"""Simulated MegaCam exposures: under CFHT's cards, of known quality that can be measured, the same for the same seed."""

import csv
import dataclasses
import gzip
import json
import re
import subprocess
import sys
from datetime import datetime

import numpy as np
import pytest
from astropy.io import fits

pytest.importorskip("numba", reason="exposures are simulated with numba")

import sep

from skyset.build_scripts.megacam_iqa.frames import frames
from skyset.errors import UserError
from skyset.extraction.simulate import moffat_psf
from skyset.testing.megacam import LABELS, conditions, headers, layout, make_exposures, pixels
from skyset.testing.megacam.__main__ import main
from skyset.testing.megacam.cards import keywords
from skyset.testing.megacam.exposures import observe

SHAPE = (256, 192)

# --- Against real headers -------------------------------------------------------------------------


def dumped(path) -> list[list[tuple[str, str, str]]]:
    """The HDUs of a text of headers as (keyword, value as written, kind of value), without comments and storage."""
    hdus = []
    for line in gzip.decompress(path.read_bytes()).decode("latin-1").split("\n"):
        if re.match("SIMPLE  =|XTENSION=", line):
            hdus.append([])
        if hdus and line[8:10] == "= ":
            text = re.match(r" *('(?:[^']|'')*'|[^/]*)", line[10:])[1].strip()
            hdus[-1].append((line[:8].strip(), text, kind(text)))
    return hdus


def kind(text: str) -> str:
    if text.startswith("'"):
        return "text"
    return "logical" if text in "TF" else "real" if re.search("[.E]", text) else "whole"


STORAGE = re.compile(r"SIMPLE|XTENSION|BITPIX|NAXIS\d?|EXTEND|PCOUNT|GCOUNT|T(FIELDS|TYPE1|FORM1)|Z[A-Z]+\d?")
#: What a frame is made from: the same text in all files.
LAYOUT = re.compile(
    r"DATASEC|CCDSIZE|[ABCDT]SEC[AB]|DETSIZE|AMPNAME|EXT(NAME|VER)|CD\d_\d|C(RVAL|TYPE)\d|NEXTEND|INSTRUME|NAMPS|NCCDS"
)


def simulated(count: int, letter: str = "o") -> tuple[headers.Observation, list[layout.Detector]]:
    return observe(0, letter, count, layout.FULL, 0, "GOOD"), layout.detectors(count)


def said(header: fits.Header) -> list[tuple[str, str, str]]:
    cards = ((card.keyword, re.match(r" *('(?:[^']|'')*'|[^/]*)", str(card)[10:])[1].strip()) for card in header.cards)
    return [(key, text, kind(text)) for key, text in cards]


def small_fixed() -> pixels.Amplifiers:
    return pixels.Amplifiers((1.5, 1.6), (3, 4), (1000.0, 1100.0), np.ones((1, 1)), [], 1.03)


@pytest.mark.parametrize(
    ("name", "count", "letter"),
    [("979412o", 36, "o"), ("979412p", 36, "p"), ("1927963o", 40, "o")],
    ids=["2008", "2008p", "2016"],
)
def test_the_cards_are_those_of_real_files(real, name, count, letter):
    hdus = dumped(real(f"megacam/{name}.fits.header.gz"))
    observation, detectors = simulated(count, letter)
    ours = [headers.primary(observation), *(headers.ccd(observation, each, small_fixed()) for each in detectors)]
    assert len(hdus) == len(ours) == count + 1
    for number in (0, 1, 5, 18, 36, count):
        theirs = [card for card in hdus[number] if not STORAGE.fullmatch(card[0])]
        mine = [card for card in said(ours[number]) if not STORAGE.fullmatch(card[0])]
        assert [key for key, *_ in mine] == [key for key, *_ in theirs]
        different = {key: (a, b) for (key, a, one), (_, b, other) in zip(mine, theirs, strict=True) if one != other}
        # A few are written now as a whole number, now as a real one.
        assert set(different) <= {"QID", "RDNOISE", "BZERO", "BSCALE", "SATURATE", "TCSINHA", "TCSINDEC"}, different
        values = dict(each[:2] for each in mine)
        for key, text, _ in theirs:
            if LAYOUT.fullmatch(key) and not (letter == "p" and key.startswith("C")) and not key.startswith("CRVAL"):
                assert same(values[key], text), (number, key)


def same(one: str, other: str) -> bool:
    if one.startswith("'"):
        return one.strip("' ") == other.strip("' ")
    return one == other or float(one) == pytest.approx(float(other), rel=1e-6)


def test_ccds_stand_where_the_real_ones_do(real):
    hdus = dumped(real("megacam/1927963o.fits.header.gz"))[1:]
    for theirs, found in zip(hdus, layout.detectors(40), strict=True):
        values = {key: text for key, text, _ in theirs}
        ours = found.sections() | found.wcs()
        for key in ("CRPIX1", "CRPIX2"):
            assert float(values[key]) == pytest.approx(ours[key], abs=150), (found.ccd, key)
        for key in ("DETSEC", "DETSECA", "DETSECB"):
            one, other = (np.array(re.findall(r"\d+", text), int) for text in (values[key], ours[key]))
            assert np.abs(one - other).max() < 40 and (np.diff(one)[::2] == np.diff(other)[::2]).all(), (found.ccd, key)


def test_a_real_file_size(real):
    theirs = {key: text for key, text, _ in dumped(real("megacam/1927963o.fits.header.gz"))[3]}
    assert layout.detectors(40)[2].frame == (int(theirs["ZNAXIS2"]), int(theirs["ZNAXIS1"]))


def test_keywords_are_listed_once():
    for primary in (True, False):
        for year in (2008, 2016):
            found = keywords(primary, year, True)
            assert len(found) == len(set(found))


def test_amplifiers_cover_a_ccd_from_both_sides():
    for found in layout.detectors(40, SHAPE):
        observation = dataclasses.replace(observe(0, "o", 40, SHAPE, 0, "GOOD"))
        whole = headers.ccd(observation, found, small_fixed())
        a, b = (headers.amplifier(observation, found, small_fixed(), letter) for letter in "ab")
        assert {a["EXTVER"], b["EXTVER"]} == {2 * found.ccd, 2 * found.ccd + 1}
        assert a["EXTVER"] % 2 == found.turned, "as the files that CFHT's imsplice joined are numbered"
        columns = [re.findall(r"\d+", each["DETSEC"])[:2] for each in (a, b, whole)]
        ends = [sorted(map(int, each)) for each in columns]
        assert sorted(ends[0] + ends[1])[::3] == ends[2] and a["GAIN"] == 1.5 and b["GAIN"] == 1.6


# --- Conditions -----------------------------------------------------------------------------------


def drawn(label: str, count: int = 300) -> list[conditions.Conditions]:
    return [conditions.draw(np.random.default_rng([1, k]), label) for k in range(count)]


def test_classes_are_ranges_that_meet():
    seeing = {label: np.array([each.seeing for each in drawn(label) if each.labels == (label,)]) for label in LABELS}
    assert 0.55 < np.median(seeing["GOOD"]) < 0.7 and seeing["B_SEEING"].max() > 1.9
    assert seeing["B_SEEING"].min() < 1.05 <= seeing["GOOD"].max() + 0.1, "the mildest look like each other"
    lengths = {label: [each.length for each in drawn(label) if each.guiding == "trail"] for label in ("GOOD", "BT", "RBT")}
    assert max(lengths["GOOD"]) < 0.31 and min(lengths["BT"]) < 0.5
    assert max(lengths["BT"]) > min(lengths["RBT"]) and max(lengths["RBT"]) > 4
    amplitudes = [each.amplitude for each in drawn("BGP")]
    assert min(amplitudes) < 0.04 < 0.3 < max(amplitudes)
    assert {each.background for each in drawn("BGP")} == {"steps", "scattered", "fringes"}
    assert {each.guiding for each in drawn("RBT")} == {"trail", "double", "wander"}
    severity = [each.severity for each in drawn("RBT")]
    assert np.histogram(severity, 5, (0, 1))[0].min() > 30, "drawn evenly"
    few = [observe(k, "o", 4, SHAPE, 0, "BGP", k).conditions.severity for k in range(5)]
    assert np.diff(sorted(few)).min() > 0.1, "and of a few, too"


def test_some_have_two_labels():
    labels = [each.labels for each in drawn("BGP")]
    assert 10 < sum(len(each) == 2 for each in labels) < 60
    assert set(labels) == {("BGP",), ("BGP", "B_SEEING")}
    assert {each.labels for each in drawn("GOOD")} == {("GOOD",)}


def test_an_unknown_class_is_named():
    with pytest.raises(ValueError, match="BAD"):
        conditions.draw(np.random.default_rng(0), "BAD")


def calm(**more) -> conditions.Conditions:
    return conditions.draw(np.random.default_rng(3), "GOOD")._replace(length=0.0, seeing=0.7, **more)


def moments(psf: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centre and covariance, pixels, x before y."""
    y, x = np.indices(psf.shape) - psf.shape[0] // 2
    centre = np.array([(psf * x).sum(), (psf * y).sum()])
    dx, dy = x - centre[0], y - centre[1]
    return centre, np.array([[(psf * dx * dx).sum(), (psf * dx * dy).sum()], [(psf * dx * dy).sum(), (psf * dy * dy).sum()]])


@pytest.mark.parametrize(("guiding", "share"), [("trail", 0.0), ("double", 0.35), ("jump", 0.2)])
def test_the_psf_is_spread_by_the_variance_of_the_track(guiding, share):
    place = layout.detectors(4)[0]
    still = pixels.point_spread(calm(guiding="trail", angle=30.0, share=0.0), place, 0)
    moved = pixels.point_spread(calm(guiding=guiding, angle=30.0, share=share)._replace(length=2.0), place, 0)
    length = 2.0 / (layout.SCALE * 3600)
    variance = length**2 / 12 if guiding == "trail" else share * (1 - share) * length**2
    along = np.array([np.cos(np.radians(30)), np.sin(np.radians(30))])
    centre, wide = moments(moved)
    excess = wide - moments(still)[1]
    assert np.abs(centre).max() < 0.02
    assert along @ excess @ along == pytest.approx(variance, rel=0.15)
    assert abs(along[::-1] * (1, -1) @ excess @ (along[::-1] * (1, -1))) < 0.1 * variance


def test_the_psf_grows_to_the_edges():
    middle, corner = layout.detectors(36)[13], layout.detectors(36)[0]
    wide = [np.trace(moments(pixels.point_spread(calm(), each, 0))[1]) for each in (middle, corner)]
    assert wide[1] > 1.04 * wide[0]
    assert moffat_psf(4, 3.3).shape[0] % 2 == 1


# --- What is written ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exposures")
    return folder, make_exposures(folder, 10, ccds=4, kind="p", shape=(384, 256), seed=0)


def test_each_class_can_be_measured(made):
    _, paths = made
    found: dict[str, list] = {label: [] for label in LABELS}
    truth = list(csv.DictReader((paths[0].parent / "truth.csv").read_text().splitlines()))
    for path, row in zip(paths, truth, strict=True):
        sizes, elongations, ranges = [], [], []
        for frame in frames(path):
            back = sep.Background(frame.pixels, mask=frame.bad)
            sources = sep.extract(frame.pixels - back, 5, err=back.globalrms, mask=frame.bad)
            good = sources[(sources["flag"] == 0) & (sources["npix"] > 9)]
            sizes += list(2.3548 * np.sqrt((good["a"] ** 2 + good["b"] ** 2) / 2))
            elongations += list(good["a"] / good["b"])
            ranges.append(np.ptp(back.back()) / back.globalback)
        found[row["labels"].split(", ")[0]].append([np.median(sizes), np.median(elongations), np.median(ranges)])
    size, elongation, uneven = ({label: np.array(rows)[:, k] for label, rows in found.items()} for k in range(3))
    assert size["B_SEEING"].min() > 1.4 * size["GOOD"].max()
    assert elongation["RBT"].max() > 2.5 and elongation["RBT"].min() > 1.3 > elongation["GOOD"].max()
    assert np.median(elongation["GOOD"]) < np.median(elongation["BT"]) < np.median(elongation["RBT"])
    assert uneven["BGP"].max() > 0.2 > 0.05 > uneven["GOOD"].max()
    assert uneven["BGP"].min() > np.median(uneven["GOOD"])


def test_labels_have_the_public_form(made):
    folder, paths = made
    labels = json.loads((folder / "labels.json").read_text())
    assert set(labels) == {"info", "images", "categories", "annotations"} and labels["categories"] == list(LABELS)
    assert [f"{each}p" for each in labels["annotations"]] == [path.name.partition(".")[0] for path in paths]
    assert labels["images"] == list(labels["annotations"])
    firsts = [each.split(", ")[0] for each in labels["annotations"].values()]
    assert firsts == list(LABELS) * 2
    truth = list(csv.DictReader((folder / "truth.csv").read_text().splitlines()))
    assert [row["labels"] for row in truth] == list(labels["annotations"].values())
    assert all(0 <= float(row["severity"]) <= 1 for row in truth)


def test_the_same_seed_gives_the_same_bytes_whatever_the_number(made, tmp_path):
    _, paths = made
    again = make_exposures(tmp_path, 2, ccds=4, kind="p", shape=(384, 256), seed=0)
    for one, other in zip(paths, again, strict=False):
        assert one.name == other.name and one.read_bytes() == other.read_bytes()
    other = make_exposures(tmp_path, 1, ccds=4, kind="p", shape=(384, 256), seed=1)[0]
    assert other.name == "1001000p.fits.fz"


def test_files_are_whole_by_fits_own_rules(made):
    with fits.open(made[1][0]) as opened:
        opened.verify("exception")
        assert [hdu.header["EXTNAME"] for hdu in opened[1:]] == ["ccd12", "ccd13", "ccd21", "ccd22"]
        one = opened[1]
        assert one.header["BSCALE"] != 1 and one.header["BZERO"] == pytest.approx(32670 * one.header["BSCALE"])
    start = observe(0, "p", 4, (384, 256), 0, "GOOD").start
    assert fits.getheader(made[1][0])["MJD-OBS"] == pytest.approx(
        40587 + (start - datetime(1970, 1, 1)).total_seconds() / 86400
    )


def test_charge_bleeds_along_the_column_and_none_is_lost():
    electrons = np.zeros((400, 3), np.float32)
    electrons[200, 1] = 10 * pixels.FULL_WELL
    electrons[200, 2] = pixels.FULL_WELL / 2
    before = electrons.sum()
    pixels._bleed(electrons)
    assert electrons.sum() == pytest.approx(before, rel=1e-5) and electrons.max() == pytest.approx(pixels.FULL_WELL)
    assert (electrons[:, 1] > 0).sum() in (10, 11) and electrons[:, [0, 2]].sum() == pixels.FULL_WELL / 2
    assert np.abs((np.arange(400) - 200) @ electrons[:, 1]) < pixels.FULL_WELL


# --- What cannot be made, and the command line ----------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [{"kind": "x"}, {"ccds": 5}, {"suffix": ".png"}, {"ccds": 72, "kind": "p"}, {"exposures": 0}, {"shape": (64, 65)}],
)
def test_what_cannot_be_made_is_one_line(tmp_path, wrong):
    with pytest.raises(UserError):
        make_exposures(tmp_path, **({"exposures": 1} | wrong))


def test_nothing_is_overwritten(tmp_path):
    make_exposures(tmp_path, 1, ccds=4, shape=(64, 64))
    with pytest.raises(UserError, match=r"1000000o\.fits\.fz is there already"):
        make_exposures(tmp_path, 1, ccds=4, shape=(64, 64))


def test_the_command_line_writes_and_says_what(tmp_path, capsys):
    assert main(["--exposures", "1", "--ccds", "4", "--classes", "RBT", "-o", str(tmp_path / "new"), "--seed", "5"]) == 0
    assert "1005000o.fits.fz  RBT" in capsys.readouterr().out
    assert main(["--exposures", "1", "--ccds", "4", "-o", str(tmp_path / "new"), "--seed", "5"]) == 2
    assert "there already" in capsys.readouterr().err
    assert main([]) == 2


def test_the_package_is_light_to_import():
    code = "import sys, skyset.testing.megacam; print(*sorted({'numpy', 'astropy', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == []
