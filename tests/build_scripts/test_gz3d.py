"""GZ3D files are read as astropy reads them, and what cannot be used is named in ``rejected.csv`` with its reason."""

import gzip
import io
import os
import re
import shutil
from functools import cache

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.build_scripts.gz3d.records import read_record, vote_fractions
from skyset.build_scripts.gz3d.targets import Target, file_key, read_metadata
from skyset.errors import RecordError, UserError
from skyset.loaders.gz3d import SURVEY
from skyset.raw import gunzip
from skyset.testing.gz3d import draw_galaxy, fits_gz_bytes, galaxy_hdus, metadata_table
from skyset.testing.server import ERROR_PAGE
from tests.builds import build, differences, link, rejected, rows

MASKS = ("center", "star", "spiral", "bar")


def save(path, hdus, level=1):
    """The HDUs as a ``.fits.gz`` file."""
    plain = io.BytesIO()
    hdus.writeto(plain)
    path.write_bytes(gzip.compress(plain.getvalue(), level))
    return path


@pytest.fixture
def hdus():
    return galaxy_hdus(draw_galaxy())


# --- by value, against astropy ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layout",
    [
        {},
        {"channels_first": True},
        {"column_case": "upper"},
        {"column_case": "lower", "raw_tables": True},
        {"primary_wcs": False, "channels_first": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("index", [0, 3])
def test_a_record_is_what_astropy_reads(tmp_path, layout, index):
    path = tmp_path / "gz3d_1-1_127_5.fits.gz"
    path.write_bytes(fits_gz_bytes(draw_galaxy(0, index), **layout))
    record = SURVEY.record({**read_record(path), "file_name": "x", "healpix": 0})
    with fits.open(path) as hdus:
        image = hdus[0].data
        expected = np.moveaxis(image, 0, 2) if image.shape[0] == 3 else image
        np.testing.assert_array_equal(record["false_color"], expected)
        for number, name in enumerate(MASKS, 1):
            np.testing.assert_array_equal(record[name], hdus[number].data)
            assert record[name].dtype == np.uint8
        table = {name.lower(): hdus[5].data[name][0] for name in hdus[5].columns.names}
        for name in (
            "ra",
            "dec",
            "ifudesignsize",
            "manga_tileid",
            "nsa_id",
            "gz_total_classifications",
            "gz_bar_votes",
            "gz_spiral_votes",
        ):
            assert record[name] == table[name]
        for name in ("mangaid", "iauname", "explorer_link", "sample"):
            assert record[name].item().decode() == table[name].strip()
        wcs = WCS(hdus[1].header)
    assert record["object_id"] == record["mangaid"]
    np.testing.assert_array_equal(record["wcs_crpix"], wcs.wcs.crpix)
    np.testing.assert_array_equal(record["wcs_crval"], wcs.wcs.crval)
    np.testing.assert_array_equal(record["wcs_cd"], wcs.wcs.cd)
    assert record["scale"] == pytest.approx(proj_plane_pixel_scales(wcs).mean()) == pytest.approx(0.099 / 3600)


@pytest.mark.parametrize("exponent", ["D", "d", "E"])
def test_the_sky_of_a_record_however_its_exponents_are_written(tmp_path, exponent):
    """And with a tab in a card that has nothing to do with it."""
    content = gzip.decompress(fits_gz_bytes(draw_galaxy()))
    path = tmp_path / "1-1_127_5.fits.gz"
    path.write_bytes(gzip.compress(content))
    wanted = read_record(path)
    cards = [content[at : at + 80] for at in range(0, len(content) - 80, 80)]
    count = 0
    for card in cards:
        if re.match(rb"(CRVAL|CRPIX|CDELT|CD|PC)\d", card):
            value = float(card[10:].split(b"/")[0])
            written = card[:10] + f"{value:.15E}".replace("E", exponent).rjust(30).encode() + b" / a\tb"
            content, count = content.replace(card, written.ljust(80), 1), count + 1
    assert count >= 6
    path.write_bytes(gzip.compress(content))
    found = read_record(path)
    for name in ("wcs_crpix", "wcs_crval", "wcs_cd", "scale"):
        np.testing.assert_allclose(found[name], wanted[name], rtol=1e-13)


def test_all_fields_of_the_first_galaxy(tmp_path):
    path = tmp_path / "1-106630_127_14715787.fits.gz"
    path.write_bytes(fits_gz_bytes(draw_galaxy()))
    record = read_record(path)
    votes = [record[f"gz_{name}"] for name in ("total_classifications", "spiral_votes", "bar_votes")]
    assert (record["mangaid"], record["ifudesignsize"], votes) == ("1-106630", 127, [47, 41, 29])
    np.testing.assert_allclose(record["vote_fraction"], [-1, -1, 41 / 47, 29 / 47], rtol=1e-7)
    assert [record[name].max() for name in MASKS] == [15, record["star"].max(), 15, 15]


@pytest.mark.parametrize(
    ("votes", "expected"),
    [((40, 30, 10), [-1, -1, 0.75, 0.25]), ((5, 0, 0), [-1, -1, 0, 0]), ((0, 0, 0), [-1, -1, -0.5, -0.5])],
)
def test_vote_fractions(votes, expected):
    assert vote_fractions(*votes) == expected


def test_cut_takes_the_larger_fraction_and_lets_all_pass_at_zero():
    def target(total, bar, spiral):
        return Target("x", 0.0, 0.0, total, bar, spiral)

    assert [target(10, 3, 5).passes(cut) for cut in (0, 0.5, 0.51)] == [True, True, False]
    assert [target(10, 5, 3).passes(cut) for cut in (0.5, 0.51)] == [True, False]
    assert [target(0, 0, 0).passes(cut) for cut in (0, 0.01)] == [True, False]


def test_empty_cluster_tables_and_nobody_classified(tmp_path, hdus):
    for number in (6, 7):
        hdus[number].data = hdus[number].data[:0]
    for name in ("GZ_total_classifications", "GZ_bar_votes", "GZ_spiral_votes"):
        hdus[5].data[name] = 0
    record = read_record(save(tmp_path / "x.fits.gz", hdus))
    assert record["vote_fraction"].tolist() == [-1.0, -1.0, -0.5, -0.5]


def test_uncompressed_file_and_benign_header_cards(tmp_path, hdus):
    """astropy warns of a deprecated keyword; that is no reason to lose a galaxy."""
    hdus[1].header["RADECSYS"] = "FK5"
    hdus[1].header["MJD-OBS"] = 54_000.0
    hdus.writeto(tmp_path / "x.fits")
    assert read_record(tmp_path / "x.fits")["mangaid"] == "1-106630"


@pytest.mark.parametrize("name", ["IFUDESIGNSIZE", "NSA_ID"])
def test_missing_numbers_are_minus_one(tmp_path, hdus, name):
    table = hdus[5]
    keep = [column for column in table.columns if column.name != name]
    hdus[5] = fits.BinTableHDU.from_columns([*keep, fits.Column(name, "E", array=[np.nan])])
    assert read_record(save(tmp_path / "x.fits.gz", hdus))[name.lower()] == -1
    hdus[5] = fits.BinTableHDU.from_columns(keep)
    assert read_record(save(tmp_path / "y.fits.gz", hdus))[name.lower()] == -1


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "1-106630_127_14715787.fits.gz",
        "gz3d_1-106630_127_14715787.fits.gz",
        "gz3d_1-106630_127_14715787.fits",
        "/a/b.c/gz3d_1-106630_127_14715787.fits.gz",
        "1-106630_127_14715787",
        " 1-106630_127_14715787.fits ",
    ],
)
def test_key_of_a_name(name):
    assert file_key(name) == "1-106630_127_14715787"


def test_keys_of_real_names_are_distinct(real):
    names = real("gz3d/real_filenames.txt").read_text().split()
    keys = {file_key(name) for name in names}
    assert len(names) == len(keys) == 354
    assert all(len(key) <= 64 and re.fullmatch(r"1-\d+_\d+_\d+", key) for key in keys)
    assert len({key.split("_")[0] for key in keys}) < 354, "some MANGAIDs were shown twice"


@pytest.mark.parametrize("prefix", ["", "gz3d_"])
def test_prefix_makes_no_difference(tmp_path, archive, prefix):
    first = sorted(archive.glob("*.fits.gz"))[:2]
    for folder, before in (("plain", ""), ("prefixed", prefix)):
        (tmp_path / folder).mkdir()
        for path in first:
            shutil.copy(path, tmp_path / folder / f"{before}{path.name}")
        assert build(tmp_path / f"{folder}-out", "--local_data_path", tmp_path / folder) == 0
    assert rows(tmp_path / "plain-out") == rows(tmp_path / "prefixed-out")


# --- bad files ----------------------------------------------------------------------------------------------


def with_mask(value, number=3):
    def spoil(hdus):
        hdus[number].data[7, 9] = value
        return hdus

    return spoil


def with_table(**values):
    def spoil(hdus):
        for name, value in values.items():
            hdus[5].data[name] = value
        return hdus

    return spoil


def with_image(data):
    def spoil(hdus):
        hdus[0] = fits.PrimaryHDU(data, hdus[0].header)
        return hdus

    return spoil


def without_wcs(hdus):
    for hdu in hdus[:5]:
        for name in ("CTYPE1", "CTYPE2"):
            hdu.header.remove(name, ignore_missing=True)
    return hdus


def resized_mask(hdus):
    hdus[2].data = np.zeros((524, 525))
    return hdus


def two_rows(hdus):
    hdus[5].data = np.concatenate([hdus[5].data, hdus[5].data]).view(fits.FITS_rec)
    return hdus


def vector_position(hdus):
    keep = [column for column in hdus[5].columns if column.name != "ra"]
    hdus[5] = fits.BinTableHDU.from_columns([*keep, fits.Column("ra", "2E", array=[[1.0, 2.0]])])
    return hdus


def without_votes(hdus):
    hdus[5] = fits.BinTableHDU.from_columns([column for column in hdus[5].columns if column.name != "GZ_bar_votes"])
    return hdus


BAD_HDUS = {
    "masks_of_another_size": (resized_mask, r"HDU 2 (star) has shape (524, 525), not (525, 525)"),
    "hdu_2_onwards_missing": (lambda h: h[:3], "HDU 3 is missing: 3 HDUs, at least 6 expected"),
    "image_of_another_shape": (with_image(np.zeros((525, 525), np.float32)), "HDU 0 (image) has shape (525, 525), not "),
    "image_missing": (with_image(None), "HDU 0 (image) has shape None, not "),
    "image_not_whole": (
        with_image(np.full((3, 525, 525), 0.25, np.float32)),
        "HDU 0 (image) holds 0.25, which uint8 cannot hold",
    ),
    "count_over_255": (with_mask(256), "HDU 3 (spiral) holds 256.0, which uint8 cannot hold"),
    "count_negative": (with_mask(-1, 4), "HDU 4 (bar) holds -1.0, which uint8 cannot hold"),
    "count_nan": (with_mask(np.nan, 1), "HDU 1 (center) holds nan, which uint8 cannot hold"),
    "count_fractional": (with_mask(0.5), "HDU 3 (spiral) holds 0.5, which uint8 cannot hold"),
    "position_nan": (with_table(ra=np.nan), "position is not on the sky: ra nan, dec "),
    "position_out_of_range": (with_table(dec=91), "position is not on the sky: ra "),
    "position_is_a_vector": (vector_position, "not readable as FITS: "),
    "votes_negative": (with_table(GZ_spiral_votes=-3), "HDU 5: gz_spiral_votes is -3"),
    "votes_missing": (without_votes, "HDU 5 has no column gz_bar_votes"),
    "two_rows": (two_rows, "HDU 5 is not a table of one row"),
    "no_row": (lambda h: [*h[:5], fits.BinTableHDU(h[5].data[:0]), *h[6:]], "HDU 5 is not a table of one row"),
    "table_is_an_image": (lambda h: [*h[:5], fits.ImageHDU(np.zeros((2, 2))), *h[6:]], "HDU 5 is not a table of one row"),
    "no_wcs": (without_wcs, "neither HDU 1 nor HDU 0 has a WCS"),
    "mangaid_too_long": (
        lambda h: [
            *h[:5],
            fits.BinTableHDU.from_columns(
                [c for c in h[5].columns if c.name != "MANGAID"] + [fits.Column("MANGAID", "40A", array=["1-" + "9" * 30])]
            ),
            *h[6:],
        ],
        "object_id is longer than 16 characters: '1-9999",
    ),
}


def bad_files(good):
    """Bytes of files that are bad as files, and their reasons, from a good one."""
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 0xFF
    checksum = bytearray(good)
    checksum[-6] ^= 0xFF
    return {
        "truncated": (good[: len(good) // 2], "gzip data are cut short"),
        "one_byte_short": (good[:-1], "gzip data are cut short"),
        "damaged": (bytes(flipped), "gzip data are damaged: "),
        "damaged_crc": (bytes(checksum), "gzip data are damaged: "),
        "truncated_inside": (
            gzip.compress(gunzip(good)[:3_000_000], 1),
            "not readable as FITS: File may have been truncated",
        ),
        "html_page": (ERROR_PAGE, "not a gzip file (it is an HTML page)"),
        "gzipped_html_page": (gzip.compress(ERROR_PAGE), "not readable as FITS (it is an HTML page): "),
        "empty": (b"", "not a gzip file (it is empty)"),
        "empty_gzip": (gzip.compress(b""), "not readable as FITS (it is empty): "),
        "not_gzip": (gunzip(good), "not a gzip file"),
        "bomb": (gzip.compress(bytes(300 << 20), 1), "unpacks to more than 268435456 bytes"),
    }


def test_every_bad_file_is_named_with_its_reason_and_the_rest_is_built(tmp_path, archive, capsys):
    source, reasons = tmp_path / "source", {}
    good = sorted(archive.glob("*.fits.gz"))[:3]
    link(archive, source, {path.name for path in good})
    for k, (name, (spoil, reason)) in enumerate(BAD_HDUS.items()):
        save(source / f"1-{k}_{name}.fits.gz", fits.HDUList(spoil(galaxy_hdus(draw_galaxy(1, k)))))
        reasons[f"1-{k}_{name}.fits.gz"] = reason
    for name, (content, reason) in bad_files(good[0].read_bytes()).items():
        (source / f"{name}.fits.gz").write_bytes(content)
        reasons[f"{name}.fits.gz"] = reason
    (source / "folder.fits.gz").mkdir()
    os.mkfifo(source / "pipe.fits.gz")
    (source / "device.fits.gz").symlink_to("/dev/zero")
    (source / "nowhere.fits.gz").symlink_to(source / "gone")
    with open(source / "large.fits.gz", "wb") as file:
        file.truncate(3 << 30)
    for name, what in {"folder": "a folder", "pipe": "a named pipe", "device": "a device"}.items():
        reasons[f"{name}.fits.gz"] = f"cannot be read: {what}, not a regular file"
    reasons |= {"nowhere.fits.gz": "cannot be read: No such file or directory", "large.fits.gz": "not a gzip file"}
    shutil.copy(good[0], source / f"gz3d_{good[0].name}")
    reasons[f"gz3d_{good[0].name}"] = f"duplicate of {good[0].name}"
    shutil.copy(good[1], source / "9-copy.fits.gz")
    reasons["9-copy.fits.gz"] = f"duplicate of {good[1].name}"

    assert build(tmp_path / "out", "--local_data_path", source) == 1
    found = rejected(tmp_path / "out")
    assert set(found) == set(reasons)
    assert {name: found[name] for name, reason in reasons.items() if not found[name].startswith(reason)} == {}
    assert all("\n" not in reason and len(reason) < 300 for reason in found.values())
    assert set(rows(tmp_path / "out")) == {file_key(path.name) for path in good}
    assert differences(tmp_path / "out") == []
    assert (
        f"{len(reasons)} objects were rejected, each with its reason in {tmp_path}/out/rejected.csv"
        in capsys.readouterr().out
    )


def test_bad_rows_of_the_metadata_table(tmp_path, archive):
    """With a table, positions come from it: what is wrong with it shows at once, what is wrong inside later."""
    galaxies = [draw_galaxy(2, k) for k in range(6)]
    for galaxy in galaxies[:5]:
        (tmp_path / f"{galaxy.name}.gz").write_bytes(fits_gz_bytes(galaxy))
    table = metadata_table([*galaxies, galaxies[0]])
    table.data["ra"][1], table.data["dec"][2] = np.nan, -90.5
    table.data["ra"][3] += 90
    save(tmp_path / f"{galaxies[4].name}.gz", fits.HDUList(with_table(dec=np.nan)(galaxy_hdus(galaxies[4]))))
    table.writeto(tmp_path / "gz3d_metadata.fits")
    assert build(tmp_path / "out", "--local_data_path", tmp_path) == 1
    found = rejected(tmp_path / "out")
    assert found.pop(f"{galaxies[0].name}.gz") == f"duplicate of {galaxies[0].name}.gz"
    assert found.pop(f"{galaxies[1].name}.gz").startswith("position is not on the sky: ra nan, dec ")
    assert found.pop(f"{galaxies[2].name}.gz").endswith("dec -90.5")
    assert re.fullmatch(
        r"its own position falls in HEALPix cell \d+, the catalogue's in \d+", found.pop(f"{galaxies[3].name}.gz")
    )
    assert found.pop(f"{galaxies[4].name}.gz").endswith("dec nan")
    assert found == {}, "a folder may hold a part of what the table lists"
    assert set(rows(tmp_path / "out")) == {file_key(galaxies[0].name)}


def test_files_that_the_table_of_a_folder_does_not_list_are_taken_by_their_own(tmp_path, archive):
    names = sorted(path.name for path in archive.glob("*.fits.gz"))[:2]
    source = link(archive, tmp_path / "source", {*names, "gz3d_metadata.fits"})
    extra = draw_galaxy(3, 1)
    (source / f"{extra.name}.gz").write_bytes(fits_gz_bytes(extra))
    shutil.copy(source / names[0], source / "9-same-bytes.fits.gz")
    assert build(tmp_path / "out", "--local_data_path", source) == 1
    assert set(rows(tmp_path / "out")) == {file_key(name) for name in (*names, extra.name)}
    assert rejected(tmp_path / "out") == {"9-same-bytes.fits.gz": f"duplicate of {names[0]}"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "gz3d_metadata.fits cannot be used: not readable as FITS (it is empty)"),
        (ERROR_PAGE, "gz3d_metadata.fits cannot be used: not readable as FITS (it is an HTML page)"),
    ],
)
def test_metadata_table_that_is_no_fits_file(tmp_path, content, reason):
    (tmp_path / "gz3d_metadata.fits").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(reason)):
        read_metadata(tmp_path / "gz3d_metadata.fits")


def test_metadata_table_without_table_or_columns(tmp_path):
    path = tmp_path / "gz3d_metadata.fits"
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(path)
    with pytest.raises(UserError, match=r"gz3d_metadata.fits cannot be used: HDU 1 is not a table"):
        read_metadata(path)
    fits.BinTableHDU.from_columns([fits.Column("ra", "E", array=[1.0])]).writeto(path, overwrite=True)
    with pytest.raises(
        UserError, match="HDU 1 has no column file_name, dec, gz_total_classifications, gz_bar_votes, gz_spi"
    ):
        read_metadata(path)


@cache
def plain_file():
    """Bytes of a good file, without gzip."""
    plain = io.BytesIO()
    galaxy_hdus(draw_galaxy()).writeto(plain)
    return plain.getvalue()


@cache
def headers():
    """First and last byte of each header and the first 200 bytes after it."""
    with fits.open(io.BytesIO(plain_file())) as hdus:
        return [(hdu._header_offset, min(hdu._data_offset + 200, len(plain_file()) - 1)) for hdu in hdus]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_headers_and_tables_are_read_or_rejected_and_nothing_else(tmp_path_factory, data):
    content = bytearray(plain_file())
    places = st.sampled_from(headers()).flatmap(lambda bounds: st.integers(*bounds))
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"0123456789 -'TF"))
    path = tmp_path_factory.mktemp("flip") / "x.fits"
    path.write_bytes(content)
    try:
        SURVEY.record({**read_record(path), "file_name": "x", "healpix": 0})
    except RecordError as error:
        assert str(error) and "\n" not in str(error)
    path.unlink()


# --- gzip ---------------------------------------------------------------------------------------------------


def test_gunzip_takes_several_members_and_trailing_zeros():
    parts = [gzip.compress(bytes([k]) * 1000) for k in range(3)]
    assert gunzip(b"".join(parts)) == gzip.decompress(b"".join(parts))
    assert gunzip(parts[0] + bytes(512)) == bytes(1000)


@pytest.mark.parametrize(("size", "fits_in"), [(999, True), (1000, True), (1001, False), (100_000, False)])
def test_gunzip_stops_at_the_limit_over_all_members(size, fits_in):
    half = gzip.compress(bytes(size // 2)) + gzip.compress(bytes(size - size // 2))
    if fits_in:
        assert len(gunzip(half, max_bytes=1000)) == size
    else:
        with pytest.raises(RecordError, match="unpacks to more than 1000 bytes"):
            gunzip(half, max_bytes=1000)
