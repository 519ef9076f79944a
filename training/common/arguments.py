"""Command-line arguments that every training script has: of the model and of the images."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from transformers import HfArgumentParser, TrainingArguments

from skyset.errors import UserError
from skyset.secrets import without_login
from skyset.training.common.models import Normalisation, fingerprint

logger = logging.getLogger("skyset.training")

#: A ConvNeXt V2, where no network is asked for: to try things out on any machine. First weights of 0.02 are for wide
#: networks: in a narrow one each layer adds next to nothing for hundreds of steps.
SMALL = '{"depths": [1, 1, 2, 1], "hidden_sizes": [16, 32, 64, 128], "image_size": 64, "initializer_range": 0.1}'


def parse(kinds: tuple[type, ...], arguments: list[str] | None = None) -> tuple:
    """Typed arguments from a command line, one object of each kind; ``--help`` and unknown words are dealt with.

    Raises:
        UserError: an argument that no kind has, one that is missing, or values that do not go together.
    """
    try:
        parser = _Parser(kinds, description=sys.modules["__main__"].__doc__, formatter_class=_Help)
        needed = " ".join(f"{each.option_strings[0]} {each.dest.upper()}" for each in parser._actions if each.required)
        parser.usage = f"%(prog)s {needed} [options]"
        parsed = parser.parse_args_into_dataclasses(_resume_flag(arguments))
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error
    for each in parsed:
        if getattr(each, "disable_tqdm", None) is False and not sys.stderr.isatty():
            each.disable_tqdm = True  # a log gets the losses as lines
        for name, value in list(vars(each).items()):
            if isinstance(value, str) and "://" in value:
                setattr(each, name, without_login(value))
    return parsed


def begin_script(model_args: ModelArguments, args: TrainingArguments) -> None:
    """Say things as they are done, on the first process; what goes wrong, on all. A learning rate that nobody gave is set.

    Raises:
        UserError: neither a training nor a model to measure.
    """
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO if args.should_log else logging.WARNING)
    if not args.do_train and not model_args.model_name_or_path:
        raise UserError("--do_train False measures a model that is there: name it with --model_name_or_path")
    if args.learning_rate is None:  # the small network, see `or_small`, has a long way to go from its random start
        args.learning_rate = 1e-4 if model_args.model_name_or_path or model_args.model_type else 3e-3


def run_script(name: str, main: Callable[[], object]) -> None:
    """Run ``main``; what was asked for wrongly is one line, and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)


def _resume_flag(arguments: list[str] | None) -> list[str]:
    """``--resume_from_checkpoint`` alone means the last checkpoint; the parser of `transformers` wants a value."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    flag = "--resume_from_checkpoint"
    if flag in arguments:
        after = arguments.index(flag) + 1
        if after == len(arguments) or arguments[after].startswith("--"):
            arguments.insert(after, "last")
    return arguments


class _Help(argparse.RawDescriptionHelpFormatter, argparse.ArgumentDefaultsHelpFormatter):
    """The script's own text as it is written, and the defaults of options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class _Parser(HfArgumentParser):
    """Says what is wrong in one line; argparse prints the usage, a hundred lines long, before it."""

    def error(self, message: str):
        raise UserError(" ".join(message.split()))


@dataclass
class ModelArguments:
    """Which model to train, and which parts of it."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "A folder or a model on the Hub: transformers weights, or a timm ConvNeXt such as "
            "mwalmsley/zoobot-encoder-convnext_nano."
        },
    )
    model_type: str | None = field(
        default=None, metadata={"help": "Random start of this type, such as convnextv2 or vit, if no model is named."}
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": "Settings of the configuration as JSON: '{\"depths\": [2, 2, 2, 2]}'."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a model on the Hub."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloaded models are kept."})
    token: str | None = field(default=None, metadata={"help": "For private models; by default that of `hf auth login`."})
    freeze: bool = field(default=False, metadata={"help": "Train the head alone (n_blocks 0)."})
    n_blocks: int | None = field(
        default=None, metadata={"help": "Train only this many last blocks (ConvNeXt: stages) and the head; default all."}
    )
    image_mean: list[float] | None = field(
        default=None, metadata={"help": "Of the channels, for pixels between 0 and 1; default: the model's own."}
    )
    image_std: list[float] | None = field(default=None, metadata={"help": "Beside image_mean."})

    def __post_init__(self):
        if self.freeze and self.n_blocks:
            raise UserError("--freeze trains no block of the encoder: leave out --freeze or --n_blocks")
        if (self.image_mean is None) != (self.image_std is None):
            raise UserError("give both --image_mean and --image_std, or neither")

    def or_small(self, model_type: str, config_overrides: str) -> bool:
        """Where no model is named, take this small one from a random start, and say so; whether that was done."""
        if self.model_name_or_path or self.model_type:
            return False
        self.model_type, self.config_overrides = model_type, self.config_overrides or config_overrides
        logger.warning("no model is named: a small %s from a random start (--model_name_or_path: trained ones)", model_type)
        return True

    @property
    def hub(self) -> tuple[str, str | None, str | None]:
        """Revision, cache and token, for what loads models by name."""
        return self.model_revision, self.cache_dir, self.token

    def first_weights(self) -> str:
        """What a model begins with, for the settings of a run."""
        return fingerprint(self.model_name_or_path, *self.hub) if self.model_name_or_path else "random"

    def normalisation(self, own: Normalisation) -> Normalisation:
        """The one asked for, else the model's own."""
        return own if self.image_mean is None else Normalisation(tuple(self.image_mean), tuple(self.image_std))

    @property
    def overrides(self) -> dict:
        """``config_overrides`` as a dict.

        Raises:
            UserError: it is not JSON of an object.
        """
        try:
            settings = json.loads(self.config_overrides or "{}")
        except json.JSONDecodeError as error:
            raise UserError(f"--config_overrides is not JSON: {error}") from error
        if not isinstance(settings, dict):
            raise UserError("--config_overrides must be a JSON object: {...}")
        return settings


@dataclass
class ImageArguments:
    """How an image becomes the model's input."""

    image_size: int | None = field(default=None, metadata={"help": "Pixels a side the model sees; default its own or 224."})
    load_size: int | None = field(
        default=None, metadata={"help": "Pixels a side of decoded images; default enough for the smallest view."}
    )
    zoom_min: float = field(default=0.6, metadata={"help": "Smallest share of the image's side that a training view shows."})
    zoom_max: float = field(default=1.0, metadata={"help": "Largest share."})
    eval_zoom: float = field(default=0.8, metadata={"help": "Share of the side shown in evaluation."})

    def __post_init__(self):
        if not 0 < self.zoom_min <= self.zoom_max <= 1 or not 0 < self.eval_zoom <= 1:
            raise UserError("need 0 < zoom_min <= zoom_max <= 1 and 0 < eval_zoom <= 1")
