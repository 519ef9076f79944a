"""`make demo`: a small Galaxy Zoo: 3D, from FITS files over HTTP to a picture, in the steps that a user takes.

The archive is simulated: galaxies drawn in the layout of the real files, served on this machine. Leave out
``base_url`` and the same calls read the real one.
"""

import sys
import tempfile
import time
from pathlib import Path

import skyset
from skyset.build_scripts.gz3d.build_parent_sample import main as build
from skyset.cli import save_figure
from skyset.manifest import verify
from skyset.report import object_figure
from tests.archive.gz3d import write_archive
from tests.archive.server import ArchiveServer

OUTPUT = Path("data/gz3d-demo")
PICTURE = OUTPUT / "1-106630.png"


def main() -> int:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        print("1. Drawing 24 galaxies into FITS files, and serving them over HTTP")
        write_archive(Path(folder), 24, clustered=True)
        with ArchiveServer(Path(folder)) as server:
            print(f"2. Building partitions from {server.url}")
            status = build(["--base_url", server.url, "--output_dir", str(OUTPUT), "--overwrite"])
    if status:
        return status

    print("3. Streaming them")
    rows = skyset.load("gz3d", data_dir=str(OUTPUT))
    for row in rows.take(3):
        votes = dict(zip(row["segmentation"]["class"], row["segmentation"]["vote_fraction"], strict=True))
        image = row["image"]
        print(f"   {row['object_id']:>9}  image {image.shape} {image.dtype}  "
              f"spiral {votes['spiral']:5.2f}  bar {votes['bar']:5.2f}")  # fmt: skip

    print("4. Drawing one with its masks")
    save_figure(object_figure(skyset.registry.survey("gz3d"), str(OUTPUT), "1-106630"), PICTURE)

    print("5. skyset verify")
    differences = list(verify(OUTPUT))
    print("\n".join(differences) or "OK: every checksum and position as in the manifest")
    print(f"Done in {time.monotonic() - start:.0f} s. The picture: {PICTURE.absolute()}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
