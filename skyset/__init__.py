"""Galaxy surveys as Hugging Face datasets. Importing it makes ``load_dataset("<survey>")`` know the surveys.

import skyset
from datasets import load_dataset
rows = load_dataset("gz3d", data_dir="data/gz3d", split="train", streaming=True).with_format("numpy")
"""

from skyset.errors import SkysetError
from skyset.loading import registry
from skyset.loading.registry import install
from skyset.loading.registry import register
from skyset.loading.registry import surveys
from skyset.versions import __version__

__all__ = ["SkysetError", "__version__", "load", "register", "surveys"]

install()


def load(path: str, name: str | None = None, data_dir: str | None = None, *, config: str | None = None,
         split: str = "train", streaming: bool = True, format: str | None = "numpy", **options):  # fmt: skip
    """Short for ``load_dataset(path, name, data_dir=..., split=..., streaming=...).with_format(format)``.

    Args:
        path: a survey, see ``skyset.surveys()``, or a folder of partitions.
        name: one of the survey's datasets, where it has several (``skyset.configs``). The folder may stand here too:
            ``skyset.load("gz3d", "data/gz3d")``.
        data_dir: the survey's folder or URL; by default the usual places are searched (``skyset/loading/places.py``).
        config: another word for ``name``.
        split: ``"train"`` unless the survey has others.
        streaming: False builds an Arrow cache first, for random access by row number.
        format: ``"numpy"``, ``"torch"``, ``"arrow"``, ``"pandas"``, None.
        options: the loader's own, see ``skyset.builder.SurveyConfig``, such as ``image_size=512``.

    Returns:
        datasets.IterableDataset, or datasets.Dataset without streaming.

    Raises:
        UserError: no such survey or config, or no data of it.
    """
    from datasets import load_dataset

    if not registry.is_folder(path):
        known = registry.configs(path)  # an unknown name would be looked for on the Hub
        if name is not None and name not in known and data_dir is None and registry.is_place(name):
            name, data_dir = None, name
        for each in (name, config):
            if each is not None:
                registry.survey(path, each)
    found = load_dataset(str(path), name or config, data_dir=data_dir, split=split, streaming=streaming, **options)
    return found.with_format(format)
