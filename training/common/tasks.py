"""What a trained model is for: ``skyset_task`` in its config.json, and the class that loads models of each task."""

from __future__ import annotations

import importlib
from pathlib import Path

from transformers import PreTrainedModel

from skyset.errors import UserError
from skyset.training.common import timm_convnext

#: By task, the class that loads its models: of `transformers`, or ours, which `transformers` knows once it is imported.
TASKS = {
    "masks": "transformers:AutoModelForSemanticSegmentation",
    "morphology": "transformers:AutoModelForImageClassification",
    "rings": "transformers:AutoModelForImageClassification",
    "photoz": "skyset.training.common.photoz_models:PhotozModel",
    "quality": "skyset.training.common.quality:QualityModel",
    "votes": "skyset.training.common.votes:VoteModel",
    "photoz_table": "skyset.training.common.photoz_table:PhotozTable",
}
#: ``model_type`` of models of ours begins so.
OURS = "skyset_"


def task_of(folder: str | Path) -> str | None:
    """The task that a folder's model was trained for by a script of ours, None where it is another model."""
    return timm_convnext.read_config(Path(folder)).get("skyset_task")


def is_ours(folder: str | Path) -> bool:
    """Whether a folder's model is of a class of ours, which `transformers` alone does not know."""
    return str(timm_convnext.read_config(Path(folder)).get("model_type")).startswith(OURS)


def class_of(task: str) -> type[PreTrainedModel]:
    """The class that loads models of a task; importing it makes `transformers` know them.

    Raises:
        UserError: there is no such task.
    """
    if task not in TASKS:
        raise UserError(f"no task {task!r}; there are {', '.join(TASKS)}")
    module, _, name = TASKS[task].partition(":")
    return getattr(importlib.import_module(module), name)


def mark(model: PreTrainedModel, task: str) -> None:
    """Write into a model's configuration what it is trained for."""
    model.config.skyset_task = task
