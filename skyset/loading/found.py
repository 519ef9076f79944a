"""What lies in a folder or behind a URL, of whatever form: partitions, what ``skyset push`` made, HATS, published files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from skyset.errors import UserError
from skyset.loading import registry
from skyset.loading.hats import read_hats
from skyset.loading.in_place import lying_in
from skyset.loading.places import looked_in
from skyset.loading.pushed import read_pushed
from skyset.loading.trees import files_of
from skyset.partitions.manifest import Manifest, raw_values
from skyset.secrets import without_login
from skyset.sky import cell_boxes, joint_box
from skyset.survey import Survey, plain_features, undescribed

#: Where the files lie, the declaration as it was built, and the manifest, which may be nowhere on a disk.
Found = tuple[str, Survey, Manifest]


def opened(source: str) -> Found:
    """The rows of a survey's name, a folder or a URL.

    Raises:
        UserError: there are none.
    """
    root = without_login(str(source)).rstrip("/") or "/"
    if registry.is_known(root):
        name, root = root, registry.find_root(root) or ""
        if not root:
            raise UserError(f"no {name} partitions found: name the folder; {looked_in(name)}")
    elif "://" not in root:
        root = registry.index_named(root) or str(Path(root).expanduser().absolute())
    try:
        manifest = Manifest.load(root)
    except UserError:
        if (other := _pushed(root) or read_hats(root, registry.survey)) is not None:
            return other
        if "://" in root:
            raise
        if below := registry.folders_below(root):
            return opened(next(iter(below.values())))
        if there := lying_in(root):
            return next(iter(there.values()))
        if registry.has_parquet(root):
            from skyset.loading.parquet_tree import read_parquet

            return read_parquet(root)
        raise
    return files_of(manifest, root), _declared(manifest), manifest


def _pushed(root: str) -> Found | None:
    """The first of the datasets that a folder or repository of pushed Parquet has; None where it is no such."""
    try:
        values = raw_values(root)
        name, config = values["survey"], next(iter(values["datasets"]))
        columns = Manifest.head({**values["datasets"][config], "survey": name, "rejected": 0})
    except (OSError, ValueError, LookupError, TypeError, AttributeError, StopIteration, RecursionError):
        return None
    known = registry.has_config(name, config)
    found = read_pushed(registry.survey(name, config) if known else _plain(columns), root, config)
    if found is not None:
        _place(found[2], {each["path"]: each["healpix"] for each in values["files"]})
    return found


def _place(manifest: Manifest, cells: Mapping[str, list[int]]) -> None:
    """Note which part of the sky each file covers, by its cells."""
    most = 12 * manifest.nside**2
    for number, entry in enumerate(manifest.files):
        own = [cell for cell in cells[entry.path] if 0 <= cell < most]
        if len(own) == len(cells[entry.path]):
            ra, dec = joint_box(cell_boxes(own, manifest.nside))
            manifest.files[number] = replace(entry, ra=ra, dec=dec)


def _declared(manifest: Manifest) -> Survey:
    """The declaration of what a manifest lists; of a survey that is not known here, its columns as they are."""
    if registry.has_config(manifest.survey, manifest.config):
        return registry.survey(manifest.survey, manifest.config).as_built(manifest.columns, manifest.build)
    return _plain(manifest)


def _plain(manifest: Manifest) -> Survey:
    return undescribed(manifest.survey, manifest.columns, plain_features(manifest.columns, {}, ()), key=manifest.key)


def position_in(found: Found) -> tuple[str, str]:
    """The columns of right ascension and declination, degrees."""
    ra, dec = found[2].build.get("position", ("ra", "dec"))
    return str(ra), str(dec)
