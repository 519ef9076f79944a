"""A small archive for tests that build it often."""

from pathlib import Path

import pytest

from tests.conftest import once

COUNT = 10  # objects of the small archive, in two cells


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """The first objects of the archive, five in each of two cells, with table and list of their own. Do not change it."""
    from skyset.testing.gz3d import write_archive

    return once(tmp_path_factory, "small", lambda folder: write_archive(folder, COUNT, clustered=True))
