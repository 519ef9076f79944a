"""Labels of exposures, and what features can be."""

import json

import numpy as np
import pytest

from skyset.build_scripts.megacam_iqa.labels import observation, read_labels
from skyset.build_scripts.megacam_iqa.limits import added, mask_absurd
from skyset.errors import UserError


def labels(tmp_path, text, name="labels.json"):
    path = tmp_path / name
    path.write_text(text)
    return read_labels(path)


def annotations(**values):
    return json.dumps({"info": {"annotations": {"x": "y"}}, "annotations": {k.strip("_"): v for k, v in values.items()}})


def test_public_json_with_one_and_two_labels_with_and_without_p(tmp_path):
    found = labels(tmp_path, annotations(_979412="GOOD", _979413p="BGP, B_SEEING", _979414="BT, BT"))
    assert [found.of(each) for each in ("979412p", "979412o", "979413", "979414p", "1")] == [
        (0, -1),
        (0, -1),
        (2, 1),
        (3, -1),
        (-1, -1),
    ]
    assert found.unknown(["979412o", "979414p"]) == ["979413"]


def test_names_of_files_are_names_of_exposures_and_ccds_are_megacams(tmp_path):
    found = labels(tmp_path, "FITS_ID,label\n979412p.fits.fz,GOOD\n979413o.fits[3],BT\n", "a.csv")
    assert found.of("979412o") == (0, -1) and found.of("979413p", 3) == (3, -1) and found.names() == ["979412", "979413"]
    with pytest.raises(UserError, match=r"979412p\[40\]: MegaCam's CCDs are 0 to 39"):
        labels(tmp_path, "FITS_ID,label\n979412p[40],GOOD\n", "a.csv")
    with pytest.raises(UserError, match="its first line is 'Name;Label'"):
        labels(tmp_path, "Name;Label\n979412p;GOOD\n", "a.csv")


def test_csv_of_exposures_and_ccds(tmp_path):
    found = labels(
        tmp_path, "FITS_ID,label\n979412p,GOOD\n979412p[07],RBT\n\n979413[3],BT\n979413[4],BT\n979413[5],GOOD\n", "a.csv"
    )
    assert found.of("979412o", 7) == (4, -1) and found.of("979412o", 8) == found.of("979412o") == (0, -1)
    assert found.class_of("979412p") == 0 and found.class_of("979413p") == 3 and found.of("979413p", 6) == (-1, -1)
    two = labels(tmp_path, "fits_id,gt_label1,gt_label2\n5,BT,B_SEEING\n6,BT,\n", "b.csv")
    assert two.of("5") == (3, 1) and two.of("6") == (3, -1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (annotations(_979412="FINE"), "979412 is 'FINE', which is no class: GOOD, B_SEEING, BGP, BT, RBT"),
        (annotations(_979412="GOOD", _979412p="BT"), "979412p is GOOD and BT: which is it?"),
        ('{"annotations": {"979412": "GOOD", "979412": "BT"}}', "979412 is there twice: which is it?"),
        ('{"annotations": {"1": "GOOD"}, "annotations": {"2": "BT"}}', "annotations is there twice: which is it?"),
        (annotations(_979412="GOOD, BT, BGP"), "has 3 labels"),
        (annotations(_979412=3), "979412 is '3'"),
        ('{"labels": {}}', 'it has no "annotations"'),
        ('{"annotations": {}}', "no label in it"),
        ("{", "no JSON"),
        ("id,quality\n1,GOOD\n", "FITS_ID,label is meant"),
        ("FITS_ID,label\n979412p\n", "line 2: 2 cells are meant"),
        pytest.param(f"FITS_ID,label\n1,GOOD\n2,{'x' * 131073}\n", "line 3: no CSV: field larger", id="cell"),
    ],
)
def test_labels_that_are_none(tmp_path, text, words):
    with pytest.raises(UserError) as error:
        labels(tmp_path, text)
    assert words in str(error.value)


def test_the_same_label_twice_is_one(tmp_path):
    assert labels(tmp_path, annotations(_979412="GOOD", _979412p="GOOD")).names() == ["979412"]


def test_an_observation_is_the_number():
    assert [observation(each) for each in ("979412p", "1000000o", "979412", "NGC0869_1", "5p")] == [
        "979412",
        "1000000",
        "979412",
        "NGC0869_1",
        "5p",
    ]


def test_absurd_values_are_counted_and_masked():
    columns = {
        "ELONGATION": np.array([1, 35720, np.inf, np.nan, 2], "f4"),
        "ISO0": np.array([10, 527383, 0, 1, 2], "f4"),
        "X": np.array([np.nan]),
    }
    assert mask_absurd(columns) == {"ELONGATION": 3, "ISO0": 1}
    assert np.isnan(columns["ELONGATION"]).tolist() == [False, True, True, True, False]
    assert added({"a": 1}, {}, {"a": 2, "b": 1}) == {"a": 3, "b": 1}
