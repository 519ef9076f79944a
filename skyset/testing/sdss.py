"""SDSS Galaxy Zoo's services on this machine: votes and photometry by TAP, images by hips2fits, of made-up galaxies.

::

    python -m skyset.testing.sdss                       # 60 galaxies; prints the command that builds from it
    python -m skyset.testing.sdss --galaxies 5000 --latency 0.03 --chaos 0.1

Images and magnitudes agree with the votes: ellipticals are smooth, red and bright, spirals have arms and are blue, M_r lies
between -17 and -24, and colour against magnitude shows two sequences.

The tables have the names and columns of VizieR's Galaxy Zoo 1 table and of the Astro Data Lab's SDSS tables. Every tenth
galaxy is one that a cut removes (`SPOILT` says how); `Galaxies.good` are the others.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from skyset.command_line import main as run_command
from skyset.testing.hips import BODY_FAULTS, Hips, send_answer, shape_at
from skyset.testing.tap import ServiceHandler, ServiceServer, TapService

BANDS = "ugriz"
#: What is wrong with a galaxy that a cut removes; in turn.
SPOILT = ("size", "petroMag", "modelMag", "errors gri", "errors uz", "clean", "class", "photometry")
FRACTIONS = ("p_el", "p_cw", "p_acw", "p_edge", "p_dk", "p_mg")
VIZIER = {
    "p_el": "pE",
    "p_cw": "pcS",
    "p_acw": "paS",
    "p_edge": "pEd",
    "p_dk": "pDK",
    "p_mg": "pMg",
    "p_cs": "pS",
    "p_el_debiased": "pEc",
    "p_cs_debiased": "pSc",
}
#: What VizieR's TAP_SCHEMA says of its columns of votes, by ours: "Mirrored 1 fraction of votes for ClockWise".
VOTES = {
    "p_el": "Elliptical",
    "p_cw": "ClockWise",
    "p_acw": "AntiClockWise",
    "p_edge": "Edge-on",
    "p_dk": '"Don\'t Know"',
    "p_mg": "Merger",
    "p_cs": "Combined Spiral",
}
#: Kinds of images that the merged table has votes of beside normal ones, by the ends of its columns' names.
STUDIES = {"1": "Mirrored 1", "2": "Mirrored 2", "m": "Monochrome"}


@dataclass
class Galaxies:
    """A made-up catalogue: ``votes`` and ``photometry`` hold arrays (rows,) by SDSS's column names."""

    votes: dict[str, np.ndarray]
    photometry: dict[str, np.ndarray]
    spoilt: np.ndarray

    @property
    def good(self) -> list[str]:
        """objid, as text, of those that pass all cuts."""
        return [str(n) for n, reason in zip(self.votes["objid"].tolist(), self.spoilt.tolist(), strict=True) if not reason]

    def tables(self) -> dict[str, dict[str, np.ndarray] | pa.Table]:
        """The tables that the services hold, by their names there."""
        votes, photo = self.votes, self.photometry
        seen = self.spoilt != "photometry"
        spec = {
            "specobjid": votes["specobjid"],
            "bestobjid": votes["objid"],
            "z": photo["z"],
            "scienceprimary": np.ones(len(seen), np.int32),
        }
        plate = {"objid": votes["objid"], "ra": votes["ra"], "dec": votes["dec"]}
        plate |= {name.lower(): values for name, values in photo.items() if name != "z"}
        return {
            "sdss_dr17.zoospec": votes,
            "sdss_dr17.photoplate": {name: values[seen] for name, values in plate.items()},
            "sdss_dr17.specobj": {name: values[seen] for name, values in spec.items()},
            "J/MNRAS/410/166/galaxies": vizier_table(votes),
        }


def vizier_table(votes: dict[str, np.ndarray]) -> pa.Table:
    """The votes as VizieR has them: the release's tables merged, each column with its description.

    Volunteers said the same of mirrored and monochrome images as of others: those of the next galaxy, so that it shows.
    """
    count = len(votes["ra"])
    shift = np.where(np.arange(count) % 2, 1e-5, -1e-5)  # DR7's positions are a little different
    columns = [
        ("objID", votes["dr7objid"].astype(str), "SDSS object identifier"),
        ("RAJ2000", (votes["ra"] + shift) % 360, "Right ascension (J2000)"),
        ("DEJ2000", votes["dec"], "Declination (J2000)"),
        ("S", np.full(count, "M"), "[MNO] Origin"),
        ("Nt", 3 * votes["nvote"], "Total number of votes"),
        ("N", votes["nvote"], "Number of votes"),
    ]
    columns += [(VIZIER[ours], votes[ours], f"Fraction of votes for {text}") for ours, text in VOTES.items()]
    columns += [
        (VIZIER[f"{ours}_debiased"], votes[f"{ours}_debiased"], f"Debiased fraction of votes for {VOTES[ours]}")
        for ours in ("p_el", "p_cs")
    ]
    columns += [
        (f"f{name[0].upper()}", votes[name], f'[0/1] "{name.title()}" flag')
        for name in ("spiral", "elliptical", "uncertain")
    ]
    for end, kind in STUDIES.items():
        columns.append((f"Nt{end}", votes["nvote"], f"{kind} number of votes"))
        columns += [
            (f"{VIZIER[ours]}{end}", np.roll(votes[ours], 1), f"{kind} fraction of votes for {text}")
            for ours, text in VOTES.items()
        ]
    arrays = [pa.array(values) for _, values, _ in columns]
    fields = [
        pa.field(name, array.type, metadata={"description": text})
        for (name, _, text), array in zip(columns, arrays, strict=True)
    ]
    return pa.table(arrays, schema=pa.schema(fields))


def draw_galaxies(count: int, seed: int = 0, places: Sequence[tuple[float, float]] = ()) -> Galaxies:
    """``count`` galaxies in groups along the whole circle of right ascension, some at its very ends.

    Some are at given ``places``, (ra, dec) in degrees: those of another survey's objects.
    """
    dice = np.random.default_rng(seed)
    centres = np.sort(dice.uniform(0, 360, max(1, count // 12)))
    heights = dice.permutation(np.linspace(-4, 58, len(centres)))
    groups = dice.integers(0, len(centres), count)
    ra, dec = (where[groups] + dice.normal(0, 0.5, count) for where in (centres, heights))
    ra[: min(4, count)] = [0.0, 360 - 1e-6, 1e-6, 5.0][: min(4, count)]
    for number, (there, height) in enumerate(places, 4):
        ra[number], dec[number] = there, height
    order = np.argsort(ra % 360)
    ra, dec = (ra % 360)[order], dec[order]
    shapes = [shape_at(*where) for where in zip(ra.tolist(), dec.tolist(), strict=True)]
    spiral = np.array([shape.spiral for shape in shapes])
    votes = _votes(dice, spiral, count)
    order = dice.permutation(count)
    votes |= {
        "specobjid": 299489676975171584 + order * 2048,
        "objid": 1237648720693755918 + order * 65536 + 1,
        "dr7objid": 587722984435351614 + order * 65536,
        "ra": ra,
        "dec": dec,
    }
    photometry = _photometry(dice, spiral, np.array([shape.radius for shape in shapes]))
    spoilt = np.full(count, "", dtype="U16")
    for turn, row in enumerate(range(7, count, 10)):
        spoilt[row] = SPOILT[turn % len(SPOILT)]
        _spoil(row, spoilt[row], votes, photometry)
    return Galaxies(votes, photometry, spoilt)


def _votes(dice: np.random.Generator, spiral: np.ndarray, count: int) -> dict[str, np.ndarray]:
    volunteers = dice.integers(20, 60, count)
    weights = np.where(spiral[:, None], [0.3, 4, 4, 2, 0.3, 0.2], [9, 0.3, 0.3, 0.3, 0.3, 0.4])
    counts = np.stack([dice.multinomial(n, w) for n, w in zip(volunteers, _dirichlet(dice, weights), strict=True)])
    fractions = np.round(counts / volunteers[:, None], 3)
    votes = {name: fractions[:, i] for i, name in enumerate(FRACTIONS)}
    votes["nvote"] = volunteers.astype(np.int32)
    votes["p_cs"] = np.round(fractions[:, 1:4].sum(axis=1), 3)
    votes["p_el_debiased"] = np.where(spiral, np.minimum(votes["p_el"], 0.2), 0.805 + 0.19 * votes["p_el"])
    votes["p_cs_debiased"] = np.where(spiral, 0.802 + 0.19 * votes["p_cs"], np.minimum(votes["p_cs"], 0.15))
    votes |= {"spiral": spiral.astype(np.int32), "elliptical": (~spiral).astype(np.int32)}
    votes["uncertain"] = np.zeros(count, np.int32)
    return votes


def _dirichlet(dice: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    shares = dice.gamma(3 * weights)
    return shares / shares.sum(axis=1, keepdims=True)


#: Magnitudes in ugriz minus that in r, of spirals and ellipticals; how much they vary, and how they change with M_r.
COLOURS = {True: ([1.75, 0.5, 0, -0.25, -0.4], 0.14, -0.06), False: ([2.65, 0.8, 0, -0.38, -0.68], 0.03, -0.015)}
#: M_r, mag: mean and scatter, of spirals and ellipticals.
BRIGHTNESS = {True: (-20.5, 0.9), False: (-21.7, 0.7)}
#: Galactic extinction by E(B-V), in ugriz (Schlegel et al. 1998).
EXTINCTION = (5.155, 3.793, 2.751, 2.086, 1.479)


def distance_modulus(redshift: np.ndarray) -> np.ndarray:
    """Mag; flat, H0 = 70 km/s/Mpc, Omega_m = 0.3."""
    z = np.linspace(0, 1, 20001)
    distance = np.cumsum(299792.458 / 70 / np.sqrt(0.3 * (1 + z) ** 3 + 0.7)) * (z[1] - z[0]) * (1 + z)
    return 5 * np.log10(np.interp(redshift, z, distance)) + 25


def _photometry(dice: np.random.Generator, spiral: np.ndarray, radius: np.ndarray) -> dict[str, np.ndarray]:
    """Magnitudes that the galaxies' classes have, seen through the Galaxy at the distances that their redshifts tell."""
    count = len(spiral)
    of_class = np.where(spiral, *(np.array([[*BRIGHTNESS[kind]]]).T for kind in (True, False)))
    absolute = np.clip(dice.normal(*of_class), -23.5, -17.5)
    redshifts = np.geomspace(0.01, 0.25, 1000)
    moduli = distance_modulus(redshifts)
    modulus = np.clip(dice.uniform(13.5, 17.5, count) - absolute, moduli[0], moduli[-1])
    photometry: dict[str, np.ndarray] = {"petroR90_r": 2 * radius, "petroR50_r": 2 * radius / np.where(spiral, 2.3, 3.1)}
    (of_spirals, *spirals), (of_others, *others) = COLOURS[True], COLOURS[False]
    scatter, slope = np.where(spiral, np.array([spirals]).T, np.array([others]).T)
    tint = 1 + slope * (absolute + 21) + scatter * dice.normal(size=count)
    reddening = dice.uniform(0.005, 0.1, count)
    for i, band in enumerate(BANDS):
        colour = np.where(spiral, of_spirals[i], of_others[i]) * tint
        extinction = EXTINCTION[i] * reddening
        for kind in ("petroMag", "modelMag"):
            photometry[f"{kind}_{band}"] = absolute + modulus + colour + extinction + dice.normal(0, 0.02, count)
            photometry[f"{kind}Err_{band}"] = dice.uniform(0.002, 0.05, count)
        photometry[f"extinction_{band}"] = extinction
    photometry = {name: values.astype(np.float32) for name, values in photometry.items()}
    flags = 68987912192 + dice.integers(0, 2**20, count)
    redshift = np.interp(modulus, moduli, redshifts).astype(np.float32)
    return photometry | {"z": redshift, "clean": np.ones(count, np.int32), "flags": flags}


def _spoil(row: int, reason: str, votes: dict[str, np.ndarray], photometry: dict[str, np.ndarray]) -> None:
    """Make one galaxy such that just this cut removes it."""
    match reason:
        case "size":
            photometry["petroR90_r"][row] = -9999
        case "petroMag" | "modelMag":
            photometry[f"{reason}_i"][row] = -9999
        case "errors gri":
            photometry["modelMagErr_g"][row] = 0.4
        case "errors uz":
            photometry["modelMagErr_u"][row] = 3
        case "clean":
            photometry["clean"][row] = 0
        case "class":
            votes["uncertain"][row], votes["spiral"][row], votes["elliptical"][row] = 1, 0, 0
            votes["p_el_debiased"][row] = votes["p_cs_debiased"][row] = 0.4


class SDSSServer(ServiceServer):
    """Both services on 127.0.0.1 while the ``with`` block runs.

    Attributes:
        tap_url, hips_url: their addresses.
        tap, hips: the services, at which faults are asked for.
        galaxies: what they serve.
    """

    def __init__(
        self,
        galaxies: Galaxies,
        latency: float = 0.0,
        port: int = 0,
        pictures: Path | None = None,
        south: float = -25,
        **options,
    ) -> None:
        self.galaxies = galaxies
        self.tap, self.hips = TapService(galaxies.tables(), **options), Hips(south=south, folder=pictures)
        super().__init__({self.tap.prefix: self.tap}, latency, port)
        self._http.RequestHandlerClass = type("Handler", (_Both,), {"archive": self})
        self.tap_url, self.hips_url = f"{self.url}tap", f"{self.url}hips2fits"


class _Both(ServiceHandler):
    archive: SDSSServer

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if not parts.path.startswith("/hips2fits"):
            super().do_GET()
            return
        with self.archive.counted():
            self.archive.closing.wait(self.archive.latency)
            answer = self.archive.hips.answer(self.command, parts.path, parts.query, cast(Mapping[str, str], self.headers))
        send_answer(self, answer, self.archive.closing)

    do_POST = do_GET
    do_DELETE = do_GET
    do_HEAD = do_GET


def main(arguments: list[str] | None = None) -> int:
    """Serve until Ctrl-C; 2 where something was asked for wrongly."""
    parser = argparse.ArgumentParser(
        "python -m skyset.testing.sdss", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--port", type=int, default=8001, help="0 takes any free one (default: %(default)s)")
    add("--galaxies", type=int, default=60, metavar="N", help="default: %(default)s")
    add("--seed", type=int, default=0, help="another seed, other galaxies (default: %(default)s)")
    add("--pictures", type=Path, metavar="DIR", help="JPEGs to show instead of drawn galaxies")
    add("--latency", type=float, default=0.0, metavar="S", help="seconds before every answer (default: %(default)s)")
    add("--chaos", type=float, default=0.0, metavar="RATE", help="give this share of the images a random fault")
    asked = parser.parse_args(arguments)
    return run_command(lambda: _serve(asked))


def _serve(asked: argparse.Namespace) -> None:
    galaxies = draw_galaxies(asked.galaxies, asked.seed)
    with SDSSServer(galaxies, asked.latency, asked.port, asked.pictures) as server:
        if asked.chaos:
            server.hips.chaos(asked.seed, asked.chaos, ("500", "503", "404", *BODY_FAULTS))
        try:  # from here on: who reads that Ctrl-C ends it may press it at once
            print(
                f"{asked.galaxies} galaxies, {len(galaxies.good)} of which pass the cuts\n\n"
                f"    skyset build sdss_galaxy_zoo --tiny --tap_url {server.tap_url} --hips_url {server.hips_url} "
                "-o data/sdss\n\n"
                "Ctrl-C ends it.",
                flush=True,
            )
            threading.Event().wait()
        except KeyboardInterrupt:
            print(f"\n{len(server.tap.queries)} queries, {len(server.hips.requests)} images")


if __name__ == "__main__":
    sys.exit(main())
