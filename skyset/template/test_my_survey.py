"""Made-up objects in the form of the survey's files are built and loaded: python -m pytest my_survey, after each change."""

import csv

import pytest

import skyset
from skyset.template.build_my_survey import NAMES, main
from skyset.template.my_survey import CLASSES, SURVEY
from skyset.testing.image_folder import write_objects

OBJECTS = 5


@pytest.fixture
def raw(tmp_path):
    """A folder with ``photos`` and ``catalogue.csv``; how the test's own files can be changed is up to it."""
    write_objects(tmp_path, SURVEY, NAMES, CLASSES, OBJECTS)
    return tmp_path


def build(raw):
    """Exit status; the partitions are in ``raw / "built"``."""
    where = ["--local_data_path", raw / "photos", "--table", raw / "catalogue.csv", "-o", raw / "built"]
    return main([*map(str, where), "--num_processes", "1"])


def load(raw):
    skyset.register(SURVEY.name, "skyset.template.my_survey")
    rows = skyset.load(SURVEY.name, data_dir=str(raw / "built"))
    return {row["object_id"]: row for row in rows}


def test_every_object_is_built_with_the_values_of_the_table(raw):
    assert build(raw) == 0
    rows = load(raw)
    with open(raw / "catalogue.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert len(rows) == len(table) == OBJECTS
    for line in table:
        row = rows[line[NAMES.object_id]]
        assert row["ra"] == pytest.approx(float(line[NAMES.ra])) and row["dec"] == pytest.approx(float(line[NAMES.dec]))
        for name, known in CLASSES.items():
            assert known[row[name]] == line[name]


def test_every_column_is_there_with_its_dtype_and_shape(raw):
    build(raw)
    for row in load(raw).values():
        for column in SURVEY.columns:
            value = row[column.name]
            if column.is_bytes:  # decoded: uint8 (height, width, 3)
                assert value.dtype == "uint8" and value.ndim == 3
            elif not column.is_text:
                assert (value.dtype, value.shape) == (column.dtype, column.shape), column.name


def test_a_damaged_image_is_rejected_and_the_others_are_built(raw):
    victim = min((raw / "photos").iterdir())
    victim.write_bytes(victim.read_bytes()[:100])
    assert build(raw) == 1
    assert len(load(raw)) == OBJECTS - 1
    assert victim.name in (raw / "built" / "rejected.csv").read_text()
