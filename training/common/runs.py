"""The folder of a training: whose it is, where a killed run goes on, when it is finished, and what may be removed.

``run.json`` in the folder and in every checkpoint holds what makes the model what it is (arguments, digests of data and of
the first weights, seed). It is written last, with the SHA-256 of all other files: a checkpoint without it, or with a file
that differs, was cut or damaged.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from importlib import metadata
from pathlib import Path
from platform import python_version

import torch
from transformers import TrainingArguments
from transformers.trainer_pt_utils import safe_globals

from skyset.errors import UserError
from skyset.files import file_sha256, write_atomically
from skyset.versions import __version__

logger = logging.getLogger("skyset.training")

RECORD = "run.json"
CARD = "README.md"
LIBRARIES = ("torch", "transformers", "accelerate", "datasets", "numpy")
#: What a training leaves in its folder beside the card, and what a checkpoint holds.
MODEL = re.compile(
    r"model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|(preprocessor_|processor_|generation_)?config\.json"
)
OWN = re.compile(
    MODEL.pattern + r"|pytorch_model\.bin|training_args\.bin|trainer_state\.json|(train|eval|test|all)_results\.json"
    r"|optimizer\.(pt|bin)|scheduler\.pt|scaler\.pt|rng_state(_\d+)?\.pth|losses_\d+\.json|run\.json"
)
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
#: Settings of `TrainingArguments` that change neither the model nor which checkpoint is kept.
WITHOUT_EFFECT = re.compile(
    r"output_dir|logging_.*|log_.*|disable_tqdm|report_to|run_name|project|trackio_.*|push_to_hub|hub_.*|do_.*|local_rank|debug"
    r"|save_total_limit|save_on_each_node|enable_jit_checkpoint|dataloader_(num|pin|pers|pre|multi|in_).*|ddp_(backend|timeout)"
    r"|per_device_eval_batch_size|eval_accumulation_steps|eval_(do|use)_.*|prediction_loss_only|include_.*|batch_eval_metrics"
    r"|skip_memory_metrics|torch_empty_cache_steps|use_cpu|resume_from_checkpoint|from_scratch|overwrite_output_dir"
    r"|seeds|card_dir|data_note"
)
#: These decide which checkpoint is the best, or when to stop: they matter where one of the two is asked for.
CHOICE = re.compile(
    r"eval_(strategy|steps|delay|on_start|views)|save_(strategy|steps)|metric_for_best_model|greater_is_better|.*_full_eval"
)


def versions() -> dict[str, str]:
    """Of Python, skyset and the libraries that a training runs on."""
    return {"Python": python_version(), "skyset": __version__, **{name: metadata.version(name) for name in LIBRARIES}}


def refuse_to_replace(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raise UserError where a script would write over files that are there, unless told to."""
    there = [name for name in names if (Path(folder) / name).exists()]
    if there and not overwrite:
        raise UserError(f"{folder} holds {', '.join(there)}: give another folder, or --overwrite_output_dir to replace them")


def settings_of(args: TrainingArguments) -> dict:
    """The settings that make the model what it is, by name."""
    chosen = args.load_best_model_at_end or getattr(args, "early_stopping_patience", None)
    found = {"number of processes": args.world_size}
    for one in fields(args):
        name, value = one.name, getattr(args, one.name)
        if WITHOUT_EFFECT.fullmatch(name) or (CHOICE.fullmatch(name) and not chosen):
            continue
        if name == "num_train_epochs" and args.max_steps > 0:
            continue
        found[name] = value.value if hasattr(value, "value") else value
    return found


def differences(old: Mapping, new: Mapping) -> list[str]:
    """``name old (now new)`` of every setting that differs."""
    names = sorted(old.keys() | new.keys())
    return [f"{name} {old.get(name)} (now {new.get(name)})" for name in names if old.get(name) != new.get(name)]


def read_record(folder: Path) -> dict | None:
    """What ``run.json`` of a folder says, or None where there is none that can be read."""
    try:
        found = json.loads((Path(folder) / RECORD).read_text())
        return found if isinstance(found["settings"], dict) and isinstance(found["files"], dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by their step, whole or not."""
    found = ((CHECKPOINT.fullmatch(path.name), path) for path in Path(folder).glob("checkpoint-*") if path.is_dir())
    return dict(sorted((int(match[1]), path) for match, path in found if match))


def fault_of(checkpoint: Path) -> str | None:
    """Why a training cannot go on from this checkpoint, None if it can.

    Nothing is unpickled but tensors and plain values.
    """
    record = read_record(checkpoint)
    if record is None:
        return f"it has no {RECORD}, which is written last"
    for name, digest in record["files"].items():
        if not (checkpoint / name).is_file() or file_sha256(checkpoint / name) != digest:
            return f"{name} is cut or damaged" if (checkpoint / name).is_file() else f"{name} is missing"
    if not any(name.endswith(".safetensors") for name in record["files"]):
        pickled = [name for name in record["files"] if name.endswith("model.bin")]
        return f"its weights are pickled ({pickled[0]}), only safetensors are read" if pickled else "it has no safetensors"
    for needed in ("trainer_state.json", "optimizer", "scheduler", "rng_state"):
        if not any(name.startswith(needed) for name in record["files"]):
            return f"it has no {needed}"
    for name in record["files"]:
        if name.endswith((".pt", ".pth")):
            try:
                with safe_globals():
                    torch.load(checkpoint / name, map_location="cpu", weights_only=True)
            except Exception:  # whatever a file that somebody else made leads to
                return f"{name} cannot be read without running code from it"
    return None


def ended(checkpoint: Path) -> bool:
    """Whether the training had reached its end when this checkpoint was written."""
    state = json.loads((checkpoint / "trainer_state.json").read_text())
    control = state.get("stateful_callbacks", {}).get("TrainerControl", {})
    return bool(control.get("args", {}).get("should_training_stop"))


@dataclass
class Start:
    """Where a run begins: at a checkpoint (None: at step 0), or it is finished."""

    checkpoint: Path | None = None
    finished: bool = False


@dataclass
class Run:
    """One training in its folder.

    Args:
        folder: ``--output_dir``.
        settings: what makes the model what it is; a run goes on only where they are the same.
        about: what a card of this model must say later, such as the galaxies that it was trained on.
        source: which build of the data: ``Source.about()``.
        keep_best: the best checkpoint is the one kept.
        card_folder: where the card goes.
    """

    folder: Path
    settings: dict
    about: dict = field(default_factory=dict)
    source: dict = field(default_factory=dict)
    keep_best: bool = False
    card_folder: Path | None = None

    def __post_init__(self):
        self.folder = Path(self.folder)
        self.card_folder = Path(self.card_folder or self.folder)
        self.settings = json.loads(json.dumps(self.settings, default=str))

    # ---- before

    def begin(self, args: TrainingArguments) -> Start:
        """Look at the folder, make it this run's, and say where to begin; the same answer on every process.

        Raises:
            UserError: the folder holds another run, or files that would be replaced; no checkpoint where one was asked for.
        """
        return on_main_process(args, lambda: self._begin_here(args))

    def _begin_here(self, args: TrainingArguments) -> Start:
        try:
            return self._begin(args)
        except OSError as error:
            raise UserError(f"--output_dir {self.folder} cannot be used: {error}") from error

    def _begin(self, args: TrainingArguments) -> Start:
        asked = args.resume_from_checkpoint
        if asked and (args.from_scratch or args.overwrite_output_dir):
            raise UserError("--resume_from_checkpoint goes on, --from_scratch and --overwrite_output_dir begin again")
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is a file: --output_dir must be a folder")
        record = read_record(self.folder) or self._record_of_checkpoints()
        last = asked and str(asked).lower() in ("last", "true")
        self._check_card(record, args.overwrite_output_dir)
        if args.overwrite_output_dir:
            self._remove()
            record = None
        elif asked and not last:
            self._check_owner(record)
            start = Start(self._named(Path(asked)))
            self._write(record)
            return start
        else:
            self._check_owner(record)
            if args.from_scratch:
                self._remove()
                record = None
        if record is not None and record.get("finished") and self._model_is_whole(record):
            logger.warning("%s: the run is finished (step %s): nothing is left to train", self.folder, record.get("step"))
            return Start(finished=True)
        start = Start(self._last_whole())
        if start.checkpoint is None and last:
            raise UserError(f"no checkpoint to resume from in {self.folder}")
        if start.checkpoint is not None:
            logger.warning("going on from %s (--from_scratch begins again)", start.checkpoint)
        self._write(record)
        return start

    def _record_of_checkpoints(self) -> dict | None:
        """What the last checkpoint says of the run, where the folder's own record is lost and no model is there yet."""
        if any(path.name != RECORD for path in own_files(self.folder)):
            return None
        records = (read_record(place) for place in reversed(checkpoints_in(self.folder).values()))
        found = next((record for record in records if record), None)
        return found and {"settings": found["settings"], "files": {}}

    def _check_owner(self, record: dict | None) -> None:
        """Raise UserError unless the folder is empty of what a training writes, or holds this very run."""
        if record is not None:
            differing = differences(record["settings"], self.settings)
            if differing and (checkpoints_in(self.folder) or record.get("finished")):
                raise UserError(
                    f"{self.folder} holds a run with other settings: {self._told(record, differing)}; give another "
                    "--output_dir, or --overwrite_output_dir to remove that run and begin again"
                )
            return
        found = [path.name for path in own_files(self.folder)] + [path.name for path in checkpoints_in(self.folder).values()]
        if found:
            raise UserError(
                f"{self.folder} holds {', '.join(sorted(found)[:3])} of another run: give another --output_dir, or "
                "--overwrite_output_dir to replace that run"
            )

    def _check_card(self, record: dict | None, overwrite: bool) -> None:
        """Raise UserError where the card would replace one that this run has not written."""
        card = self.card_folder / CARD
        if card.exists() and not overwrite and (record or {}).get("card", {}).get(CARD) != file_sha256(card):
            raise UserError(
                f"{card} was not written by this run, and its card would replace it: give another folder, or "
                "--overwrite_output_dir"
            )

    def _named(self, checkpoint: Path) -> Path:
        """The checkpoint asked for, if a training can go on from it."""
        if not checkpoint.is_dir():
            raise UserError(f"no checkpoint to resume from in {checkpoint}")
        if fault := fault_of(checkpoint):
            raise UserError(f"no checkpoint to resume from in {checkpoint}: {fault}")
        differing = differences(read_record(checkpoint)["settings"], self.settings)
        if differing:
            told = self._told(read_record(checkpoint), differing)
            raise UserError(f"{checkpoint} is of a run with other settings: {told}")
        return checkpoint

    def _told(self, record: dict, differing: list[str]) -> str:
        """What differs; of data that were built anew, both manifests."""
        old, new = (each and "{manifest} (SHA-256 {sha256})".format(**each) for each in (record.get("source"), self.source))
        rebuilt = record["settings"].get("data") != self.settings.get("data") and old and new
        return ", ".join(differing) + (f"; it read the data of {old}, now they are those of {new}" if rebuilt else "")

    def _last_whole(self) -> Path | None:
        """The last checkpoint to go on from; those that are cut are passed over, which is said."""
        places = checkpoints_in(self.folder)
        faults: dict[int, str | None] = {}

        def fault(step: int) -> str | None:
            if step not in faults:
                faults[step] = fault_of(places[step]) if step in places else f"there is no checkpoint-{step}"
            return faults[step]

        for step in sorted(places, reverse=True):
            reason = fault(step)
            if reason is None and self.keep_best:
                best = json.loads((places[step] / "trainer_state.json").read_text()).get("best_global_step")
                if best and fault(best):
                    reason = f"its best checkpoint cannot be used: {fault(best)}"
            if reason is None and differences(read_record(places[step])["settings"], self.settings):
                reason = "it is of a run with other settings"
            if reason is None:
                return places[step]
            logger.warning("%s is passed over: %s", places[step], reason)
        if places:
            logger.warning("no checkpoint in %s is whole: the run begins at step 0", self.folder)
        return None

    def _model_is_whole(self, record: dict) -> bool:
        files = record["files"]
        return bool(files) and all(
            (self.folder / name).is_file() and file_sha256(self.folder / name) == digest for name, digest in files.items()
        )

    # ---- during and after

    def whole(self, checkpoint: Path, step: int) -> None:
        """Declare a checkpoint whole, once all processes have written theirs."""
        files = sorted(path for path in checkpoint.rglob("*") if path.is_file() and path.name != RECORD)
        record = self._facts() | {"step": step}
        digests = {str(path.relative_to(checkpoint)): file_sha256(path) for path in files}
        write_atomically(checkpoint / RECORD, json.dumps(record | {"files": digests}, indent=1))

    def _facts(self) -> dict:
        return {"settings": self.settings, "about": self.about, "source": self.source, "versions": versions()}

    def rotate(self, step: int, limit: int | None, best: int | None) -> None:
        """Remove checkpoints before this one but the last ``limit``, itself counted, and the best."""
        if not limit or limit < 1:
            return
        places = checkpoints_in(self.folder)
        before = [number for number in places if number < step and number != best and (places[number] / RECORD).exists()]
        spared = limit - 1 - (best is not None and best != step)
        for number in before[: max(0, len(before) - max(0, spared))]:
            with suppress(UserError):  # somebody keeps something there: it stays
                remove_checkpoint(places[number])

    def finish(self, step: int) -> None:
        """Say that the model in the folder is the trained one."""
        files = {path.name: file_sha256(path) for path in self.folder.iterdir() if MODEL.fullmatch(path.name)}
        self._write(read_record(self.folder), step=step, files=files, finished=True)

    def figures(self) -> dict[str, float] | None:
        """Of the test split, from a finished run whose card is written; None where there is no card."""
        record = read_record(self.folder) or {}
        if not all((self.card_folder / name).is_file() for name in record.get("card", {CARD: ""})):
            return None
        try:
            found = json.loads((self.folder / "test_results.json").read_text())
        except FileNotFoundError:  # nothing was measured
            return {}
        return {name.removeprefix("test_"): value for name, value in found.items()}

    def refuse_a_training(self, overwrite: bool) -> None:
        """Raise UserError where the card of a measurement would stand in the folder of a training, or replace another."""
        record = read_record(self.card_folder)
        if record is not None and record["settings"]:
            raise UserError(f"{self.card_folder} holds a training: give another folder for the card of a measurement")
        refuse_to_replace(self.card_folder, (CARD, "test_results.json"), overwrite)
        if self.folder != self.card_folder:
            refuse_to_replace(self.folder, ("test_results.json",), overwrite)

    def card_written(self, names: list[str]) -> None:
        """Remember the card, so that this run may write it again."""
        if read_record(self.folder) is None:  # of a measurement
            return
        card = {name: file_sha256(self.card_folder / name) for name in names if (self.card_folder / name).is_file()}
        self._write(read_record(self.folder), card=card)

    def _write(self, before: dict | None, **news) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {name: before[name] for name in ("card", "step", "files", "finished") if before and name in before}
        fresh = self._facts() | {"files": {}}
        if not news:
            kept.pop("finished", None)  # it trains again
        write_atomically(self.folder / RECORD, json.dumps(fresh | kept | news, indent=1))

    def _remove(self) -> None:
        """Remove what a run wrote into the folder, and nothing else.

        Raises:
            UserError: a folder of a checkpoint holds something else.
        """
        record = read_record(self.folder) or {}
        for checkpoint in checkpoints_in(self.folder).values():
            remove_checkpoint(checkpoint)
        for name, digest in record.get("card", {}).items():
            path = self.card_folder / name
            if Path(name).name == name and path.is_file() and file_sha256(path) == digest:
                path.unlink()
        for path in own_files(self.folder):
            path.unlink()


def own_files(folder: Path) -> Iterator[Path]:
    """The files in a folder whose names are those that a training gives."""
    return (path for path in (sorted(folder.iterdir()) if folder.is_dir() else ()) if OWN.fullmatch(path.name))


def remove_checkpoint(checkpoint: Path) -> None:
    """Remove a checkpoint: the files that its record names, and those with the names of `Trainer`.

    Raises:
        UserError: it holds something else, which stays.
    """
    record = read_record(checkpoint) or {"files": {}}
    inside = checkpoint.resolve()
    written = [path for name in record["files"] if (path := (inside / name).resolve()).is_relative_to(inside)]
    (checkpoint / RECORD).unlink(missing_ok=True)  # first: what is left is no checkpoint any more
    for path in (*written, *own_files(checkpoint)):
        path.unlink(missing_ok=True)
    others = [path for path in checkpoint.rglob("*") if not path.is_dir()]
    if others:
        raise UserError(f"{checkpoint} holds {others[0].name}, which no training wrote: move it away first")
    shutil.rmtree(checkpoint)


def on_main_process(args: TrainingArguments, function: Callable[[], Start]) -> Start:
    """The result of a function that only the first process calls, or its UserError, on all processes."""
    if args.world_size == 1:
        return function()
    answer: list = [None, None]
    if args.process_index == 0:
        try:
            answer[0] = function()
        except UserError as error:
            answer[1] = str(error)
    torch.distributed.broadcast_object_list(answer, src=0)
    if answer[1] is not None:
        raise UserError(answer[1])
    return answer[0]
