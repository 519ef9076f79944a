"""What is known of a model when its card is written: how it was made, on what, and what it had seen before."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel

from skyset.training.common.arguments import ModelArguments
from skyset.training.common.runs import read_record, versions
from skyset.training.common.training_arguments import TaskArguments


@dataclass(kw_only=True)
class Story:
    """Subclasses say what the task is (``text``, ``usage``), and what it is trained on (``things``), if not on galaxies.

    Args:
        model_args, args: of the command.
        model: the one trained or measured.
        rows: galaxies that it is trained on.
        data: revision of the data.
        citation, licence: of the data; see `Card`.
        kept: which weights were kept.
    """

    model_args: ModelArguments
    args: TaskArguments
    model: PreTrainedModel
    rows: int
    data: str
    citation: str = ""
    licence: tuple[str, str] = ("", "")
    kept: str = ""
    #: What the run says that made the weights that this one began with, or that are measured.
    before: dict = field(init=False)
    things: ClassVar[str] = "galaxies"

    def __post_init__(self):
        name = self.model_args.model_name_or_path
        self.before = ((read_record(Path(name)) or {}).get("about") if name else None) or {}

    def about(self) -> dict:
        """For whoever measures, or goes on training, the model later."""
        return {"trained_on": self.args.train_on, "data": self.data, "how": self.training(), "before": self.before}

    def size(self) -> str:
        """Which network, and how large."""
        million = sum(parameter.numel() for parameter in self.model.parameters()) / 1e6
        kind = getattr(self.model.config, "encoder", self.model.config).model_type
        return f"`{kind}`, {million:.2f} million parameters."

    def made(self) -> str:
        """How it was trained and which weights were kept, or that nothing was trained."""
        return f"{self.training()} {self.kept}\n" if self.args.do_train else self.not_trained()

    def training(self, how_often: str = "") -> str:
        """How this command trains; ``how_often`` the galaxies stand in the training set, if not once each."""
        names, args = self.model_args, self.args
        start = f"the weights of `{names.model_name_or_path}`" if names.model_name_or_path else "a random start"
        parts = (
            "all of it"
            if names.n_blocks is None and not names.freeze
            else f"its last {names.n_blocks or 0} blocks and the head"
        )
        length = f"{args.max_steps} steps" if args.max_steps > 0 else f"up to {args.num_train_epochs:g} epochs"
        which = f"all labelled {self.things} (validation and test splits too):" if args.train_on == "all" else "the"
        batch = args.per_device_train_batch_size * args.world_size * args.gradient_accumulation_steps
        return (
            f"From {start}, {parts} was trained on {which} {self.rows} {self.things}{how_often} for {length} in batches of "
            f"{batch}, seed {args.seed}, learning rate {args.learning_rate:g}, layer decay {args.layer_decay:g}. "
            + self.views()
        )

    def views(self) -> str:
        """How images are changed in training."""
        return "Views are turned by any angle, mirrored, zoomed and shifted."

    def not_trained(self) -> str:
        """What a card of a measurement says."""
        how = self.before.get("how") or "How it was made is not recorded in its folder."
        return f"Nothing was trained here: measured is the model `{self.model_args.model_name_or_path}` as it was. {how}\n"

    def seen(self) -> str:
        """What makes the figures of the test split better than those of new galaxies, or empty."""
        chain, before = [], self.before
        while before:
            chain.append(before)
            before = before.get("before")
        whole = [one for one in chain if one.get("trained_on") == "all"]
        if any(one.get("data") == self.data for one in whole):
            return (
                "**The model was trained on these very galaxies** (`--train_on all`): the figures say how well it remembers "
                "them, not how well it does on others."
            )
        if whole:
            return (
                "**The model was trained on all labelled galaxies of another build of the data** (`--train_on all`): these "
                "galaxies may have been among them, and the figures may be too good."
            )
        if self.model_args.model_name_or_path and not chain:
            return "Which galaxies the named weights had been trained on is not recorded: some of these may be among them."
        return ""

    def remark(self) -> str:
        """What is to be known about the measured galaxies."""
        return " ".join(filter(None, (self.args.data_note, self.seen())))

    @property
    def folder(self) -> str:
        """Where the model lies that the card is of."""
        return str(self.args.output_dir if self.args.do_train else self.model_args.model_name_or_path)

    def usage(self) -> tuple[str, str]:
        """A sentence, and Python that runs."""
        return "", ""

    def known(self) -> dict:
        """What every card has."""
        name = self.model_args.model_name_or_path
        return {
            "base_model": name if name and not Path(name).exists() else None,
            "citation": self.citation,
            "licence": self.licence,
            "usage": self.usage(),
            "versions": versions(),
        }
