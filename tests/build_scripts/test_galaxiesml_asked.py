"""Options of GalaxiesML's build that do not go together: one line that names them, before anything is asked or written."""

import json

import pytest

from skyset.build_scripts.galaxiesml.asked import shared
from skyset.build_scripts.galaxiesml.build_parent_sample import SCRIPT, main


@pytest.fixture
def places(tmp_path):
    """A folder, a table and what is none."""
    (tmp_path / "in").mkdir()
    (tmp_path / "splits.csv").write_text("object_id,split\n1,train\n2,test\n")
    (tmp_path / "bad.csv").write_text("object_id,split\n1,somewhere\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments, words",
    [
        ("--local_data_path in --published", "--local_data_path, --published do not go together"),
        ("--local_data_path in --from_tar in", "--local_data_path, --from_tar do not go together"),
        ("--published --catalog x --psf", "--catalog, --psf would be ignored with --published"),
        ("--local_data_path in --planes image mask", "--planes would be ignored with --local_data_path"),
        ("--local_data_path in --pad nan --cuts paper", "--cuts, --pad would be ignored"),
        ("--published --splits splits.csv --half_size 12", "--splits, --half_size would be ignored"),
        ("--local_data_path in --rerun pdr2_dud --no_sersic", "--rerun, --no_sersic would be ignored"),
        ("--local_data_path in --centring published", "--centring would be ignored"),
        ("--local_data_path in --record 5 --keep_raw", "--keep_raw, --record would be ignored with --local_data_path"),
        ("--keep_raw", "--keep_raw would be ignored without --published"),
        ("--from_tar in --catalog x --half_size 12", "--catalog, --half_size would be ignored with --from_tar"),
        ("--from_tar in --cuts paper --rerun pdr2_dud", "--cuts, --rerun would be ignored with --from_tar"),
        ("--archive_url ftp://example.org", "--archive_url ftp://example.org is not an http(s) address"),
        ("--archive_url example.org", "--archive_url example.org is not an http(s) address"),
        ("--archive_url http://", "is not an http(s) address"),
        ("--archive_url http://example.org:port", "is not an http(s) address"),
        ("--published --zenodo_url zenodo.org", "--zenodo_url zenodo.org is not an http(s) address"),
        ("--single_files in --configs tabular", "--single_files needs images: one of 127, 64 among --configs"),
        ("--splits bad.csv", "the split of 1 is 'somewhere'"),
        ("--splits nothing.csv", "nothing.csv"),
    ],
)
def test_what_would_be_ignored_or_cannot_work_is_one_line(places, capsys, monkeypatch, arguments, words):
    monkeypatch.chdir(places)
    assert main(["-o", "out", *arguments.split()]) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1
    assert not (places / "out").exists()


def test_the_options_that_all_datasets_of_a_folder_share(places):
    def of(*arguments):
        return shared(SCRIPT.parser().parse_args(list(arguments)))

    plain = of()
    assert json.loads(json.dumps(plain)) == plain and of("--tiny", "--configs", "64", "--strict") == plain
    splits = str(places / "splits.csv")
    for arguments in (
        ["--no_sersic"],
        ["--pad", "nan"],
        ["--centring", "published"],
        ["--cuts", "paper"],
        ["--splits", splits],
        ["--half_size", "12"],
        ["--rerun", "pdr2_dud"],
        ["--psf"],
    ):
        assert {name for name, value in of(*arguments).items() if value != plain[name]} == {arguments[0]}
    before = of("--splits", splits)
    (places / "splits.csv").write_text("object_id,split\n2,test\n1,train\n")
    assert of("--splits", splits) == before
    (places / "splits.csv").write_text("object_id,split\n2,test\n1,test\n")
    assert of("--splits", splits) != before
    assert of("--planes", "mask", "image") == of("--planes", "image", "mask") != plain
