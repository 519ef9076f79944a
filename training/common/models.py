"""Image models by name: from a folder, the Hub, or a random start."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, AutoModelForImageClassification, PreTrainedModel

from skyset.errors import UserError
from skyset.files import file_sha256
from skyset.training.common import timm_convnext
from skyset.training.common.tasks import class_of, is_ours, task_of

logger = logging.getLogger("skyset.training")

#: Whatever a folder that somebody else made leads to in `transformers`.
LOAD_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
)
#: No code that comes with a model is run, and nothing is unpickled.
SAFELY = {"trust_remote_code": False, "use_safetensors": True}
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the channels, for pixels between 0 and 1."""

    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


def load_classifier(
    name_or_path: str | None = None,
    model_type: str | None = None,
    config_overrides: dict | None = None,
    labels: tuple[str, ...] = ("no", "yes"),
    revision: str = "main",
    cache_dir: str | None = None,
    token: str | None = None,
) -> tuple[PreTrainedModel, Normalisation]:
    """A classifier and the normalisation its weights expect.

    Args:
        name_or_path: a folder or a model on the Hub: `transformers` weights, or a timm ConvNeXt such as Zoobot's encoders.
        model_type: such as ``"convnextv2"``, for a random start, when there is no ``name_or_path``.
        config_overrides: settings of the configuration.
        labels: names of the classes.
        revision, cache_dir, token: for the Hub.

    Raises:
        UserError: no such model, no such type, or weights that cannot be used.
    """
    settings = {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        **(config_overrides or {}),
    }
    if name_or_path is None:
        model = _random_start(model_type, settings)
        return model, usual_normalisation(model.config.num_channels)
    folder = fetch(name_or_path, revision, cache_dir, token)
    if timm_convnext.is_timm(timm_convnext.read_config(folder)):
        # Zoobot trains on pixels between 0 and 1 as they are.
        return timm_convnext.convert(timm_convnext.load_state(folder), **settings), Normalisation()
    if is_ours(folder):
        encoder, normalisation = load_encoder(name_or_path, None, None, revision, cache_dir, token)
        model = AutoModelForImageClassification.from_config(AutoConfig.for_model(**(encoder.config.to_dict() | settings)))
        take_over(model.base_model, encoder)
        return model, normalisation
    try:
        model = AutoModelForImageClassification.from_pretrained(folder, ignore_mismatched_sizes=True, **SAFELY, **settings)
    except LOAD_ERRORS as error:
        raise UserError(f"{name_or_path} cannot be used as an image classifier: {first_line(error)}") from error
    return without_code(model), normalisation_of(folder)


def load_encoder(
    name_or_path: str | None = None,
    model_type: str | None = None,
    config_overrides: dict | None = None,
    revision: str = "main",
    cache_dir: str | None = None,
    token: str | None = None,
) -> tuple[PreTrainedModel, Normalisation]:
    """The encoder of any image model, without a head; arguments and errors as in ``load_classifier``."""
    settings = config_overrides or {}
    if name_or_path is None:
        model = _random_start(model_type, settings).base_model
        return model, usual_normalisation(model.config.num_channels)
    folder = fetch(name_or_path, revision, cache_dir, token)
    if timm_convnext.is_timm(timm_convnext.read_config(folder)):
        return timm_convnext.convert(timm_convnext.load_state(folder), **settings).base_model, Normalisation()
    if is_ours(folder):
        model, normalisation = load_trained(name_or_path, None, revision, cache_dir, token)
        if model.base_model_prefix != "encoder":  # what other models of ours see images with takes more than the image
            raise UserError(f"{name_or_path} was trained for {task_of(folder)!r}: no other training can start from it")
        return model.base_model, normalisation
    trained = timm_convnext.read_config(folder).get("architectures") or [""]
    try:
        if trained[0].endswith("ForImageClassification"):
            model = AutoModelForImageClassification.from_pretrained(folder, **SAFELY, **settings).base_model
        else:
            model = AutoModel.from_pretrained(folder, **SAFELY, **settings)
    except LOAD_ERRORS as error:
        raise UserError(f"{name_or_path} cannot be used as an image model: {first_line(error)}") from error
    return without_code(model), normalisation_of(folder)


def load_trained(
    name_or_path: str,
    task: str | None = None,
    revision: str = "main",
    cache_dir: str | None = None,
    token: str | None = None,
) -> tuple[PreTrainedModel, Normalisation]:
    """A model that a script of ours trained, head and all, and the normalisation its weights expect.

    Args:
        name_or_path: its folder, or its name on the Hub.
        task: the only one that will do; None for any.
        revision, cache_dir, token: for the Hub.

    Raises:
        UserError: there is no such model, it is of another task, or its weights cannot be used.
    """
    folder = fetch(name_or_path, revision, cache_dir, token)
    found = task_of(folder)
    if found is None or task not in (None, found):
        what = f"was trained for {found!r}" if found else "does not say what it was trained for"
        raise UserError(f"{name_or_path} {what}" + (f": it is no model of {task!r}" if task else ""))
    try:
        model = class_of(found).from_pretrained(folder, **SAFELY)
    except LOAD_ERRORS as error:
        raise UserError(f"{name_or_path} cannot be used: {first_line(error)}") from error
    return without_code(model), normalisation_of(folder)


def take_over(model: PreTrainedModel, trained: PreTrainedModel) -> None:
    """Copy the weights of an encoder into another of its kind, which may do without the pooler of the first.

    Raises:
        UserError: they are not of a kind.
    """
    lacking = model.load_state_dict(trained.state_dict(), strict=False)
    others = lacking.missing_keys + [name for name in lacking.unexpected_keys if "pooler" not in name]
    if others:
        raise UserError(f"{type(trained).__name__} is not the encoder of {type(model).__name__}: {others[0]}")


def fingerprint(name_or_path: str, revision: str = "main", cache_dir: str | None = None, token: str | None = None) -> str:
    """12 digits of a SHA-256 over a model's configuration and weights; arguments as in ``load_classifier``."""
    folder = fetch(name_or_path, revision, cache_dir, token)
    files = sorted([folder / "config.json", *folder.glob("*.safetensors")])
    return hashlib.sha256(repr([(path.name, file_sha256(path)) for path in files]).encode()).hexdigest()[:12]


def without_code(model: PreTrainedModel) -> PreTrainedModel:
    """The model, whose configuration no longer names code of its own: what is saved from it does not ask to run it."""
    if hasattr(model.config, "auto_map"):
        del model.config.auto_map
    return model


def _random_start(model_type: str | None, settings: dict) -> PreTrainedModel:
    if not model_type:
        raise UserError("give a model: --model_name_or_path NAME, or --model_type convnextv2 for a random start")
    try:
        config = AutoConfig.for_model(model_type, **settings)
        return AutoModelForImageClassification.from_config(config, trust_remote_code=False)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"no image classifier of type {model_type!r}: {first_line(error)}") from error


def fetch(name_or_path: str, revision: str, cache_dir: str | None, token: str | None) -> Path:
    """The folder with configuration and weights, downloaded if need be.

    Raises:
        UserError: there is none, it needs code of its own, or its weights are pickled.
    """
    folder = Path(name_or_path).expanduser()
    if not (folder / "config.json").exists():
        folder = _download(name_or_path, revision, cache_dir, token)
    config = timm_convnext.read_config(folder)
    if config.get("auto_map"):
        if config.get("model_type") not in CONFIG_MAPPING and not is_ours(folder):
            raise UserError(f"{name_or_path} needs code of its own (auto_map in config.json), which is not run: refused")
        logger.warning("%s brings code of its own (auto_map in config.json), which is not run", name_or_path)
    if not any(folder.glob("*.safetensors")):
        pickled = [path.name for ending in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{ending}")]
        reason = f"its weights are pickled ({pickled[0]}), only safetensors are read" if pickled else "it has no safetensors"
        raise UserError(f"{name_or_path} cannot be used: {reason}")
    return folder


def _download(name_or_path: str, revision: str, cache_dir: str | None, token: str | None) -> Path:
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        raise UserError(f"{folder} has no config.json: it is not a model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    options = {"allow_patterns": ["*.json", "*.safetensors"], "cache_dir": cache_dir, "token": token}
    try:
        found = Path(snapshot_download(name_or_path, revision=revision, **options))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise UserError(f"no model {name_or_path}, neither as a folder nor on the Hub: {first_line(error)}") from error
    if not (found / "config.json").exists():
        raise UserError(f"{name_or_path} has no config.json: it is not a model")
    return found


def first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def normalisation_of(folder: Path) -> Normalisation:
    """What ``preprocessor_config.json`` says, else ``config.json`` (``remember`` wrote it), else as for a random start."""
    config = timm_convnext.read_config(folder)
    path = folder / "preprocessor_config.json"
    settings = json.loads(path.read_text()) if path.exists() else config
    if not settings.get("do_normalize", True):
        return Normalisation()
    if "image_mean" in settings and "image_std" in settings:
        return Normalisation(tuple(settings["image_mean"]), tuple(settings["image_std"]))
    return usual_normalisation(config.get("num_channels", 3))


def usual_normalisation(channels: int) -> Normalisation:
    """ImageNet's of colour images, none of others."""
    return Normalisation(IMAGENET_MEAN, IMAGENET_STD) if channels == 3 else Normalisation()


def remember(model: PreTrainedModel, size: int, normalisation: Normalisation, eval_zoom: float | None = None) -> None:
    """Write into a model's configuration what its images must be like, for whoever loads it again.

    Args:
        model: any.
        size: pixels a side.
        normalisation: of the channels.
        eval_zoom: share of an image's side that it is shown; None says nothing of it.
    """
    model.config.image_size = size
    if eval_zoom is not None:
        model.config.eval_zoom = eval_zoom
    model.config.image_mean, model.config.image_std = list(normalisation.mean), list(normalisation.std)


def image_size(model: PreTrainedModel, asked: int | None = None) -> int:
    """Pixels a side that a model takes: what was asked for, else what its configuration says, else 224.

    Raises:
        UserError: the model has a fixed size, and another was asked for.
    """
    own = getattr(model.config, "image_size", None)
    own = own[0] if isinstance(own, (list, tuple)) else own
    fixed = own and "position_embeddings" in " ".join(name for name, _ in model.named_parameters())
    if asked and fixed and asked != own:
        raise UserError(f"the model takes {own} pixels per side; leave --image_size out, or set it in --config_overrides")
    return asked or own or 224
