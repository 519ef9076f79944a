"""Galaxies of GalaxiesML as tensors: redshifts, photometry and images in units of flux, checked before anything is trained.

Photometry is (rows, 2 bands) as the catalogue has it: magnitudes, then their errors, NaN where one is missing. Redshifts and
photometry are read whole; images stay where they are until a row is asked for, or go onto the device (`resident`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import datasets
import numpy as np
import torch
from torch import Tensor

from skyset.errors import PartitionError, UserError
from skyset.loaders.galaxiesml import BANDS
from skyset.loading import registry
from skyset.splits import SPLITS
from skyset.training.common.data import load_splits, source_of
from skyset.training.common.images import Rows
from skyset.training.common.resident import Resident, fill
from skyset.training.common.stretches import Stretch, check_square, noise_of_bands

REDSHIFT, IMAGE = "specz_redshift", "image"
#: How images may lie on the device.
STORED = ("fp16", "uint8")
#: Images of the training set whose noise is measured; rows that are read together.
_SAMPLE, _TOGETHER = 256, 256
#: Of float16.
_LARGEST = 65504.0


@dataclass
class Galaxies:
    """One split.

    Args:
        rows: with the columns that are asked for; a table, or a stream that is read from its start each time.
        object_id: (rows,) text.
        z: float32 (rows,).
        photometry: float32 (rows, 2 bands), or None where nobody asked.
        image_shape: (bands, size, size) of the images, or None; smaller than they are stored: their middle.
    """

    rows: datasets.Dataset | datasets.IterableDataset
    object_id: np.ndarray
    z: Tensor
    photometry: Tensor | None
    image_shape: tuple[int, int, int] | None

    def __len__(self) -> int:
        return len(self.z)

    def known(self) -> dict[str, Tensor]:
        """What is small, by the name that the model gives it."""
        photometry = {} if self.photometry is None else {"photometry": self.photometry}
        return photometry | {"labels": self.z}

    def without_images(self) -> Galaxies:
        """The same, for a network that sees photometry alone."""
        return replace(self, image_shape=None)

    def cropped(self, size: int | None) -> Galaxies:
        """The same with the middle of each image, ``size`` pixels a side; None leaves them as they are.

        Raises:
            UserError: the images are smaller.
        """
        if self.image_shape is None or not size:
            return self
        bands, there, _ = self.image_shape
        if there < size:
            raise UserError(f"the network takes {size} pixels, the images have {there}")
        return replace(self, image_shape=(bands, size, size))

    def images(self) -> Iterator[Tensor]:
        """All images in order, float32 (up to 256, bands, size, size); pixels that are not finite are 0, as padding is."""
        only = self.rows.select_columns([IMAGE]).with_format("numpy")
        for batch in only.iter(batch_size=_TOGETHER):
            yield flux_of(batch[IMAGE], self.image_shape[1])

    def lazily(self) -> Rows:
        """As a dataset that reads an image when its row is asked for."""
        return Rows(self.rows, {"pixel_values": (IMAGE, partial(flux_of, size=self.image_shape[1]))}, self.known())

    def on(self, device: torch.device, stored: str = "fp16", stretch: Stretch | None = None) -> Resident:
        """As a dataset that lies on a device, images with it where there are any.

        Args:
            device: which.
            stored: ``fp16``: flux, at most 65,504; ``uint8``: ``stretch.to_bytes`` of it.
            stretch: of the network.
        """
        tensors = {name: values.to(device) for name, values in self.known().items()}
        if self.image_shape is not None and stretch is not None:
            dtype = torch.uint8 if stored == "uint8" else torch.float16
            store = stretch.to_bytes if stored == "uint8" else to_half
            batches = (store(images) for images in self.images())
            tensors["pixel_values"] = fill(len(self), self.image_shape, batches, dtype, device, "images to the device")
        return Resident(tensors)


def flux_of(image: np.ndarray, size: int) -> Tensor:
    """Float32 (..., size, size): the middle, in which the target stays at pixel size // 2; what is not finite is 0."""
    first = image.shape[-1] // 2 - size // 2
    middle = image[..., first : first + size, first : first + size]
    return torch.nan_to_num(torch.from_numpy(np.array(middle, np.float32)), 0.0, 0.0, 0.0)


def to_half(flux: Tensor) -> Tensor:
    """float16, cut at what it can hold."""
    return flux.clamp(-_LARGEST, _LARGEST).half()


def load_galaxies(
    data_dir: str,
    config: str,
    images: bool = True,
    photometry: bool = True,
    stream: bool = False,
    size: int | None = None,
) -> dict[str, Galaxies]:
    """The splits train, validation and test of GalaxiesML.

    Args:
        data_dir: folder or URL of what ``skyset build galaxiesml`` made.
        config: 127, 64 or tabular.
        images, photometry: whether they are needed.
        size: pixels a side of the images, their middle; None for all.
        stream: read images once and in order, without an Arrow copy of them on the disk: for those that go onto the device.

    Raises:
        UserError: no such data, no images or photometry in them, or a redshift that is no number.
    """

    source_of(data_dir, config)  # says what is wrong with the folder, if anything
    if images and config == "tabular":
        raise UserError("the config tabular has no images: --config_name 64 or 127, or --model nn, mdn or bnn")
    splits = _streams(data_dir, config) if stream else load_splits(data_dir, config, "galaxiesml")
    if missing := [name for name in SPLITS if name not in splits]:
        raise UserError(f"{data_dir} has no {missing[0]} split")
    return {name: _galaxies(splits[name], name, images, photometry).cropped(size) for name in SPLITS}


def _streams(data_dir: str, config: str) -> dict[str, datasets.IterableDataset]:
    named = data_dir in registry.surveys()
    try:
        return datasets.load_dataset("galaxiesml", config, data_dir=None if named else data_dir, streaming=True)
    except (ValueError, OSError, PartitionError) as error:
        raise UserError(f"cannot read {data_dir}: {str(error).splitlines()[0]}") from error


def _galaxies(rows: datasets.Dataset | datasets.IterableDataset, split: str, images: bool, photometry: bool) -> Galaxies:
    there = set(rows.features)
    if REDSHIFT not in there:
        raise UserError(f"the {split} split has no {REDSHIFT}: nothing can be learned from it")
    if images and IMAGE not in there:
        raise UserError(f"the {split} split has no images")
    names = [f"{band}_cmodel_{what}" for what in ("mag", "magsigma") for band in BANDS] if photometry else []
    if lacking := [name for name in names if name not in there]:
        raise UserError(f"the {split} split has no {lacking[0]}: no photometry; --model cnn does without")
    columns = columns_of(rows, ["object_id", REDSHIFT, *names])
    z, ids = np.asarray(columns[REDSHIFT], np.float64), np.asarray(columns["object_id"]).astype(str)
    if not len(z):
        raise UserError(f"the {split} split has no rows")
    bad = np.flatnonzero(~(np.isfinite(z) & (z > -1)))
    if len(bad):
        raise UserError(
            f"the {split} split has {len(bad)} redshifts that are no numbers above -1, the first is {z[bad[0]]} of "
            f"{ids[bad[0]]}: build it without these rows"
        )
    table = np.stack([np.asarray(columns[name], np.float32) for name in names], axis=1) if names else None
    if table is not None:
        _check_photometry(table[:, : len(BANDS)], split)
    shape = None
    if images:
        first = next(iter(rows.select_columns([IMAGE]).with_format("numpy").iter(batch_size=1)))[IMAGE][0]
        side = check_square(first.shape, len(BANDS))
        shape = len(BANDS), side, side
    known = None if table is None else torch.from_numpy(table)
    return Galaxies(rows, ids, torch.from_numpy(z.astype(np.float32)), known, shape)


def _check_photometry(magnitudes: np.ndarray, split: str) -> None:
    """Raise UserError where a band has no magnitudes at all, or a galaxy none in any band."""
    finite = np.isfinite(magnitudes)
    if len(empty := np.flatnonzero(~finite.any(axis=0))):
        raise UserError(f"the {split} split has no {BANDS[empty[0]]} magnitude of any galaxy: no photometry")
    if without := int((~finite.any(axis=1)).sum()):
        raise UserError(f"{without} galaxies of the {split} split have no magnitude in any band; --model cnn does without")


def columns_of(rows: datasets.Dataset | datasets.IterableDataset, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Whole columns, in the order of the rows."""
    small = rows.select_columns(list(names)).with_format("numpy")
    batches = list(small.iter(batch_size=4096))
    return (
        {name: np.concatenate([np.asarray(batch[name]) for batch in batches]) for name in names}
        if batches
        else {name: np.empty(0) for name in names}
    )


def statistics(galaxies: Galaxies) -> dict[str, list[float] | float | int]:
    """What a `PhotozConfig` must know of the training set: of photometry, redshifts, and how many rows there are.

    A band that does not vary, or an error that is the same everywhere, has standard deviation 1.
    """
    logarithm = torch.log1p(galaxies.z.double())
    found: dict[str, list[float] | float | int] = {
        "z_mean": float(logarithm.mean()),
        "z_std": max(float(logarithm.std(correction=0)), 1e-3),
        "z_max": max(4.0, float(galaxies.z.max()) * 1.05),
        "rows": len(galaxies),
    }
    if galaxies.photometry is None:
        return found
    magnitudes, errors = galaxies.photometry.double().numpy().reshape(len(galaxies), 2, -1).swapaxes(0, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.log(np.where(errors > 0, errors, np.nan))
    for name, values in (("magnitude", magnitudes), ("error", errors)):
        known = np.where(np.isfinite(values), values, np.nan)
        known = np.where(np.isfinite(known).any(axis=0), known, 0.0)
        spread = np.nanstd(known, axis=0)
        found |= {
            f"{name}_mean": np.nanmean(known, axis=0).tolist(),
            f"{name}_std": np.where(spread > 1e-6, spread, 1).tolist(),
        }
    return found


def softening_of(galaxies: Galaxies) -> tuple[float, ...]:
    """Noise of each band, of up to 256 images from all over the training set, as they are stored."""
    step = max(1, len(galaxies) // _SAMPLE)
    images, first = [], 0
    if isinstance(galaxies.rows, datasets.Dataset):
        galaxies, step = replace(galaxies, rows=galaxies.rows.select(range(0, len(galaxies), step))), 1
    for batch in galaxies.rows.select_columns([IMAGE]).with_format("numpy").iter(batch_size=_TOGETHER):
        images.append(np.asarray(batch[IMAGE][(-first) % step :: step], np.float32))
        first += len(batch[IMAGE])
    return noise_of_bands(np.nan_to_num(np.concatenate(images)))


def joined(parts: Sequence[Galaxies]) -> Galaxies:
    """Several splits as one."""
    known = [part.photometry for part in parts if part.photometry is not None]
    return Galaxies(
        datasets.concatenate_datasets([part.rows for part in parts]),
        np.concatenate([part.object_id for part in parts]),
        torch.cat([part.z for part in parts]),
        torch.cat(known) if known else None,
        parts[0].image_shape,
    )
