"""Data that several tests of trainings share; do not change them."""

from pathlib import Path

import pytest

from tests.conftest import once


@pytest.fixture(scope="session")
def survey(tmp_path_factory) -> Path:
    """The survey gz_decals built from 60 simulated galaxies and 20 volunteers for each."""

    from skyset.testing.votes import write_votes

    def make(folder: Path) -> None:
        from skyset.build_scripts.gz_decals.build_parent_sample import main as build

        write_votes(folder / "raw", 60, seed=3, volunteers=20, side=32)
        words = ["--local_data_path", str(folder / "raw"), "-o", str(folder / "gz_decals"), "--num_processes", "1"]
        assert build(words) == 0

    return once(tmp_path_factory, "votes_survey", make) / "gz_decals"


@pytest.fixture(scope="session")
def galaxiesml(tmp_path_factory):
    """40, 12 and 12 galaxies; do not change them."""
    from tests.photoz import write_galaxiesml  # it needs torch

    return once(tmp_path_factory, "photoz_galaxiesml", write_galaxiesml) / "galaxiesml"
