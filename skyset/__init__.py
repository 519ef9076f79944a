"""Galaxy surveys as Hugging Face datasets. Importing it makes ``load_dataset("<survey>")`` know the surveys.

import skyset
from datasets import load_dataset
rows = load_dataset("gz3d", data_dir="data/gz3d", split="train", streaming=True).with_format("numpy")
"""

from skyset.errors import SkysetError
from skyset.registry import install
from skyset.registry import loader
from skyset.registry import register
from skyset.registry import surveys
from skyset.versions import __version__

__all__ = ["SkysetError", "__version__", "load", "register", "surveys"]

install()


def load(name: str, data_dir: str | None = None, *, config: str | None = None, split: str = "train", streaming: bool = True,
         format: str = "numpy", **options):  # fmt: skip
    """Short for ``load_dataset(name, config, data_dir=..., split=..., streaming=...).with_format(format)``.

    Args:
        name: a survey, see ``skyset.surveys()``.
        data_dir: its folder or URL; by default the usual places are searched (``skyset.registry.find_root``).
        config: one of the survey's datasets, where it has several (``skyset.registry.configs``).
        split: ``"train"`` unless the survey has others.
        streaming: False builds an Arrow cache first, for random access by row number.
        format: ``"numpy"``, ``"torch"``, ``"arrow"``, ``"pandas"``, None.
        options: the loader's own, such as ``image_size=512``.

    Returns:
        datasets.IterableDataset, or datasets.Dataset without streaming.

    Raises:
        UserError: no such survey, or no data of it.
    """
    from datasets import load_dataset

    loader(name)  # an unknown name would be looked for on the Hub
    return load_dataset(name, config, data_dir=data_dir, split=split, streaming=streaming, **options).with_format(format)
