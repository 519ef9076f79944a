"""Somebody's folder of HDF5 files, read where it lies and as it is: MultimodalUniverse's trees, and anybody's.

``skyset adopt DIR`` looks through the folder once and writes an index beside it or into a cache; after that
``load_dataset(DIR)`` reads it, with `datasets` of any version. Which columns there are follows from the files; those of
images, spectra and light curves are grouped as MultimodalUniverse's own loading scripts group them: ``image.flux``,
``spectrum.lambda``, ``lightcurve.time``. The folders of a tree that hold datasets of their own are configs.
"""

from dataclasses import replace
from pathlib import Path

from skyset.builder import SurveyBuilder
from skyset.loading.trees import configs_in
from skyset.loading.trees import tree_of
from skyset.noted import of_build
from skyset.partitions.tree.form import ADOPTED
from skyset.partitions.tree.form import INDEX
from skyset.partitions.tree.form import form_of
from skyset.partitions.tree.opens import OpensTree
from skyset.survey import HEALPIX
from skyset.survey import Column
from skyset.survey import Survey
from skyset.survey import plain_features

COLUMNS = (
    Column("object_id", "S128", (), "", "the tree's own name of the object, as text"),
    Column("ra", "float64", (), "deg", "right ascension"),
    Column("dec", "float64", (), "deg", "declination"),
    HEALPIX,
)


def declared(survey, columns, build) -> Survey:
    """The declaration of a tree, of what its index says."""
    built = of_build(survey, columns, build)
    if ADOPTED not in build:  # rows of a tree that were published
        return built
    return replace(built, opens=OpensTree(form_of(build), build[ADOPTED].get(INDEX, "")))


SURVEY = Survey(
    name=ADOPTED,
    title="A folder of somebody's HDF5 files, read where it lies (skyset adopt)",
    homepage="",
    citation="",
    license="that of the files",
    base_url="",
    columns=COLUMNS,
    features=plain_features(COLUMNS, {}),
    of_build=declared,
)


class Adopted(SurveyBuilder):
    """``load_dataset(DIR)`` after ``import skyset`` and ``skyset adopt DIR``."""

    SURVEY = SURVEY

    @classmethod
    def configs_at(cls, data_dir: str | None) -> tuple[str, ...]:
        """The datasets of the index."""
        found = configs_in(Path(data_dir)) if data_dir else {}
        return tuple(found) or ("default",)

    @classmethod
    def config_named(cls, name: str, data_dir: str | None) -> str:
        """Of a tree with one dataset, the name of its folder stands for it: notebooks have it (``"pdr3_dud_22.5"``)."""
        found = configs_in(Path(data_dir)) if data_dir else {}
        (config, index), *others = found.items() or [(name, Path())]
        if name in found or others or not found:
            return name
        return config if name == Path(tree_of(index)).name else name
