"""Declarations: printed, read back equal, edited, and what is wrong with them."""

import ast
import shlex
from dataclasses import replace

import pytest

from skyset.adopting.adopt import adopt
from skyset.adopting.declared import Declared, printed
from skyset.errors import UserError
from skyset.survey import Layers
from skyset.testing.mmu import KINDS, write


def inferred(tmp_path, kind, **more):
    write(kind, tmp_path / kind, rows=2, cells=2, **more)
    return {each.name: each.inferred for each in adopt(tmp_path / kind, tmp_path / "index").datasets}


@pytest.mark.parametrize("kind", KINDS)
def test_printed_and_read_back_is_the_same(tmp_path, kind):
    datasets = inferred(tmp_path, kind)
    text = printed(datasets, "tree")
    assert max(map(len, text.splitlines())) <= 125
    (tmp_path / "mine.py").write_text(text)
    back = Declared.load(tmp_path / "mine.py").of("default", datasets["default"].form.tree)
    one = datasets["default"]
    assert repr(back.survey) == repr(one.survey)  # NaN is not equal to itself
    assert back.form.kind == one.form.kind and dict(back.form.sources) == dict(one.form.sources)


def test_several_configs(tmp_path):
    datasets = inferred(tmp_path, "sdss", configs=["sdss", "boss"])
    (tmp_path / "mine.py").write_text(printed(datasets, "tree"))
    declared = Declared.load(tmp_path / "mine.py")
    for name, one in datasets.items():
        assert repr(declared.of(name, one.form.tree).survey) == repr(one.survey)
    with pytest.raises(UserError, match="declares boss, sdss, and the tree has eboss"):
        declared.of("eboss", "/tree")


def test_edited_it_goes_before_what_was_inferred(tmp_path):
    text = printed(inferred(tmp_path, "sdss"), "tree")
    text = text.replace('Column("Z", "float32")', 'Column("Z", "float64", (), "", "redshift")')
    text = text.replace('Feature("Z", "Z")', 'Feature("redshift", "Z")').replace('"lambda": ', '"wavelength": ')
    (tmp_path / "mine.py").write_text(text)
    found = adopt(tmp_path / "sdss", tmp_path / "index", declaration=tmp_path / "mine.py").datasets[0]
    survey = found.inferred.survey
    assert survey.column("Z").dtype == "float64" and survey.column("Z").description == "redshift"
    assert "redshift" in {feature.name for feature in survey.features}
    spectrum = next(each for each in survey.features if isinstance(each, Layers))
    assert "wavelength" in spectrum.fields and found.rows == 4
    assert found.findings.lines() == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("KIND = ", "KIND_ = "), "has no KIND"),
        (lambda text: text.replace('KIND = "columns"', 'KIND = "rows"'), "has no KIND"),
        (lambda text: text.replace('    "Z": Source(("Z",)),\n', ""), "column Z is in SURVEY and not in SOURCES"),
        (lambda text: text.replace('Column("Z", "float32")', 'Column("Z", "float99")'), "cannot be read: TypeError"),
        (lambda text: text.replace('"Z": Source(("Z",))', '"Z": Source(("Z",), "text")'), "is not made by"),
        (lambda text: "raise RuntimeError('x')", "cannot be read: RuntimeError: x"),
        (lambda text: text.replace('KIND = "columns"', 'KIND = "objects"'), "the declaration says objects"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, change, message):
    (tmp_path / "mine.py").write_text(change(printed(inferred(tmp_path, "sdss"), "tree")))
    with pytest.raises(UserError, match=message):
        adopt(tmp_path / "sdss", tmp_path / "index", declaration=tmp_path / "mine.py")


def test_files_that_are_none(tmp_path):
    with pytest.raises(UserError, match="there is no such file"):
        Declared.load(tmp_path / "mine.py")
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="no Python file"):
        Declared.load(tmp_path / "mine.txt")


@pytest.mark.parametrize("code", ["import sys; sys.exit()", "raise SystemExit('bye')", "1 / 0"])
def test_files_that_end_themselves(tmp_path, code):
    (tmp_path / "mine.py").write_text(code)
    with pytest.raises(UserError, match=r"mine\.py cannot be read: (SystemExit|ZeroDivisionError)"):
        Declared.load(tmp_path / "mine.py")


def test_long_texts_and_odd_folders_are_read_back_too(tmp_path):
    one = inferred(tmp_path, "sdss")["default"]
    long = 'a "flux" of \\lambda ' * 30
    columns = tuple(replace(each, description=long) if each.name == "Z" else each for each in one.survey.columns)
    one = replace(one, survey=replace(one.survey, columns=columns, title="words " * 60))
    tree = f'{tmp_path}/it\'s """ \\N'
    text = printed({"default": one}, tree)
    assert max(len(line) for line in text.splitlines() if "skyset adopt" not in line) <= 125
    (tmp_path / "mine.py").write_text(text)
    assert repr(Declared.load(tmp_path / "mine.py").of("default", one.form.tree).survey) == repr(one.survey)
    assert shlex.quote(tree) in ast.get_docstring(ast.parse(text))
