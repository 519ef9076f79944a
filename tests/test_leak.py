"""The leak of a split by object: where exposures differ by habit alone, it looks like a classifier that works."""

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

from benchmarks import leak
from skyset.errors import UserError
from tests.megacam_rows import SOURCES, write_megacam


def rows_of(signal: float, habit: float, exposures: int = 25, ccds: int = 12) -> leak.Rows:
    """Each exposure has its habit, each class its signal, in 20 columns; the noise of a CCD is 1."""
    dice = np.random.default_rng(0)
    names = np.repeat(np.arange(exposures), ccds)
    classes = signal * np.eye(20)[:5]
    habits = habit * dice.normal(size=(exposures, 20))
    values = classes[names % 5] + habits[names] + dice.normal(size=(len(names), 20))
    return leak.Rows(values, names % 5, names)


def test_habits_alone_are_accuracy_by_object_and_none_by_exposure():
    by_object, by_exposure = leak.both_ways(rows_of(0, 3), leak.logistic)
    assert by_object.value > 0.95 and by_exposure.value < 0.45
    assert by_exposure.low < 0.2 < by_exposure.high + 0.1


def test_without_habits_both_say_the_same():
    by_object, by_exposure = leak.both_ways(rows_of(4, 0), leak.logistic)
    assert by_object.value > 0.9 and abs(by_object.value - by_exposure.value) < 0.03


def test_no_exposure_is_on_both_sides():
    """A classifier that remembers exposures knows none of those that it is asked about."""

    class Memory:
        def fit(self, values, labels):
            self.known = set(values[:, 0])
            return self

        def predict(self, values):
            return np.array([value in self.known for value in values[:, 0]], int)

    rows = rows_of(0, 0)
    rows = rows._replace(values=rows.exposures[:, None].astype(float))
    assert not leak.predictions(rows, True, Memory).any()
    assert leak.predictions(rows, False, Memory).all()


def test_the_interval_is_of_exposures():
    """Of 100 exposures half are right in all of their CCDs: an error of 0.05, however many CCDs each has."""
    right, exposures = np.repeat(np.arange(100) % 2 == 0, 36), np.repeat(np.arange(100), 36)
    value, low, high = leak.accuracy(right, exposures)
    assert value == 0.5 and (high - low) / (2 * 1.96) == pytest.approx(0.05, rel=0.1)
    assert str(leak.Accuracy(0.5, 0.4, 0.6)) == "0.500 (0.400 to 0.600)"


def test_few_exposures_are_refused():
    with pytest.raises(UserError, match="15 exposures; at least 4 of each class"):
        leak.predictions(rows_of(1, 0, exposures=15), True, leak.logistic)


def test_rows_of_a_build(tmp_path):
    root = write_megacam(tmp_path, exposures=20, ccds=2)
    hits = leak.hits_of(root)
    assert hits.values.shape == (40, 20) and np.allclose(hits.values.sum(1), 1)
    assert len(set(hits.exposures)) == 20 and np.array_equal(hits.labels, [int(name[:-1]) % 5 for name in hits.exposures])
    sources = leak.sources_of(root, per_ccd=7)
    assert sources.values.shape == (40 * 7, 6) and set(np.unique(sources.exposures, return_counts=True)[1]) == {14}
    assert np.array_equal(sources.values[:, 5], [100 + int(name[:-1]) - 1000000 for name in sources.exposures])
    everything = leak.sources_of(root, per_ccd=SOURCES)
    assert len(everything.values) == 40 * (SOURCES - 1) and np.isfinite(everything.values).all()
