"""A large set of names."""

from hypothesis import given, settings
from hypothesis import strategies as st

from skyset.building.tars import keys as module
from skyset.building.tars.keys import Keys


@given(st.sets(st.text("0123456789ab", min_size=1, max_size=6)), st.sets(st.text("0123456789ab", min_size=1, max_size=6)))
@settings(max_examples=50, deadline=None)
def test_keys_are_a_set(first, second):
    module._FEW, few = 3, module._FEW
    try:
        keys = Keys(first)
        for key in second - first:
            keys.add(key)
    finally:
        module._FEW = few
    assert keys == first | second
    assert len(keys) == len(first | second)
    assert all(key in keys for key in first | second)
    assert "zz" not in keys and 5 not in keys and "ä" not in keys


def test_many_keys_take_little_memory():
    keys = Keys(str(587722984435000000 + number) for number in range(200_000))
    assert len(keys) == 200_000 and 18 * 190_000 < keys._sorted.nbytes <= 18 * 200_000
    assert "587722984435100000" in keys and "587722984436100000" not in keys
