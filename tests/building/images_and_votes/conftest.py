"""Builds and records of the survey of tests, made once."""

from pathlib import Path

import pytest

from skyset.testing.zenodo import ZenodoServer
from tests.building.images_and_votes import builds, zoo
from tests.conftest import once


@pytest.fixture(scope="session")
def galaxies() -> builds.Galaxies:
    return builds.galaxies()


@pytest.fixture(scope="session")
def record(tmp_path_factory, galaxies) -> Path:
    """The files of the record. Do not change it."""
    return once(tmp_path_factory, "zoo_record", galaxies.write_record)


@pytest.fixture
def server(record):
    with ZenodoServer(record, zoo.RECORD) as running:
        yield running


@pytest.fixture(scope="session")
def whole(tmp_path_factory, record) -> Path:
    """All galaxies, from the record's files in a folder. Do not change it."""

    def make(folder: Path) -> None:
        assert builds.build(folder / "zoo", "--local_data_path", record) == 0

    return once(tmp_path_factory, "zoo_built", make) / "zoo"
