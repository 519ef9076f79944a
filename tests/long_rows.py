"""Made-up rows of the survey of ``long_survey.py``, and what a loader hands out of them."""

from pathlib import Path

import numpy as np

from tests.long_survey import GROUPS, NAME, SURVEY
from tests.matched import write_survey

ROWS = 30
BANDS = np.array([b"g", b"rr", b"i"])


def values(rows: int = ROWS, seed: int = 7) -> dict:
    """Columns of made-up rows as they are stored: padding at the end of spectra, and anywhere in light curves."""
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 12, rows)
    lengths[:3] = 0, 40, 1
    made: dict = {name: [] for name in SURVEY.by_name}
    for row, length in enumerate(lengths.tolist()):
        wave = 3600 + np.arange(length, dtype=np.float32)
        wave[length - length // 3 :] = -1
        time = np.sort(random.uniform(50_000, 60_000, length))
        time[random.random(length) < 0.3] = 0.0 if row % 2 else np.nan
        made["spectrum_flux"].append(random.normal(size=length).astype(np.float32))
        made["wave"].append(wave)
        made["spectrum_mask"].append(random.random(length) < 0.2)
        made["time"].append(time)
        made["band"].append(BANDS[random.integers(0, 3, length)])
        made["lc_flux"].append(random.normal(size=length).astype(np.float32))
        made["image_band"].append(BANDS)
        made["image_array"].append(random.normal(size=(3, 16, 16)).astype(np.float32))
        made["catalog_flux"].append(random.random(4, np.float32))
        made["catalog_type"].append(random.integers(0, 6, 4).astype(np.int16))
        made["cube"].append(random.integers(0, 99, (length % 3, 2, 3)).astype(np.int16))
        made["panels"].append(random.normal(size=(2, length % 4)))
        made["z"].append(np.float32(random.random()))
    made["ra"], made["dec"] = random.uniform(44.2, 47.8, rows), random.uniform(-1.8, 1.8, rows)
    made["object_id"] = [f"{NAME}{row}" for row in range(rows)]
    return made


def write(root: Path, rows: int = ROWS, rows_a_file: int = 7, **others) -> Path:
    """Partitions of these rows; ``others`` replace columns."""
    columns = {**values(rows), **others}
    ra, dec = columns.pop("ra"), columns.pop("dec")
    columns.pop("healpix", None)
    return write_survey(root, SURVEY, ra, dec, rows_a_file, **columns)


def trimmed(stored: dict, row: int) -> dict:
    """What a loader hands out of a row, padding left out by a plain rule of its own."""
    wave, time = stored["wave"][row], stored["time"][row]
    spectrum, curve = wave != -1, ~(np.isnan(time) | (time == 0))
    found = {
        name: {key: stored[source][row][good] if good is not None else stored[source][row] for key, source in fields.items()}
        for (name, fields), good in zip(GROUPS.items(), (spectrum, curve, None, None), strict=True)
    }
    return found | {name: stored[name][row] for name in ("object_id", "cube", "panels", "z")}


def number(name: str) -> int:
    """Of a row, by its object's name."""
    return int(name.removeprefix(NAME))


def assert_row(got: dict, stored: dict, side: str = "", exact: bool = True) -> None:
    """A row that was handed out is that of the columns stored; ``exact`` in dtypes too. Empty rows may have lost axes."""
    expected = trimmed(stored, number(str(got[f"{side}object_id"])))
    for name, value in expected.items():
        pairs = [(value, got[side + name])]
        if isinstance(value, dict):
            assert set(got[side + name]) == set(value)
            pairs = [(value[key], got[side + name][key]) for key in value]
        for want, found in pairs:
            want, found = np.asarray(want), np.asarray(found)
            if want.dtype.kind in "SU":
                assert found.astype(str).tolist() == want.astype(str).tolist(), name
                continue
            assert not exact or found.dtype == want.dtype, name
            if want.size or exact:
                np.testing.assert_array_equal(found.reshape(want.shape) if not want.size else found, want, name)
            else:
                assert not found.size
