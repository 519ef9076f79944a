"""Columns, features, padding and sources from the fields of files: pure, from fields made up."""

import math
from collections import Counter

import pytest

from skyset.adopting.fields import Field, Names
from skyset.adopting.fold import Fold, union
from skyset.adopting.infer import field_names, infer, unit_by
from skyset.adopting.look import Ids, Look
from skyset.adopting.scan import TreeFile
from skyset.errors import UserError
from skyset.partitions.tree.form import Source
from skyset.survey import Layers

POSITION = (Field("ra", "float64"), Field("dec", "float64"))


def look(*fields, number=0, id_="object_id", **more):
    own = (Field(id_, "int64"),) if id_ else ()
    values = {"rows": 4, "names": Names(id_, "ra", "dec"), "ra": (10.0, 20.0), "dec": (0.0, 1.0), "ids": Ids(3, 9, 7)}
    fields = [*own, *POSITION, *fields]
    return Look(TreeFile(f"{number}.hdf5", 1, 1), kind="columns", fields=fields, **(values | more))


def inferred(*looks, unit="deg"):
    fold = Fold("columns")
    for each in looks:
        fold.add(each)
    return infer(fold, "/tree", unit, "a tree")


@pytest.mark.parametrize(
    ("dtypes", "one"),
    [
        (("float32", "float64"), "float64"),
        (("int64", "float32"), "float64"),
        (("bool", "int8"), "int8"),
        (("S3", "S12"), "S12"),
        (("S3", "int64"), "S20"),
        (("S3", "float32"), ""),
        (("S3", "bool"), ""),
        (("int16",), "int16"),
    ],
)
def test_one_dtype_for_all(dtypes, one):
    assert union(dtypes) == one


def test_every_dataset_has_id_position_and_cell():
    found = inferred(look(Field("z", "float32", unit="")))
    assert [column.name for column in found.survey.columns] == ["object_id", "ra", "dec", "healpix", "z"]
    assert found.form.sources["object_id"] == Source(("object_id",), "text")
    assert found.form.sources["healpix"] == Source((), "cell")
    assert found.survey.column("object_id").dtype == "S7" and found.findings == []


def test_an_id_of_another_name_stays_a_column_too_and_without_one_names_are_made():
    found = inferred(look(id_="source_id"))
    assert found.form.sources["object_id"] == Source(("source_id",), "text")
    assert found.survey.column("source_id").dtype == "int64" and field_names(found.form) == ("source_id", "ra", "dec")
    assert inferred(look(id_="")).form.sources["object_id"] == Source((), "name")


@pytest.mark.parametrize(("unit", "ra", "dec"), [("hour", 15.0, None), ("rad", math.degrees(1), math.degrees(1))])
def test_other_units_are_scaled(unit, ra, dec):
    found = inferred(look(), unit=unit)
    assert found.form.sources["ra"] == Source(("ra",), "scaled", ra) and unit_by(found.form) == unit
    assert found.form.sources["dec"] == (Source(("dec",), "scaled", dec) if dec else Source(("dec",)))


def test_own_cells_are_kept_where_they_are_those_of_the_positions():
    cells = Field("healpix", "int64")
    assert inferred(look(cells, own={"deg": 4})).form.sources["healpix"] == Source(("healpix",))
    found = inferred(look(cells, own={"deg": 1}))
    assert found.form.sources["healpix"] == Source((), "cell") and found.findings[0][0] == "not a HEALPix cell"


def test_sizes_that_differ_make_columns_ragged():
    found = inferred(*(look(Field("a", "float32", (n, 4)), Field("b", "int8", (3,)), number=n) for n in (2, 5)))
    assert found.survey.column("a").shape == (-1, 4) and found.survey.column("b").shape == (3,)
    assert found.survey.column("a").typical_bytes == (2 + 5) * 4 * 4 // 2


def test_padding_makes_spectra_ragged_though_all_files_are_alike():
    spectrum = [Field(f"spectrum_{key}", "float32", (50,)) for key in ("flux", "ivar", "lambda")]
    plain = inferred(look(*spectrum))
    assert plain.survey.trims == () and plain.survey.column("spectrum_flux").shape == (50,)
    found = inferred(look(*spectrum), look(*spectrum, number=1, pads={"spectrum_lambda": Counter({"-1": 1})}))
    names = ("spectrum_flux", "spectrum_ivar", "spectrum_lambda")
    assert [(t.columns, t.by, t.values, t.at) for t in found.survey.trims] == [(names, names[2], (-1.0,), "anywhere")]
    assert {found.survey.column(name).shape for name in names} == {(-1,)}


def test_light_curves_of_one_array():
    found = inferred(look(Field("lightcurve", "float64", (6, 3, 40)), pads={"lightcurve": Counter({"0": 3})}))
    sources = found.form.sources
    assert sources["lightcurve_flux"] == Source(("lightcurve",), "part", (1, 1))
    assert sources["lightcurve_band"] == Source((), "labels", ("u", "g", "r", "i", "z", "Y"), "lightcurve_time")
    assert found.survey.trims[0].values == (0.0,) and "lightcurve" not in found.survey.by_name


def test_the_views_of_an_alert_are_images():
    alert = (Field("band", "S1"), Field("image_scale", "float32"), Field("image_triplet", "float32", (63, 63, 3)))
    found = inferred(look(*alert))
    (image,) = (each for each in found.survey.features if isinstance(each, Layers))
    assert dict(image.fields) == {
        "view": "image_view", "band": "image_band", "scale": "image_scale", "array": "image_array",
    }  # fmt: skip
    shapes = {name: found.survey.column(name).shape for name in image.sources}
    assert shapes == {"image_view": (3,), "image_band": (3,), "image_scale": (3,), "image_array": (3, 63, 63)}
    assert found.form.sources["image_array"] == Source(("image_triplet",), "moved", 2)
    assert found.form.sources["image_band"] == Source(("band",), "repeated")
    assert found.survey.image_axes == {"image.array": 1}
    for other in (alert[1:], (*alert[:2], Field("image_triplet", "float32", (63, 63, 4)))):
        assert inferred(look(*other)).form.sources["image_triplet"] == Source(("image_triplet",))


def test_names_that_are_taken_get_others():
    found = inferred(look(Field("a", "int8", (-1 + 2,)), Field("a_end", "int8"), Field("b/c", "int8"), Field("b_c", "int8"),
                          Field("RA", "float64"), Field("µ", "int8")),
                     look(Field("a", "int8", (3,)), number=1))  # fmt: skip
    names = [column.name for column in found.survey.columns]
    assert len(set(names)) == len(names) and {"RA", "b_c", "b_c_2", "_"} <= set(names)
    ends = {column.end.name for column in found.survey.columns if column.is_ragged}
    assert not ends & set(names)


def test_what_is_left_out_or_missing_is_told():
    found = inferred(
        look(Field("x", "S3"), Field("y", "int8", (2,)), Field("v", "int8")), look(Field("x", "float32"), Field("y", "int8"))
    )
    assert {kind for kind, *_ in found.findings} == {"left out", "column missing"}
    texts = "\n".join(text for _, text, *_ in found.findings)
    assert "x: text in some files" in texts and "y: arrays of 0, 1 axes" in texts and "v: 1 of 2 files lack it" in texts


def test_nothing_to_infer_from():
    with pytest.raises(UserError, match="no file with positions"):
        infer(Fold("columns"), "/tree", "deg", "x")
