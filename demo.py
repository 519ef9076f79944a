"""`make demo`: a small Galaxy Zoo: 3D, from FITS files over HTTP to a picture, in the steps that a user takes.

The archive is simulated: galaxies drawn in the layout of the real files, served on this machine. Leave out
``base_url`` and the same calls read the real one.

The partitions go to ``data/gz3d-demo``: `skyset show gz3d` finds them there, unless a real GZ3D is in ``data/gz3d``.
"""

import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path

import skyset
from skyset.build_scripts.gz3d.build_parent_sample import main as build
from skyset.cli import save_figure
from skyset.explore.objects import object_figure
from skyset.loading.places import find_root
from skyset.partitions.verify import verify
from skyset.testing.gz3d import write_archive
from skyset.testing.server import ArchiveServer

GALAXIES = 24
OUTPUT = Path("data/gz3d-demo")
OBJECT = "1-106630"
PICTURE = OUTPUT.with_name(f"gz3d-demo-{OBJECT}.png")


def main() -> int:
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        print(f"1. Drawing {GALAXIES} galaxies into FITS files, and serving them over HTTP")
        write_archive(Path(folder), GALAXIES, clustered=True)
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
        print(
            f"   {row['object_id']:>9}  image {image.shape} {image.dtype}  "
            f"spiral {votes['spiral']:5.2f}  bar {votes['bar']:5.2f}"
        )

    print("4. Drawing one with its masks")
    figure = object_figure(skyset.loading.registry.survey("gz3d"), str(OUTPUT), OBJECT)
    figure.suptitle(f"{figure.get_suptitle()} (simulated)")
    save_figure(figure, PICTURE)

    print("5. skyset verify")
    differences = list(verify(OUTPUT))
    print("\n".join(differences) or "OK: every checksum and position as in the manifest")
    print(f"Done in {time.monotonic() - start:.0f} s. The picture: {PICTURE.absolute()}")
    print("\nTry next:")
    print("\n".join(f"   {command}" for command in next_commands()))
    return 1 if differences else 0


def next_commands() -> list[str]:
    """What to type next, in the folder that the demo was started in."""
    skyset_command = "skyset" if shutil.which("skyset") else _typed(Path(sys.executable).with_name("skyset"))
    found = find_root("gz3d") == str(OUTPUT.absolute())  # not where a real one is found first
    place, options = ("", "") if found else (f", data_dir='{OUTPUT}'", f" --data_dir {OUTPUT}")
    rows = f"rows = skyset.load('gz3d'{place}); print(next(iter(rows))['image'].shape)"
    return [
        f"{skyset_command} show gz3d{options} --object 1-122468 -o galaxy.png",
        f"{skyset_command} info {OUTPUT}",
        f"{skyset_command} report {OUTPUT} -o report.html",
        f"{skyset_command} verify {OUTPUT}",
        f'{_typed(Path(sys.executable))} -c "import skyset; {rows}"',
    ]


def _typed(program: Path) -> str:
    """A program as one types it here."""
    below = program.is_relative_to(Path.cwd())
    return shlex.quote(os.path.relpath(program) if below else str(program))


if __name__ == "__main__":
    sys.exit(main())
