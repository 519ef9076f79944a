"""What a user sees who types ``skyset``: tables, pictures, one-line errors and exit statuses."""

import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet
from typer.testing import CliRunner

from skyset import __version__, load
from skyset.building.card import card_path, refresh
from skyset.cli import app
from skyset.errors import UserError
from skyset.explore.info import ra_range, sky_figure
from skyset.explore.objects import object_figure, row_figure
from skyset.figures import COLOURS, overlay_figure
from skyset.loading import registry
from skyset.partitions.manifest import Manifest


def skyset(*arguments) -> tuple[int, str]:
    """Exit status, and all that was printed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def copy(built, tmp_path):
    return shutil.copytree(built, tmp_path / "gz3d")


def test_help_names_every_command_and_where_to_start():
    status, text = skyset("--help")
    assert status == 0
    for command in ("new", "build", "info", "verify", "show", "surveys", "card"):
        assert re.search(rf"\b{command}\b", text)
    assert "skyset build gz3d --tiny" in text


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("http://ali:S3cr1234pw@h/", "No such command 'http://***@h/'"),
        ("info a http://h/?token=S3cr1234pw", "unexpected extra argument(s) (http://h/?token=***"),
        ("show --http://ali:S3cr1234pw@h/", "No such option: --http://***@h/"),
        ("--http://ali:S3cr1234pw@h/", "No such option: --http://***@h/"),
        ("similar a --to b --k http://ali:S3cr1234pw@h/", "Invalid value for '--k'"),
    ],
)
def test_usage_errors_show_no_login(line, shown):
    status, text = skyset(*line.split())
    assert status == 2 and shown in text and "S3cr1234pw" not in text


def test_build_lists_surveys_and_hands_options_on(capsys):
    for arguments, status in ((["build"], 0), (["build", "--help"], 0), (["build", "--tiny"], 2)):
        told, text = skyset(*arguments)
        listed = f"SURVEY is one of: {', '.join(registry.buildable())}"
        assert told == status and "─ Arguments ─" in text and listed in " ".join(text.replace("│", " ").split())
    with pytest.raises(SystemExit) as end:
        registry.build_script("gz3d").main(["--help"], program="skyset build gz3d")
    assert end.value.code == 0
    text = capsys.readouterr().out
    options = "tiny limit keep_fits local_data_path num_processes scheduler strict vote_fraction_cut files_per_object"
    for option in (*options.split(), "compression", "base_url", "max_connections"):
        assert f"--{option}" in text


@pytest.mark.parametrize("survey", registry.buildable())
def test_help_of_a_build_looks_like_that_of_the_other_commands(survey, capsys, monkeypatch):
    """A panel per group, each option once with its default, one example a line; the same text from script and command."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 140)
    script, texts = registry.build_script(survey), []
    for program in (f"skyset build {survey}", "build_parent_sample.py"):
        with pytest.raises(SystemExit) as end:
            script.main(["-h"], program=program)
        assert end.value.code == 0
        texts.append(capsys.readouterr().out.replace(f"Usage: {program}", "Usage: PROGRAM"))
    assert [line.rstrip() for line in texts[0].splitlines()] == [line.rstrip() for line in texts[1].splitlines()]
    assert "Usage: PROGRAM [OPTIONS]" in texts[0] and f"(default: data/{survey})" in texts[0]
    parser = script.parser()
    for group in parser._action_groups[2:]:
        assert f"─ {group.title} ─" in texts[0]
    for action in parser._actions:
        assert re.search(rf"^│ {action.option_strings[-1]}\s", texts[0], re.MULTILINE), action
    examples = texts[0].split("Examples:")[1]
    assert sum(line.startswith((" skyset build", " python")) for line in examples.splitlines()) >= 2


def test_help_shows_where_an_option_takes_several_values(capsys, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 140)
    with pytest.raises(SystemExit):
        registry.build_script("galaxiesml").main(["--help"], program="skyset build galaxiesml")
    text = capsys.readouterr().out
    for option, takes in (("planes", "NAME [.]{3}"), ("configs", "NAME [.]{3}"), ("pad", "NAME +0")):
        assert re.search(rf"--{option} +{takes}", text), option


def test_a_wrong_option_of_a_build_is_three_lines(capsys):
    with pytest.raises(SystemExit) as end:
        registry.build_script("gz3d").main(["--limt", "3"], program="skyset build gz3d")
    told = [
        "Usage: skyset build gz3d [OPTIONS]",
        "Try 'skyset build gz3d --help' for help.",
        "skyset build gz3d: error: unrecognized arguments: --limt 3",
    ]
    assert (end.value.code, capsys.readouterr().err.splitlines()) == (2, told)


def test_build_from_the_command_line(archive, tmp_path):
    status, text = skyset(
        "build", "gz3d", "--tiny", "--local_data_path", archive, "-o", tmp_path / "out", "--num_processes", 1
    )
    assert status == 0
    assert "gz3d: 5 rows in" in text
    assert Manifest.load(tmp_path / "out").rows == 5


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("show", "gz4d"), "unknown survey 'gz4d'; known: "),
        (("build", "gz4d"), "unknown survey 'gz4d'; known: "),
        (("info", "nowhere"), "no manifest.json in nowhere"),
        (("verify", "nowhere"), "no manifest.json in nowhere"),
        (("show", "gz3d", "--data_dir", "nowhere"), "no manifest.json in"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_status_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, text = skyset(*arguments)
    assert status == 2
    assert message in text
    assert text.count("\n") == 1


def test_info_tells_rows_cells_bytes_units_and_sky(built, tmp_path):
    status, text = skyset("info", built, "--plot", tmp_path / "sky.png")
    manifest = Manifest.load(built)
    cells = len({entry.healpix for entry in manifest.files})
    assert status == 0
    assert re.search(r"rows +24\b", text)
    assert f"{cells} cells" in text
    assert f"{manifest.bytes / 1e6:.3g} MB" in text
    assert re.search(r"wcs_crval +float64 +2 +deg", text)
    assert f"{cells * 41252.96 / 3072:,.0f} deg2" in " ".join(text.split())
    with Image.open(tmp_path / "sky.png") as picture:
        assert picture.size[0] > 600


def test_verify_says_ok_or_names_each_difference(copy):
    status, text = skyset("verify", copy)
    assert (status, "OK: 24 rows" in text) == (0, True)
    victim = sorted(copy.glob("healpix=*/*.hdf5"))[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    status, text = skyset("verify", copy)
    assert status == 1
    assert f"{victim.relative_to(copy)}: SHA-256" in text


def test_show_draws_the_named_object(built, tmp_path):
    picture = tmp_path / "x.png"
    status, text = skyset("show", "gz3d", "--object", "1-106630", "--data_dir", built, "-o", picture)
    assert status == 0
    assert str(picture) in text
    pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
    for colour in COLOURS[:4]:  # the key shows each class in its colour
        wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels.astype(int) - wanted).max(1) <= 2).sum() > 50


def test_show_finds_nothing_or_cannot_write(built, tmp_path):
    status, text = skyset("show", "gz3d", "--object", "9-9", "--data_dir", built, "-o", tmp_path / "x.png")
    assert (status, "no object 9-9" in text) == (2, True)
    status, text = skyset("show", "gz3d", "--data_dir", built, "-o", tmp_path / "no" / "x.png")
    assert (status, "cannot write" in text) == (2, True)
    status, text = skyset("show", "gz3d", "--data_dir", built, "-o", tmp_path / "x.psd")
    assert (status, "cannot write" in text) == (2, True)


def test_object_is_found_by_its_unique_name_too(built):
    title = object_figure(registry.survey("gz3d"), str(built), "1-106630_127_14715787").get_suptitle()
    assert title.startswith("MaNGA 1-106630")


def test_overlay_key_tells_the_counts():
    masks = np.zeros((2, 8, 8), np.uint8)
    masks[0, 2:4, 2:4] = 7
    figure = overlay_figure(np.zeros((8, 8, 3), np.uint8), masks, ["arm", "bar"], scale_arcsec=0.5, origin="upper")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["arm: up to 7", "bar: none drawn"]
    assert figure.axes[0].get_xlim() == (2, -2)  # east is left


def test_sky_figure_puts_right_ascension_where_astronomers_expect_it(built):
    """East is left: 8 h stands left of 0 h, and a cell at RA 120 deg lies at x = -120 deg."""
    manifest = Manifest.load(built)
    axes = sky_figure(manifest).axes[0]
    below = {text.get_text(): text.get_position() for text in axes.texts}
    assert below["8 h"] == (pytest.approx(0.5 - 120 / 360), -0.03) and below["16 h"][0] == pytest.approx(0.5 + 120 / 360)
    assert "right ascension at the equator (ICRS)" in below and axes.get_ylabel() == "declination (ICRS)"
    points = np.asarray(axes.collections[0].get_offsets())
    wanted = {entry.healpix: -((entry.ra[0] + 180) % 360 - 180) for entry in manifest.files}
    assert np.degrees(points[:, 0]) == pytest.approx(list(wanted.values()), abs=5)


def test_commands_take_a_folder_or_the_name_of_a_survey(built, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKYSET_DATA", str(built.parent))
    for where in ("gz3d", built):
        status, text = skyset("info", where, "--json")
        assert status == 0 and json.loads(text)["rows"] == 24
        assert skyset("show", where, "-o", "a.png")[0] == 0
        assert skyset("verify", where)[0] == 0
    monkeypatch.delenv("SKYSET_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, how in (("gz3d", "skyset build gz3d --tiny"), ("crossmatch", "skyset crossmatch LEFT RIGHT --partitions DIR")):
        status, text = skyset("show", name)
        assert status == 2 and f"no {name} partitions found: name their folder, or `{how}` first" in text


def test_info_of_a_survey_without_data_tells_what_it_declares_and_where_data_were_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SKYSET_DATA", raising=False)
    status, text = skyset("info", "gz3d")
    assert status == 0 and text.startswith("Galaxy Zoo: 3D") and "no gz3d partitions found" in text
    status, text = skyset("info", "gz3d", "--json")
    assert status == 2 and text.count("\n") == 1


def test_info_saves_its_plot_before_it_prints(built, tmp_path):
    assert skyset("info", built, "--json", "--plot", tmp_path / "sky.png")[0] == 0
    assert skyset("info", built, "--plot", tmp_path / "a.png")[1].startswith("wrote ")


@pytest.mark.parametrize(
    ("bounds", "wanted"),
    [
        ([(10, 20), (15, 30)], (10, 30)),
        ([(350, 359.5), (0.5, 5)], (350, 5)),
        ([(0.25, 359.75)], (359.75, 0.25)),  # one file on both sides of 0
        ([(0, 10), (100, 120), (350, 360)], (350, 120)),
        ([(0, 100), (90, 200), (190, 300), (290, 360)], (0, 360)),
        ([(5, 5)], (5, 5)),
    ],
)
def test_right_ascensions_around_zero_are_one_short_range(bounds, wanted):
    assert ra_range(bounds) == wanted


def test_surveys_tells_where_data_were_found(built, monkeypatch):
    monkeypatch.setenv("SKYSET_DATA", str(built.parent))
    monkeypatch.setenv("COLUMNS", "300")
    assert "Galaxy Zoo: 3D" in skyset("surveys")[1]


def test_card_agrees_with_the_declaration(tmp_path):
    """Run `skyset card gz3d` if this fails."""
    card = registry.build_script("gz3d").__file__.replace("build_parent_sample.py", "README.md")
    mine = shutil.copy(card, tmp_path / "README.md")
    assert refresh(tmp_path / "README.md", registry.survey("gz3d")) is False
    text = mine.read_text()
    assert "| `ra` | float32 |  | deg |" in text and "10.1093/mnras/stab2282" in text
    mine.write_text(text.replace("| `ra` | float32 |", "| `ra` | float64 |"))
    assert refresh(mine, registry.survey("gz3d")) is True
    assert mine.read_text() == text


def test_info_lists_columns_with_whole_names(built):
    status, text = skyset("info", built, "--columns")
    lines = text.splitlines()
    columns = Manifest.load(built).columns
    assert status == 0 and [line.split()[0] for line in lines] == ["column", *(column.name for column in columns)]
    assert all(line.endswith(column.description) for line, column in zip(lines[1:], columns, strict=True))


def test_info_for_programs(built):
    status, text = skyset("info", built, "--json")
    told = json.loads(text)
    assert (status, told["survey"], told["config"], told["rows"]) == (0, "gz3d", "default", 24)
    assert told["splits"] == {"train": 24}
    assert told["bytes"] == sum(path.stat().st_size for path in built.glob("healpix=*/*.hdf5"))
    image = next(column for column in told["columns"] if column["name"] == "false_color")
    assert (image["dtype"], image["shape"]) == ("uint8", [525, 525, 3])
    assert told["ra"][0] <= told["ra"][1] and told["dec"][0] <= told["dec"][1]


# --- a survey of one's own ----------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A folder with three JPEGs, their CSV and the loader, in which one works."""
    monkeypatch.setattr(registry, "_modules", dict(registry._modules))
    monkeypatch.setattr("sys.path", list(sys.path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copy(Path(__file__).with_name("own_survey.py"), "mine.py")
    Path("raw").mkdir()
    lines = [f"g{n},{150 + n},{2 + n},{17.5 + n}" for n in range(3)]
    Path("raw/objects.csv").write_text("\n".join(["object_id,ra,dec,mag_r", *lines]))
    for n in range(3):
        Image.new("RGB", (16, 16), (40 * n, 100, 200)).save(f"raw/g{n}.jpg", quality=95)
    return tmp_path


def test_a_survey_in_a_file_is_built_listed_shown_and_described(mine):
    status, text = skyset("build", "my_survey", "--local-data-path", "raw", "--num-processes=2", "--module", "mine.py")
    assert status == 0, text
    assert Manifest.load(mine / "data/my_survey").rows == 3
    assert "Galaxies of mine" in skyset("--module", "mine.py", "surveys")[1]
    status, text = skyset("show", "my_survey", "--module=mine.py", "--object", "g1", "-o", "g1.png")  # it has no plot
    assert (status, "wrote g1.png" in text) == (0, True), text
    row = next(iter(load("my_survey", data_dir="data/my_survey")))
    assert row["image"].shape == (16, 16, 3) and row["mag_r"].dtype == np.float32
    assert skyset("verify", "data/my_survey", "--module", "mine.py")[0] == 0


def test_a_row_without_a_plot_is_drawn_with_its_values_and_units(mine):
    skyset("build", "my_survey", "--local_data_path", "raw", "--num_processes", 1, "--module", "mine.py")
    figure = object_figure(registry.survey("my_survey"), "data/my_survey", "g2")
    picture, values = figure.axes
    assert picture.get_images()[0].get_array().shape == (16, 16, 3)
    assert {"object_id: g2", "ra: 152 deg", "mag_r: 19.5 mag"} <= set(values.texts[0].get_text().splitlines())


def test_many_planes_are_drawn_side_by_side():
    row = {"object_id": "a", "flux": np.zeros((5, 32, 32), np.float32), "spectrum": np.zeros(1000), "pair": np.array([1, 2])}
    figure = row_figure(row, registry.survey("crossmatch"))
    assert [axes.get_title() for axes in figure.axes] == [*(f"flux[{n}]" for n in range(5)), ""]
    assert {"spectrum: float64, 1000", "pair: [1, 2]"} <= set(figure.axes[-1].texts[0].get_text().splitlines())


def test_card_is_written_where_there_is_none_and_kept_where_people_wrote(mine):
    registry.register_module("mine.py")
    status, text = skyset("card", "my_survey", "CARD.md")
    assert (status, text) == (0, "CARD.md: written\n")
    card = Path("CARD.md").read_text()
    assert "| `mag_r` | float32 |  | mag | r-band magnitude |" in card and "@misc{me" in card and "CC-BY-4.0" in card
    from huggingface_hub import DatasetCard

    assert DatasetCard(card).data.pretty_name == "Galaxies of mine"
    Path("CARD.md").write_text(card.replace("r-band magnitude", "?").replace("## Load", "My own words.\n\n## Load"))
    assert skyset("card", "my_survey", "CARD.md") == (0, "CARD.md: brought up to date\n")
    assert "My own words." in Path("CARD.md").read_text() and "r-band magnitude" in Path("CARD.md").read_text()
    assert skyset("card", "my_survey", "CARD.md") == (0, "CARD.md: is up to date\n")


def test_a_build_leaves_its_card_and_never_somebody_elses_text(mine, built):
    card = (built / "README.md").read_text()
    assert card == card_path("gz3d").read_text() and "# Galaxy Zoo: 3D" in card
    options = ("build", "my_survey", "--local_data_path", "raw", "--num_processes", 1, "--module", "mine.py")
    assert skyset(*options)[0] == 0
    assert "# Galaxies of mine" in Path("data/my_survey/README.md").read_text()
    Path("data/my_survey/README.md").write_text("mine\n")
    assert skyset(*options, "--overwrite")[0] == 0
    assert Path("data/my_survey/README.md").read_text() == "mine\n"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("nothing.py", "--module nothing.py: there is no such file"),
        ("no.such.module", "--module no.such.module: ModuleNotFoundError: No module named 'no'"),
        ("broken.py", "--module broken.py: SyntaxError: "),
        ("ends.py", "--module ends.py: SystemExit: 0"),
        ("json", "--module json: AttributeError: module 'json' has no attribute 'SURVEY'"),
    ],
)
def test_a_module_that_is_no_survey_is_one_line(mine, module, said):
    Path("broken.py").write_text("def (")
    Path("ends.py").write_text("import sys\nsys.exit(0)\n")
    status, text = skyset("surveys", "--module", module)
    assert status == 2 and f"skyset: {said}" in text and len(text.splitlines()) == 1


def test_surveys_of_installed_packages_are_known(mine, monkeypatch):
    """A package declares ``skyset.surveys = my_survey = mine``; one that is broken hides no other."""
    for name, module in (("my_survey", "mine"), ("torn", "no_such_module"), ("gz3d", "mine")):
        folder = mine / f"{name}_package-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n")
        (folder / "entry_points.txt").write_text(f"[skyset.surveys]\n{name} = {module}\n")
    monkeypatch.syspath_prepend(mine)
    registry._register_entry_points.cache_clear()
    assert {"my_survey", "torn", "gz3d"} <= set(registry.surveys())
    assert registry.loader("gz3d").__name__ == "skyset.loaders.gz3d"
    assert "my_survey" in registry.buildable() and "torn" not in registry.buildable()
    status, text = skyset("surveys")
    assert status == 0 and "Galaxies of mine" in text and "cannot be loaded" in text
    registry._register_entry_points.cache_clear()


# --- the command line -----------------------------------------------------------------------------------


def test_version():
    assert skyset("--version") == (0, f"skyset {__version__}\n")


def test_options_are_read_with_dashes_and_with_underscores(built, tmp_path):
    for dash in ("--data_dir", "--data-dir"):
        status, text = skyset("show", "gz3d", dash, built, "--image" + dash[6] + "size", "64", "-o", tmp_path / "a.png")
        assert status == 0, text
    with pytest.raises(SystemExit) as end:
        registry.build_script("gz3d").main(["--num-processes", "0"])
    assert end.value.code == 2
    for survey in registry.buildable():
        parser = registry.build_script(survey).parser()
        for action in parser._actions:
            name = action.option_strings[-1]
            assert "-" not in name[2:]
            values = ["1"] * (action.nargs if isinstance(action.nargs, int) else 1)
            if action.type in (Path, str, None) and action.choices is None and name != "--help":
                given = parser.parse_args([name.replace("_", "-").replace("--", "--", 1), *values])
                assert getattr(given, action.dest) not in (None, action.default)


def complete(line: str) -> list[str]:
    """What a shell offers for a line that ends at the cursor."""
    words = line.split(" ")
    environment = {"_SKYSET_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return CliRunner(env=environment).invoke(app, prog_name="skyset").stdout.split()


def test_the_shell_completes_commands_surveys_and_options():
    assert complete("skyset cro") == ["crossmatch"]
    assert complete("skyset show gz3") == ["gz3d"]
    assert complete("skyset build sdss") == ["sdss_galaxy_zoo"]
    for written in ("--vote", "--vote-fr", "--vote_fr"):
        assert complete(f"skyset build gz3d {written}") == ["--vote_fraction_cut"]
    assert "--install-completion" in skyset("--help")[1]


def test_card_without_markers_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("# nothing\n")
    with pytest.raises(UserError, match="no block"):
        refresh(tmp_path / "README.md", registry.survey("gz3d"))


def test_card_header_can_be_read_by_the_hub():
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(registry.build_script("gz3d").__file__.replace("build_parent_sample.py", "README.md"))
    assert card.data.configs[0]["data_files"][0]["split"] == "train"
    assert card.data.pretty_name == "Galaxy Zoo: 3D"


def test_manifest_is_plain_json_that_others_can_read(built):
    manifest = json.loads((built / "manifest.json").read_text())
    assert manifest["rows"] == 24 == sum(entry["rows"] for entry in manifest["files"])
    assert {c["name"]: c["unit"] for c in manifest["columns"]}["ra"] == "deg"


def test_similar_objects_are_listed_and_drawn(built_sdss, tmp_path):
    """Who looks most like a galaxy is found by a description that does not change when an image is turned."""
    objects = [row["object_id"] for row in load("sdss_galaxy_zoo", data_dir=str(built_sdss)).select_columns(["object_id"])]
    picture = tmp_path / "similar.png"
    status, text = skyset("similar", str(built_sdss), "--to", objects[5], "--k", "4", "-o", str(picture))
    assert status == 0 and picture.read_bytes().startswith(b"\x89PNG")
    lines = [line.split() for line in text.splitlines() if line.startswith(("0.", "-0.", "1."))]
    assert len(lines) == 4 and objects[5] not in [name for _, name in lines] and {name for _, name in lines} <= set(objects)
    assert [float(cosine) for cosine, _ in lines] == sorted((float(cosine) for cosine, _ in lines), reverse=True)


def test_vectors_of_a_network_come_before_a_description(built_sdss, tmp_path):
    objects = [row["object_id"] for row in load("sdss_galaxy_zoo", data_dir=str(built_sdss)).select_columns(["object_id"])]
    vectors = np.eye(len(objects), dtype=np.float32) + 0.01
    vectors[3] = vectors[9] * 2
    columns = {f"feat_{i}": vectors[:, i] for i in range(len(objects))}
    parquet.write_table(pa.table({"object_id": objects, **columns}), tmp_path / "features.parquet")
    status, text = skyset(
        "similar",
        str(built_sdss),
        "--to",
        objects[9],
        "--k",
        "1",
        "-o",
        str(tmp_path / "p.png"),
        "--representations",
        str(tmp_path / "features.parquet"),
    )
    assert status == 0 and f"1.0000  {objects[3]}" in text
    status, text = skyset("similar", str(built_sdss), "--to", "nobody")
    assert status == 2 and "no object nobody" in text


@pytest.mark.parametrize("arguments", [["--base_ulr", "http://a:Secret12@h/"], ["--limit", "http://a:Secret12@h/"]])
def test_what_was_typed_wrongly_is_said_without_logins(arguments, capsys):
    with pytest.raises(SystemExit):
        registry.build_script("gz3d").main(arguments)
    error = capsys.readouterr().err
    assert "http://***@h/" in error and "Secret12" not in error


RESULTS_OVER_INPUTS = [
    (["extract", "image.fits", "-o", "image.fits"], "the image"),
    (["extract", "image.fits[0]", "-o", "./image.fits"], "the image"),
    (["extract", "image.fits", "--plot", "image.fits"], "the image"),
    (["extract", "image.fits", "-c", "my.sex", "-o", "my.sex"], "the configuration"),
    (["extract", "image.fits", "-p", "my.param", "-o", "my.param"], "the list of columns"),
    (["extract", "image.fits", "--weight", "w.fits", "-o", "w.fits"], "the weights"),
    (["extract", "image.fits", "-o", "x.png", "--plot", "x.png"], "the catalogue"),
    (["crossmatch", "a.csv", "b.csv", "-o", "a.csv"], "the left catalogue"),
    (["crossmatch", "a.csv", "b.csv", "-o", "b.csv"], "the right catalogue"),
    (["crossmatch", "a.csv", "b.csv", "-o", "link.csv"], "the right catalogue"),
    (["bench", "data", "--json", "data/manifest.json"], "the folder's manifest"),
    (["similar", "data", "--to", "1", "--representations", "v.png", "-o", "v.png"], "the representations"),
]


@pytest.mark.parametrize(("words", "what"), RESULTS_OVER_INPUTS, ids=lambda value: " ".join(value[:1] + value[-1:]))
def test_no_result_takes_the_place_of_what_it_is_made_of(tmp_path, monkeypatch, words, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("image.fits", "my.sex", "my.param", "w.fits", "x.png", "a.csv", "b.csv", "data/manifest.json", "v.png"):
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "link.csv").symlink_to("b.csv")
    status, text = skyset(*words)
    assert status == 2 and f"would replace {what}: choose another name for the result" in " ".join(text.split())
    assert (tmp_path / "link.csv").is_symlink()
    assert all(
        path.read_text() == f"this is {path.relative_to(tmp_path)}"
        for path in tmp_path.rglob("*.*")
        if path.name != "link.csv"
    )
