"""The sources of all images of a file, several images at once, each in a process of its own: `extract_file`."""

from __future__ import annotations

import dataclasses
import os
import pickle
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from astropy.io import fits

from skyset.errors import UserError
from skyset.extraction import columns as names
from skyset.extraction import images
from skyset.extraction.detect import Measured, measure
from skyset.extraction.engines import load_engine
from skyset.extraction.quantities import NotGivenWarning
from skyset.extraction.settings import Settings
from skyset.extraction.world import celestial_wcs
from skyset.runner import executor, in_order

#: What processes that measure images import once for all.
PRELOAD = ("skyset.extraction.ready",)
_FEWER = (
    'try fewer (--processes 1; in Python processes=1; a script has its code below `if __name__ == "__main__":`, and '
    "settings that are a function lie in a module)"
)


@dataclass(frozen=True, eq=False)
class Extension:
    """One image of a file: ``number`` among all those of the file with an image, from 1, its header, what was found, and
    the settings that it was measured with."""

    number: int
    header: fits.Header
    measured: Measured
    settings: Settings


def extract_file(
    path: str | Path | images.Chosen,
    settings: Settings | Callable[[fits.Header], Settings],
    columns: Sequence[str],
    *,
    extensions: Sequence[int] | None = None,
    weight: str | Path | None = None,
    flag_image: str | Path | None = None,
    classifier: str | Path | None = None,
    engine: str | None = None,
    check: Sequence[str] = (),
    processes: int | None = None,
    scheduler: str | None = None,
    progress: bool = False,
) -> Iterator[Extension]:
    """The sources of every two-dimensional image of a FITS file, in the file's order, several at once.

    Args:
        path: simple, multi-extension or tile-compressed (fpack) FITS, packed or not; any BITPIX, scaled or not. It may say
            which images are meant: ``file.fits[SCI,2]``, ``cube.fits[0][z]``. Or what `images.choose` found in it, whose
            notes are then the caller's to pass on.
        settings: for all, or what gives them for an image's header (`config.Configuration.for_header`).
        columns: SExtractor's names.
        extensions: HDU numbers, from 0; None: those that ``path`` means: without brackets all two-dimensional images but
            masks, weights and the like (by EXTNAME or EXTTYPE); what is passed over is named in a warning.
        weight, flag_image: files with an image for each image of ``path``, whether it is chosen or not, or one for all; as
            ``path``, they may say which.
        classifier: a ``default.nnw``; None: our own.
        engine: ``"compiled"`` or ``"sep"``; None: compiled where numba is installed (see `engines`).
        check: check images wanted, `columns.CHECKS`.
        processes: images at once, each in a process of its own; None: one per core. With more than one, a script must
            have its code below ``if __name__ == "__main__":``, and a function for ``settings`` must be one that other
            processes can import.
        scheduler: address of a Dask scheduler (``tcp://host:8786``) whose workers measure, instead of processes here; they
            need the same files under the same names.
        progress: show a bar.

    Raises:
        UserError: a file is none of FITS, has no image, or weights and images do not belong together; a process ended; the
            engine is not installed, or cannot do what is wanted.
        ValueError: ``processes`` is below 1, ``extensions`` is empty, ``settings`` cannot be given to other processes.

    Warnings while an image is measured come with its file and HDU, from other processes too; but that of a seeing or pixel
    scale which was not given (`NotGivenWarning`) is the same for all images.
    """
    if processes is not None and processes < 1:
        raise ValueError(f"processes is {processes}: it must be at least 1")
    load_engine(engine)
    chosen = path if isinstance(path, images.Chosen) else images.choose(path)
    if extensions is not None:
        there = [image.hdu for image in chosen.every]
        if missing := [number for number in extensions if number not in there]:
            raise UserError(f"{chosen.path}: HDU {missing[0]} holds no 2-D image; there are {', '.join(map(str, there))}")
        if not len(extensions):
            raise ValueError("extensions is empty: it names the HDUs to be measured")
        chosen = dataclasses.replace(chosen, images=[image for image in chosen.every if image.hdu in extensions], notes=[])
    for note in chosen.notes if chosen is not path else ():
        warnings.warn(note, stacklevel=2)
    weights = None if weight is None else images.partners(weight, chosen, "weights")
    flags = None if flag_image is None else images.partners(flag_image, chosen, "flags")
    jobs = [
        _Job(
            image,
            settings,
            tuple(columns),
            weights[k] if weights else None,
            flags[k] if flags else None,
            classifier,
            engine,
            tuple(check),
        )
        for k, image in enumerate(chosen.images)
    ]
    processes = min(processes or os.cpu_count() or 1, len(jobs))
    if processes > 1 or scheduler:
        _check_picklable(settings)
    return _each([job.for_workers() for job in jobs] if scheduler else jobs, processes, scheduler, progress)


def _each(jobs: list[_Job], processes: int, scheduler: str | None, progress: bool) -> Iterator[Extension]:
    from skyset.progress import progress_bar

    bar = progress_bar(total=len(jobs), unit="image", desc="extracting", leave=False, disable=not progress)
    with bar:
        for job, (extension, said) in _results(jobs, processes, scheduler):
            for text, category in said:
                # What was not given is missing for all images: the same words once, however many there are.
                warnings.warn(text if category is NotGivenWarning else f"{job.image}: {text}", category, stacklevel=2)
            yield extension
            bar.update()


def _results(jobs: list[_Job], processes: int, scheduler: str | None) -> Iterator[tuple[_Job, _Result]]:
    """Few are ahead: check images wait in memory until they are taken."""
    shared = {file for job in jobs for file in job.files()} if scheduler else ()
    with executor(processes, scheduler, PRELOAD, sorted(shared), _FEWER) as pool:
        yield from in_order(pool, _Job.run, jobs)


def _check_picklable(settings: object) -> None:
    try:
        pickle.dumps(settings)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"settings cannot be given to other processes ({error}): give a function of a module, or processes=1"
        ) from None


#: What an image gave, and the warnings meanwhile: text and category.
_Result = tuple[Extension, list[tuple[str, type[Warning]]]]


@dataclass(frozen=True)
class _Job:
    image: images.Image
    settings: Settings | Callable[[fits.Header], Settings]
    columns: tuple[str, ...]
    weight: images.Image | None
    flag_image: images.Image | None
    classifier: str | Path | None
    engine: str | None
    check: tuple[str, ...]

    def files(self) -> Iterator[Path]:
        """What it is measured from, but for its configuration, which is read."""
        yield from (each.path for each in (self.image, self.weight, self.flag_image) if each is not None)
        if self.classifier is not None:
            yield Path(self.classifier)

    def for_workers(self) -> _Job:
        """The same, measured from any folder that a worker stands in."""
        classifier = self.classifier and Path(self.classifier).absolute()
        image, weight, flags = (each and each.at_its_place() for each in (self.image, self.weight, self.flag_image))
        return dataclasses.replace(self, image=image or self.image, weight=weight, flag_image=flags, classifier=classifier)

    def run(self) -> _Result:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            extension = self._extension()
        return extension, [(str(one.message), one.category) for one in caught]

    def _extension(self) -> Extension:
        header, image = self.image.header, self.image.pixels()
        how = self.settings(header) if callable(self.settings) else self.settings
        weight, flags = (None if other is None else other.pixels() for other in (self.weight, self.flag_image))
        stages = {names.COLUMNS[name].stage for name in names.check(self.columns)}
        wcs = celestial_wcs(header) if "world" in stages or how.pixel_scale == 0 else None
        try:
            measured = measure(
                image,
                how,
                self.columns,
                weight=weight,
                flag_image=flags,
                wcs=wcs,
                classifier=self.classifier,
                engine=self.engine,
                check=self.check,
                overwrite=True,
            )
        except (UserError, ValueError) as error:
            raise UserError(f"{self.image}: {error}") from None
        except MemoryError:
            raise UserError(f"{self.image}: its measurement does not fit into memory") from None
        if "EXT_NUMBER" in measured.columns:
            measured.columns["EXT_NUMBER"][:] = self.image.number
        return Extension(self.image.number, header, measured, how)
