"""Vectors that a vision model computes from every image of a survey, as parquet keyed by object.

    python training/extract_representations.py --model_name_or_path mwalmsley/zoobot-encoder-convnext_nano \\
        --dataset data/gz_decals --output_dir data/gz_decals_representations --bf16

Images stream past once, whatever their number. The output folder holds one parquet file for every ``--rows_a_part`` rows
and ``representations.json``, which names the finished ones: stop the script at any moment, and the same command goes on
after the last finished file, with each object once. Columns: the key, ``ra`` and ``dec`` where the survey has them, and
``representation``, a list of fixed size.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import IterableDataset
from transformers import PreTrainedModel

from skyset.errors import PartitionError, UserError
from skyset.files import clear_leftovers, replacing
from skyset.loading import registry
from skyset.progress import progress_bar
from skyset.training.common.arguments import ImageArguments, ModelArguments, parse
from skyset.training.common.data import build_of
from skyset.training.common.encoders import pooled
from skyset.training.common.images import to_tensor
from skyset.training.common.models import Normalisation, image_size, load_encoder
from skyset.training.common.streams import batches_ahead, find_image_column, known_length, open_rows
from skyset.training.common.views import Views

MANIFEST = "representations.json"


@dataclass
class ExtractArguments:
    """What to read, how, and where to."""

    dataset: str = field(metadata={"help": "A survey by name (gz_decals), or the folder or URL of one."})
    output_dir: str = field(metadata={"help": "Folder for parquet files and their list."})
    config: str | None = field(default=None, metadata={"help": "Config of the survey."})
    module: str | None = field(
        default=None, metadata={"help": "A loader of your own to know too: an importable module, or a file such as mine.py."}
    )
    split: str = field(default="all", metadata={"help": "Split of the survey, or all of them."})
    image_column: str | None = field(default=None, metadata={"help": "Default: image, or false_color."})
    key_column: str = field(default="object_id", metadata={"help": "Names an object; kept in the output."})
    pool: str = field(
        default="mean", metadata={"help": "mean over the image, or the model's cls token.", "choices": ["mean", "cls"]}
    )
    views: int = field(default=1, metadata={"help": "Average over this many turned and mirrored views."})
    batch_size: int = field(default=64, metadata={"help": "Images a batch."})
    rows_a_part: int = field(default=4096, metadata={"help": "Rows a parquet file."})
    dtype: str = field(default="float32", metadata={"help": "Of the vectors on disk.", "choices": ["float32", "float16"]})
    bf16: bool = field(default=False, metadata={"help": "Compute in bfloat16."})
    num_threads: int = field(default=4, metadata={"help": "Threads that decode images."})
    device: str | None = field(default=None, metadata={"help": "Default: cuda if there is one, else cpu."})

    def __post_init__(self):
        for name in ("views", "batch_size", "rows_a_part", "num_threads"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} must be 1 or more, not {getattr(self, name)}")


def main(arguments: list[str] | None = None) -> int:
    """Extract; returns the number of rows in the output folder."""
    model_args, image_args, args = parse((ModelArguments, ImageArguments, ExtractArguments), arguments)
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    model, normalisation = load_encoder(
        model_args.model_name_or_path,
        model_args.model_type,
        model_args.overrides,
        model_args.model_revision,
        model_args.cache_dir,
        model_args.token,
    )
    if model_args.image_mean is not None:
        normalisation = Normalisation(tuple(model_args.image_mean), tuple(model_args.image_std))
    size = image_size(model, image_args.image_size)
    load_size = image_args.load_size or round(size / image_args.eval_zoom)
    views = Views(size, normalisation.mean, normalisation.std, eval_zoom=image_args.eval_zoom).eval()
    if args.module:
        registry.register_module(args.module)
    rows = open_rows(args.dataset, args.config, args.split)
    image_column = args.image_column or find_image_column(rows)
    keep = [name for name in (args.key_column, "ra", "dec") if name in rows.column_names]
    if args.key_column not in keep:
        raise UserError(f"{args.dataset} has no column {args.key_column}; it has {', '.join(rows.column_names)}")
    rows = rows.select_columns([image_column, *keep])

    settings = settings_of(model_args, image_args, args, size) | {"manifest": build_of(args.dataset, args.config or "")}
    output = Parts(Path(args.output_dir), settings)
    encoder = model.to(device, torch.bfloat16 if args.bf16 else torch.float32).eval()
    bar = progress_bar(desc="representations", unit=" galaxies", initial=output.rows, total=known_length(rows))
    try:
        batches = read_batches(rows.skip(output.rows), image_column, load_size, encoder.config.num_channels, args)
        for columns, images in batches:
            vectors = encode(encoder, views, images.to(device), args.pool, args.views)
            output.add(table(columns, vectors, args.dtype), args.rows_a_part)
            bar.update(len(images))
        output.finish()
    except PartitionError as error:
        raise UserError(f"{error}; {output.rows} rows are safe in {args.output_dir}") from error
    bar.close()
    print(f"{output.rows} representations of {output.width} numbers in {args.output_dir}")
    return output.rows


def settings_of(model_args: ModelArguments, image_args: ImageArguments, args: ExtractArguments, size: int) -> dict:
    """All that changes the vectors: a folder holds those of one setting only."""
    without_effect = (
        "cache_dir",
        "token",
        "freeze",
        "n_blocks",
        "zoom_min",
        "zoom_max",
        "output_dir",
        "batch_size",
        "num_threads",
        "device",
        "rows_a_part",
        "module",
    )
    given = asdict(model_args) | asdict(image_args) | asdict(args) | {"image_size": size}
    return {key: value for key, value in given.items() if key not in without_effect}


def read_batches(
    rows: IterableDataset, image_column: str, size: int, channels: int, args: ExtractArguments
) -> Iterator[tuple[dict[str, list], torch.Tensor]]:
    """Columns and images of a batch at a time; the next batch is decoded in threads while this one is computed with."""

    def decoded(batch: list[dict]) -> tuple[dict[str, list], torch.Tensor]:
        images = list(pool.map(lambda row: to_tensor(row[image_column], size, channels), batch))
        columns = {name: [row[name] for row in batch] for name in batch[0] if name != image_column}
        return columns, torch.stack(images)

    with ThreadPoolExecutor(args.num_threads) as pool:
        yield from batches_ahead(rows, args.batch_size, decoded)


@torch.inference_mode()
def encode(model: PreTrainedModel, views: Views, images: torch.Tensor, pool: str, count: int) -> np.ndarray:
    """Vectors float32 (batch, width), averaged over ``count`` views of uint8 images (batch, channels, size, size)."""
    total = sum(pooled(model, views.turned(images, view, count).to(model.dtype), pool).float() for view in range(count))
    return (total / count).cpu().numpy()


def table(columns: dict[str, list], vectors: np.ndarray, dtype: str) -> pa.Table:
    """Key, position and ``representation`` (fixed_size_list) of a batch."""
    values = pa.array(np.ascontiguousarray(vectors, dtype=dtype).ravel())
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays["representation"] = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pa.table(arrays)


class Parts:
    """The output folder: parquet files of rows in the order of the stream, and the list of finished ones.

    A file counts from the moment the list names it, and the list is replaced in one step: a kill at any moment loses at
    most the rows of one part, and no row is ever in two.

    Raises:
        UserError: the folder holds vectors made with other settings or without a list, or its list cannot be read.
    """

    def __init__(self, folder: Path, settings: dict):
        self.folder, self.settings, self.width = folder, settings, 0
        self.parts: list[dict] = []
        self._waiting: list[pa.Table] = []
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        if (folder / MANIFEST).exists():
            self._go_on()
        elif there := sorted(folder.glob("part-*.parquet")):
            raise UserError(f"{folder} holds {there[0].name} and no {MANIFEST}: choose another --output_dir")

    def _go_on(self) -> None:
        try:
            found = json.loads((self.folder / MANIFEST).read_text())
            self.parts, settings, self.width = found["parts"], found["settings"], found["width"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise UserError(f"{self.folder / MANIFEST} is not a list of representations") from error
        differing = [key for key in self.settings if settings.get(key) != self.settings[key]]
        if differing:
            raise UserError(
                f"{self.folder} holds vectors with another {differing[0]} ({settings.get(differing[0])!r}): "
                "choose another --output_dir"
            )
        lost = [part["file"] for part in self.parts if not (self.folder / part["file"]).exists()]
        if lost:
            raise UserError(f"{self.folder} lost {lost[0]}: remove {MANIFEST} to start again")

    @property
    def rows(self) -> int:
        """Rows in finished files."""
        return sum(part["rows"] for part in self.parts)

    def add(self, batch: pa.Table, rows_a_part: int) -> None:
        """Take a batch; whole parts are written."""
        self._waiting.append(batch)
        while sum(map(len, self._waiting)) >= rows_a_part:
            joined = pa.concat_tables(self._waiting)
            self._write(joined.slice(0, rows_a_part))
            self._waiting = [joined.slice(rows_a_part)]

    def finish(self) -> None:
        """Write what is left."""
        if sum(map(len, self._waiting)):
            self._write(pa.concat_tables(self._waiting))
        self._waiting = []

    def _write(self, rows: pa.Table) -> None:
        name = f"part-{len(self.parts):05d}.parquet"
        self.width = rows.schema.field("representation").type.list_size
        if not self.parts:
            self._list()  # whose the folder is, before its first part: a kill in between is gone on from
        with replacing(self.folder / name) as temporary:
            pq.write_table(rows, temporary, compression="zstd", use_dictionary=False)
        self.parts.append({"file": name, "rows": len(rows)})
        self._list()

    def _list(self) -> None:
        with replacing(self.folder / MANIFEST) as temporary:
            listing = {"settings": self.settings, "width": self.width, "rows": self.rows, "parts": self.parts}
            temporary.write_text(json.dumps(listing, indent=1))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(f"extract_representations: {error}", file=sys.stderr)
        sys.exit(2)
