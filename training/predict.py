"""Predict with a trained model for every object of a survey, into one Parquet file keyed by object.

Any model that a script beside this one trained, over any survey that skyset reads:

    python training/predict.py --model out/votes --dataset data/gz_decals -o votes.parquet
    python training/predict.py --model out/photoz --dataset data/galaxiesml --config 64 --samples 100 -o redshifts.parquet
    python training/predict.py --model out/dc2 --dataset galaxies.hdf5 -o redshifts.parquet

On the GPUs of a machine, or as jobs of their own that share a disk:

    torchrun --nproc_per_node 4 training/predict.py --model out/votes --dataset data/gz_decals -o votes.parquet
    python training/predict.py --shard 3/16 --model out/votes --dataset data/gz_decals -o votes.parquet

Rows stream past in pieces, each written beside the output when it is done; the last process joins them, and only then is
the output there. After an interruption the same command goes on, with any number of processes. Columns: the key, ra and dec
where the survey has them, and what the task's models say; ``Predictor`` classes in common/predictors.py name them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from datasets import IterableDataset, Value

from skyset.errors import PartitionError, UserError
from skyset.files import keep_inputs
from skyset.loading import registry
from skyset.messages import listed
from skyset.partitions.layout import MANIFEST
from skyset.progress import progress_bar
from skyset.tables.open import open_catalog
from skyset.training.common.arguments import parse, run_script
from skyset.training.common.data import build_of
from skyset.training.common.mixtures import Mixture
from skyset.training.common.models import fingerprint, first_line, load_trained
from skyset.training.common.photometry import Columns, TableArguments, read_photometry
from skyset.training.common.pieces import Pieces
from skyset.training.common.predictors import PREDICTORS, Asked, Predictor, as_column, of_cdf
from skyset.training.common.streams import batches_ahead, known_length, open_rows

#: Of a table whose objects have no names.
ROW = "row"


@dataclass
class PredictArguments:
    """Which model, which objects, and where the predictions go."""

    model: str = field(metadata={"help": "Folder of a trained model, or its name on the Hub."})
    dataset: str = field(
        metadata={"help": "A survey by name (gz_decals), or the folder or URL of one; of a model for tables, a table."}
    )
    output: str = field(metadata={"aliases": ["-o"], "help": "The predictions: a Parquet file."})
    config: str | None = field(default=None, metadata={"help": "Config of the survey."})
    module: str | None = field(
        default=None, metadata={"help": "A loader of your own to know too: an importable module, or a file such as mine.py."}
    )
    split: str = field(default="all", metadata={"help": "Split of the survey, or all of them."})
    image_column: str | None = field(default=None, metadata={"help": "Default: image, or false_color."})
    key_column: str = field(default="object_id", metadata={"help": "Names an object; kept in the output."})
    views: int = field(default=1, metadata={"help": "Average over this many turned and mirrored views of each image."})
    samples: int = field(
        default=0,
        metadata={"help": "Also so many draws from each distribution: of votes, of p(z) with the uncertainty of weights."},
    )
    maps: bool = field(default=False, metadata={"help": "Models that segment: also the share at each pixel, in percent."})
    batch_size: int = field(default=64, metadata={"help": "Objects a batch."})
    rows_a_piece: int = field(default=4096, metadata={"help": "Objects that a kill can cost each process."})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16."})
    num_threads: int = field(default=4, metadata={"help": "Threads that decode images."})
    device: str | None = field(default=None, metadata={"help": "Default: cuda if there is one, else cpu."})
    shard: str | None = field(
        default=None, metadata={"help": "K/N: this process is number K, from 0, of N; torchrun says so itself."}
    )
    seed: int = field(default=0, metadata={"help": "Of the draws."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an output of other settings, or of somebody else."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of a model on the Hub."})
    cache_dir: str | None = field(default=None, metadata={"help": "Where downloaded models are kept."})
    token: str | None = field(default=None, metadata={"help": "For private models; by default that of `hf auth login`."})

    def __post_init__(self):
        for name in ("views", "batch_size", "rows_a_piece", "num_threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("samples", "seed"):
            if getattr(self, name) < 0:
                raise UserError(f"--{name} must not be negative, not {getattr(self, name)}")

    @property
    def asked(self) -> Asked:
        return Asked(self.views, self.samples, self.maps, self.image_column, self.seed)

    def place(self) -> tuple[int, int]:
        """Which process this is, of how many.

        Raises:
            UserError: a shard that cannot be.
        """
        told = f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
        match = re.fullmatch(r"(\d+)/(\d+)", self.shard or told)
        if match is None or int(match[1]) >= int(match[2]):
            if self.shard is None:
                raise UserError(f"the environment says RANK/WORLD_SIZE {told}, which is no process of so many: unset them")
            raise UserError(f"--shard {self.shard}: give K/N, K from 0 to N - 1, such as 0/4")
        return int(match[1]), int(match[2])

    def place_of_work(self) -> torch.device:
        """The device.

        Raises:
            UserError: there is none of this name here.
        """
        usual = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        try:
            device = torch.device(self.device or usual)
            torch.empty(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"--device {self.device}: {first_line(error)}") from error
        return device


def main(arguments: list[str] | None = None) -> int:
    """Predict; returns the number of rows in the output, 0 while pieces of other processes are missing."""
    (args,) = parse((PredictArguments,), arguments)
    rank, world = args.place()
    output = Path(args.output).expanduser()
    if output.suffix != ".parquet":
        raise UserError(f"-o {output}: predictions are written as Parquet, name them so: {output.stem or 'votes'}.parquet")
    keep_inputs(output, {"the data": args.dataset})
    if (Path(args.dataset).expanduser() / MANIFEST).is_file() and _is_below(output, Path(args.dataset).expanduser()):
        raise UserError(f"-o {output} lies in the data, where `skyset verify` wants nothing but theirs: name another place")
    if args.module:
        registry.register_module(args.module)
    hub = args.model_revision, args.cache_dir, args.token
    model, normalisation = load_trained(args.model, None, *hub)
    model = model.to(args.place_of_work()).eval()
    if model.config.skyset_task == "photoz_table":
        source: Survey | Table = Table(model, args)
    else:
        rows = open_rows(args.dataset, args.config, args.split)
        source = Survey(PREDICTORS[model.config.skyset_task](model, normalisation, rows, args.asked), rows, args)

    settings = {"model": fingerprint(args.model, *hub), "data": source.revision, "split": args.split}
    settings |= {name: getattr(args, name) for name in ("config", "image_column", "key_column", "views", "samples", "maps")}
    settings |= {"seed": args.seed, "dtype": "bfloat16" if args.bf16 else "float32"}
    pieces = Pieces(output, settings, len(source), args.rows_a_piece, args.overwrite)
    if not pieces.whole:
        predict(source, pieces, rank, world)
    if not pieces.join():
        print(f"process {rank} of {world} is done; {output} will be there when the others are")
        return 0
    print(f"{len(source)} predictions in {output}")
    return len(source)


def _is_below(path: Path, folder: Path) -> bool:
    return path.absolute().resolve().is_relative_to(folder.absolute().resolve())


def predict(source: Survey | Table, pieces: Pieces, rank: int, world: int) -> None:
    """Make this process's pieces."""
    waiting = pieces.waiting(rank, world)
    total = sum(min(pieces.size, pieces.rows - number * pieces.size) for number in waiting)
    with progress_bar(desc="predictions", unit=" objects", total=total, disable=rank > 0) as bar:
        for number in waiting:
            made = []
            generator = np.random.default_rng((source.args.seed, number))
            try:
                for table in source.tables(number * pieces.size, pieces.size, generator):
                    made.append(table)
                    bar.update(len(table))
                pieces.write(number, pa.concat_tables(made))
            except (PartitionError, OSError) as error:
                raise UserError(f"{error}; what is done is safe in {pieces.folder}") from error


class Survey:
    """A survey's rows, and what a model says of them.

    Args:
        predictor: of the model's task.
        rows: the survey as a stream.
        args: of the command.

    Raises:
        UserError: the survey has no such key.
    """

    def __init__(self, predictor: Predictor, rows: IterableDataset, args: PredictArguments):
        self.predictor, self.args = predictor, args
        self.keep = [name for name in (args.key_column, "ra", "dec") if name in rows.column_names]
        if args.key_column not in self.keep:
            raise UserError(f"{args.dataset} has no column {args.key_column}; it has {listed(rows.column_names)}")
        if not isinstance(rows.features[args.key_column], Value):
            raise UserError(f"--key_column {args.key_column}: a key is one value a row, and this column is not")
        self.rows = rows.select_columns(list(dict.fromkeys([*predictor.columns, *self.keep]))).with_format("numpy")
        self.revision = build_of(args.dataset, args.config or "")
        self._length = known_length(rows)

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(1 for _ in self.rows.select_columns([self.args.key_column]))
        return self._length

    def tables(self, first: int, count: int, generator: np.random.Generator) -> Iterator[pa.Table]:
        """Predictions for some rows, a batch at a time."""
        device = self.predictor.model.device
        with ThreadPoolExecutor(self.args.num_threads) as threads:

            def decoded(rows: list[dict]) -> tuple[dict[str, list], dict[str, torch.Tensor]]:
                return {name: [row[name] for row in rows] for name in self.keep}, self.predictor.batch(rows, threads)

            rows = self.rows.skip(first).take(count)
            for known, tensors in batches_ahead(rows, self.args.batch_size, decoded):
                with torch.inference_mode(), half(device, self.args.bf16):
                    on_device = {name: values.to(device) for name, values in tensors.items()}
                    answers = self.predictor.answers(on_device, generator)
                yield table_of(known, answers)


class Table:
    """A table's rows, and the redshifts that a model for tables gives them.

    Args:
        model: of the task ``photoz_table``.
        args: of the command.

    Raises:
        UserError: it is no table, has not the columns that the model was trained on, or something is asked for that is of
            images.
    """

    def __init__(self, model, args: PredictArguments):
        if args.views > 1 or args.maps or args.image_column:
            raise UserError("this model reads tables: --views, --maps and --image_column are of images")
        if args.split != "all" or args.config:
            raise UserError("this model reads tables: --split and --config are of surveys")
        if "://" in args.dataset or not Path(args.dataset).expanduser().is_file():
            raise UserError(f"this model reads tables, and {args.dataset} is no file: --dataset galaxies.parquet")
        known = model.config.columns
        columns = Columns(tuple(model.config.bands), tuple(known["magnitudes"]), tuple(known["errors"]), None)
        self.model, self.args, self.grid = model, args, grid_of(model.config)
        self.rows = read_photometry(args.dataset, TableArguments(), columns, redshift=False)
        names = open_catalog(args.dataset).schema.names
        keep = [name for name in (args.key_column, "ra", "dec") if name in names]
        if args.key_column not in names and args.key_column != "object_id":
            raise UserError(f"{args.dataset} has no column {args.key_column}; it has {listed(names)}")
        self.known: dict[str, pa.Array] = {ROW: pa.array(np.arange(len(self.rows)))} if args.key_column not in names else {}
        if keep:
            read = pa.Table.from_batches(list(open_catalog(args.dataset, keep).batches()))
            self.known |= {name: read[name].combine_chunks() for name in keep}
        self.revision = self.rows.digest

    def __len__(self) -> int:
        return len(self.rows)

    def tables(self, first: int, count: int, generator: np.random.Generator) -> Iterator[pa.Table]:
        """As of a `Survey`."""
        stop = min(first + count, len(self))
        for start in range(first, stop, 1024):
            part = slice(start, min(start + 1024, stop))
            photometry = (self.rows.magnitudes[part], self.rows.errors[part])
            device = self.model.device
            with torch.inference_mode(), half(device, self.args.bf16):
                components = self.model(*(torch.from_numpy(each).to(device) for each in photometry)).logits
            answers = of_cdf(
                Mixture(components).cdf(self.grid), self.grid, self.args.samples, generator, self.model.config.point
            )
            unseen = np.isnan(photometry[0]).all(1)
            for values in answers.values():
                values[unseen] = np.nan
            yield table_of({name: values[part] for name, values in self.known.items()}, answers)


def half(device: torch.device, wanted: bool) -> torch.autocast:
    """Computing in bfloat16 where it does no harm, as in training."""
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def grid_of(config) -> np.ndarray:
    """Redshifts on which distributions of a model for tables are read, dense where dz / (1 + z) is small, (nodes,)."""
    return np.expm1(np.linspace(0, config.centre + 8 * config.spread, 1001))


def table_of(known: Mapping[str, object], answers: Mapping[str, np.ndarray]) -> pa.Table:
    """Key and position, then the answers."""
    if both := sorted(set(known) & set(answers)):
        raise UserError(f"{both[0]} is a column of the data and of the predictions: give another --key_column")
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in known.items()}
    return pa.table(arrays | {name: as_column(values) for name, values in answers.items()})


if __name__ == "__main__":
    run_script("predict", main)
