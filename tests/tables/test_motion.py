"""Positions at another epoch are astropy's, at poles and with parallax and radial velocity too."""

import numpy as np
import pytest

from skyset.errors import UserError
from skyset.tables.match import separation_arcsec
from skyset.tables.motion import common_epoch, motion_in, moved


@pytest.mark.filterwarnings("ignore:ERFA")
@pytest.mark.parametrize("years", [-25.0, 0.0, 16.0, 100.0])
def test_against_astropy(years):
    from astropy import units
    from astropy.coordinates import Distance, SkyCoord
    from astropy.time import Time

    rng = np.random.default_rng(0)
    ra, dec = rng.uniform(0, 360, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    ra[:4], dec[:4] = [269.452, 0.0, 359.99999, 10], [4.693, 89.9999, 0, -89.9]
    pmra, pmdec = rng.normal(0, 500, (2, 200))
    pmra[0], pmdec[0] = -801.551, 10362.394  # Barnard's star
    parallax, velocity = rng.uniform(1, 100, 200), rng.normal(0, 50, 200)
    parallax[0], velocity[0] = 546.976, -110.51
    before = SkyCoord(
        ra * units.deg,
        dec * units.deg,
        pm_ra_cosdec=pmra * units.mas / units.yr,
        pm_dec=pmdec * units.mas / units.yr,
        distance=Distance(parallax=parallax * units.mas),
        radial_velocity=velocity * units.km / units.s,
        obstime=Time(2000.0, format="jyear"),
    )
    after = before.apply_space_motion(new_obstime=Time(2000.0 + years, format="jyear"))
    found = moved(ra, dec, pmra, pmdec, years, parallax, velocity)
    apart = separation_arcsec(*found, after.ra.deg, after.dec.deg)
    # astropy goes by the light's time, too: 2e-4 of the way, where the radial velocity is a few 1e-4 of light's.
    assert np.all(apart <= 1e-6 + 5e-4 * abs(years) * 1e-3 * np.hypot(pmra, pmdec))
    assert np.median(apart) < 2e-3


def test_without_a_motion_nothing_moves():
    ra, dec = np.array([10.0, 400.0, 0.1]), np.array([1.0, 2.0, 90.0])
    later = moved(ra, dec, np.array([0, np.nan, 0]), np.array([0, np.nan, 0]), 50)
    assert np.array_equal(later[0], ra) and np.array_equal(later[1], dec)


def test_columns_units_and_epochs():
    units = {"RA": "deg", "pmRA": "arcsec / yr", "pmDE": "arcsec / yr", "ref_epoch": "yr", "parallax": "mas"}
    motion = motion_in(units, None, "a")
    assert motion.names == ["pmRA", "pmDE", "ref_epoch"] and motion.scale == 1000
    ra, dec = motion.applied(
        [10.0, 10.0], [0.0, 0.0], {"pmRA": [1.0, 1.0], "pmDE": [0.0, 0.0], "ref_epoch": [1990.0, np.nan]}
    )
    assert separation_arcsec(ra, dec, [10, 10], [0, 0]) == pytest.approx([10, 0], abs=1e-6)
    assert motion_in(units, 2016.0, "a").epoch == "" and motion_in({"ra": ""}, None, "a") is None
    with pytest.raises(UserError, match=r"a: pmra and pmdec are in px: mas/yr"):
        motion_in({"pmra": "px", "pmdec": "px"}, None, "a")
    assert common_epoch([motion, None], [None, 2010.5]) == 2010.5
    assert common_epoch([motion, motion], [None, None]) == common_epoch([motion, None], [None, None]) == 2000
    with pytest.raises(UserError, match="none of the catalogues has proper motions"):
        common_epoch([None, None], [None, None])
    with pytest.raises(UserError, match=r"different epochs: 2000\.0, 2010\.0"):
        common_epoch([motion, None, None], [None, 2010.0, None])
