"""Reports and benchmarks of ragged columns: how long rows are, what values they have, and what differs between builds."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

import skyset
from skyset.cli import app
from skyset.cli.places import build_of
from skyset.explore.bench.measure import open_target
from skyset.explore.report import sample as sampling
from skyset.explore.report.command import look, page
from skyset.explore.report.compare import Comparison
from skyset.explore.report.sample import take
from tests import long_rows
from tests.conftest import once
from tests.long_survey import NAME
from tests.publishing.test_verify import write_pushed

STORED = long_rows.values()
TRIMMED = [long_rows.trimmed(STORED, row) for row in range(long_rows.ROWS)]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folders ``source`` and ``pushed``. Do not change them."""
    skyset.register(NAME, "tests.long_survey")

    def make(folder):
        long_rows.write(folder / "source")
        write_pushed(folder / "source", folder / "pushed")

    return once(tmp_path_factory, "long_rows_reported", make)


def of(group: str, key: str) -> list[np.ndarray]:
    return [row[group][key] for row in TRIMMED]


@pytest.mark.parametrize("form", ["source", "pushed"])
def test_values_and_lengths_are_those_without_padding(made, form):
    found = take(build_of(str(made / form)), 1000, 0)
    assert found.whole and not found.problems
    for name, rows in {
        "spectrum_flux": of("spectrum", "flux"),
        "time": of("lightcurve", "time"),
        "cube": [row["cube"] for row in TRIMMED],
        "panels": [row["panels"] for row in TRIMMED],
    }.items():
        values, lengths = found.elements[name]
        np.testing.assert_array_equal(np.sort(values), np.sort(np.concatenate([row.ravel() for row in rows])))
        axis = 1 if name == "panels" else 0
        assert sorted(lengths.tolist()) == sorted(row.shape[axis] for row in rows)
        np.testing.assert_array_equal(found.lengths(name), lengths)
    if form == "source":
        assert sorted(found.values["time"].tolist()) == sorted(map(len, STORED["time"]))


def test_of_long_rows_only_the_lengths_are_read(made, monkeypatch):
    monkeypatch.setattr(sampling, "ELEMENT_BYTES", 100)
    monkeypatch.setattr(sampling, "PIXELS_FROM", 60)
    found = take(build_of(str(made / "source")), 1000, 0)
    assert sum(len(values) * values.itemsize for values, _ in found.elements.values()) < 60 * 10 * 12
    assert len(found.values["spectrum_flux"]) == long_rows.ROWS
    for name, (values, lengths) in found.elements.items():
        steps = {"cube": 6, "panels": 2}.get(name, 1)
        assert len(values) == lengths.sum() * steps


def test_the_page_tells_both(made):
    text = page(look(build_of(str(made / "source")), count=2))
    flux = np.concatenate(of("spectrum", "flux"))
    assert f"rows of 0 to {max(map(len, of('spectrum', 'flux')))}, median" in text
    assert "spectrum_flux: length of a row" in text and "any&nbsp;\u00d7&nbsp;2&nbsp;\u00d7&nbsp;3" in text
    shown = re.search(r"Histogram of spectrum_flux: ([\d,]+) values", text)
    assert shown and int(shown[1].replace(",", "")) == len(flux)
    assert text.count("<img") >= 2 and "has no" not in text


def test_builds_of_other_values_are_told_apart(made, tmp_path):
    flux = [value.copy() for value in STORED["lc_flux"]]
    flux[1][3] += 2
    times = [*STORED["time"][:5], STORED["time"][5][:-1], *STORED["time"][6:]]
    long_rows.write(tmp_path / "other", lc_flux=flux, time=times)
    told = Comparison(build_of(str(made / "source")), build_of(str(tmp_path / "other"))).run()
    assert not told.problems
    assert {name: each.different for name, each in told.changed.items() if each.different} == {"lc_flux": 1, "time": 1}
    assert told.changed["lc_flux"].largest == pytest.approx(2)
    assert "1 of 40 elements, [3]" in told.changed["lc_flux"].examples[0].before
    assert told.changed["time"].examples[0].after == f"{len(times[5])} values"


def test_a_benchmark_counts_the_bytes_that_are_handed_out(made):
    target = open_target(made / "source")
    fixed = sum(column.row_bytes for column in target.survey.columns if not column.is_ragged)
    assert fixed < target.row_bytes < fixed + 40 * 30


@pytest.mark.parametrize(
    ("form", "command"),
    [("source", "info"), ("source", "verify"), ("source", "report"), ("source", "show"), ("pushed", "report")],
)
def test_commands_take_them(made, form, command, tmp_path):
    output = {"report": ["-o", str(tmp_path / "r.html")], "show": ["--limit", "3", "-o", str(tmp_path / "s.png")]}
    done = CliRunner().invoke(app, [command, str(made / form), *output.get(command, [])])
    assert done.exit_code == 0, done.output
