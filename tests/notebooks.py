"""Run a notebook on a small survey; store the notebooks with what they show of simulated data.

::

    python -m tests.notebooks                 # all of them
    python -m tests.notebooks demo_gz3d       # one
"""

import asyncio
import base64
import io
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path

import nbclient
import nbformat
from PIL import Image

from tests.processes import begin_anew

FOLDER = Path(__file__).parents[1] / "notebooks"
#: Of a stored picture, in pixels.
WIDTH = 640
STAMP = "*The outputs stored here are of simulated data.*"
#: Of a stored notebook, in bytes.
LARGEST = 400_000
#: To build a small survey, workers are not worth their start.
ALONE = ("--num_processes", "1")


def run(name: str, folder: Path, forked: bool = False) -> nbformat.NotebookNode:
    """A notebook whose cells have all run in ``folder``; ``forked``, its kernel has the modules that are imported here."""
    notebook = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    client = nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(folder)}})
    client.execute(**({"preexec_fn": lambda: be_kernel(client.km.connection_file)} if forked else {}))
    return notebook


def be_kernel(connection_file: str) -> None:
    """Be the kernel in the process that was forked to start it: a third of a notebook's time goes into its imports."""
    try:
        begin_anew()
        import matplotlib.pyplot as plt
        from ipykernel.kernelapp import IPKernelApp

        plt.close("all")
        asyncio.set_event_loop(asyncio.new_event_loop())
        os.environ["JPY_PARENT_PID"] = str(os.getppid())  # with which it ends
        kernel = IPKernelApp.instance()
        kernel.initialize(["-f", connection_file])
        kernel.shell.enable_matplotlib("inline")
        kernel.start()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def store(name: str, folder: Path) -> None:
    """Run it, and keep what it shows: pictures reduced, no warnings, no dates."""
    notebook = run(name, folder)
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.metadata.pop("execution", None)
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                data["image/jpeg"] = smaller(data.pop("image/png"))
    nbformat.write(notebook, FOLDER / f"{name}.ipynb")


def smaller(encoded: str) -> str:
    """A PNG in base64 as a JPEG, at most ``WIDTH`` wide."""
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        image = image.convert("RGB")
    if image.width > WIDTH:
        image = image.resize((WIDTH, round(image.height * WIDTH / image.width)), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=82, optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def text_of(notebook: nbformat.NotebookNode) -> str:
    """All that a notebook printed or returned as text."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(str(o.get("text", "")) + str(o.get("data", {}).get("text/plain", "")) for o in outputs)


def paths_in(text: str) -> list[str]:
    """Places of the machine that ran it, which nobody needs to know."""
    return re.findall(r"/(?:tmp|root|home|work)/\S*", text)


def build_gz3d(folder: Path, galaxies: int = 24) -> None:
    from skyset.build_scripts.gz3d.build_parent_sample import main
    from skyset.testing.gz3d import write_archive

    (folder / "raw").mkdir()
    write_archive(folder / "raw", galaxies, clustered=True)
    assert main([*ALONE, "--local_data_path", str(folder / "raw"), "-o", str(folder / "gz3d")]) == 0


def build_sdss(folder: Path) -> None:
    from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import main
    from skyset.testing.sdss import SDSSServer, draw_galaxies

    with SDSSServer(draw_galaxies(600)) as server:
        where = ["--tap_url", server.tap_url, "--hips_url", server.hips_url, "-o", str(folder / "sdss_galaxy_zoo")]
        assert main([*ALONE, *where, "--slices", "8"]) == 0


def build_decals(folder: Path) -> None:
    from skyset.build_scripts.gz_decals.build_parent_sample import main
    from skyset.testing.rings import write_rings

    write_rings(folder / "raw", 200)
    assert main([*ALONE, "--local_data_path", str(folder / "raw"), "-o", str(folder / "gz_decals")]) == 0


def build_matched(folder: Path, galaxies: int = 24) -> None:
    """Galaxy Zoo: 3D, and two surveys that have most of its galaxies: within a fraction of an arcsecond."""
    import numpy as np

    from skyset.build_scripts.gz_decals.build_parent_sample import main as build_gz_decals
    from skyset.build_scripts.sdss_galaxy_zoo.build_parent_sample import main as build_sdss_galaxy_zoo
    from skyset.testing.gz3d import draw_sample
    from skyset.testing.rings import write_rings
    from skyset.testing.sdss import SDSSServer, draw_galaxies

    build_gz3d(folder, galaxies)
    places = np.array([(galaxy.ra, galaxy.dec) for galaxy in draw_sample(galaxies, clustered=True)])
    near = places + np.random.default_rng(0).normal(0, 0.1 / 3600, places.shape)
    with SDSSServer(draw_galaxies(3 * galaxies, places=near[: galaxies * 3 // 4].tolist())) as server:
        where = ["--tap_url", server.tap_url, "--hips_url", server.hips_url, "-o", str(folder / "sdss_galaxy_zoo")]
        assert build_sdss_galaxy_zoo([*ALONE, *where, "--slices", "2"]) == 0
    write_rings(folder / "pictures", 2 * galaxies, places=near[galaxies // 8 :].tolist())
    words = ["--local_data_path", str(folder / "pictures"), "-o", str(folder / "gz_decals")]
    assert build_gz_decals([*ALONE, *words]) == 0


def build_galaxiesml(folder: Path, galaxies: int = 120) -> None:
    from skyset.build_scripts.galaxiesml.build_parent_sample import main
    from skyset.testing.galaxiesml.sky import GalSimSky
    from skyset.testing.hsc import HscArchive

    os.environ |= {"SSP_PDR_USR": "user", "SSP_PDR_PWD": "pass"}
    with HscArchive(GalSimSky(galaxies), ("user", "pass")) as archive:
        assert main(["--archive_url", archive.url, "-o", str(folder / "galaxiesml"), "--num_processes", "1"]) == 0


def build_megacam_iqa(folder: Path) -> None:
    from skyset.build_scripts.megacam_iqa.build_parent_sample import main

    assert main(["--tiny", "-o", str(folder / "megacam_iqa"), "--num_processes", "1"]) == 0


def build_photoz(folder: Path, galaxies: int = 4000) -> None:
    from skyset.build_scripts.galaxiesml.build_parent_sample import main
    from skyset.testing.galaxiesml.published import make_galaxiesml

    make_galaxiesml(folder / "published", galaxies, sizes=(64,), sersic=False)
    arguments = ["--local_data_path", str(folder / "published"), "-o", str(folder / "galaxiesml"), "--num_processes", "1"]
    assert main(arguments) == 0


NOTEBOOKS: dict[str, Callable[[Path], None]] = {
    "demo_gz3d": build_gz3d,
    "demo_sdss_galaxy_zoo": build_sdss,
    "demo_gz_decals": build_decals,
    "demo_galaxiesml": build_galaxiesml,
    "demo_megacam_iqa": build_megacam_iqa,
    "find_rings": build_decals,
    "crossmatch_and_publish": build_matched,
    "segment_gz3d": lambda folder: build_gz3d(folder, 60),
    "demo_extraction": lambda folder: None,
    "photoz": build_photoz,
}


def main(names: list[str]) -> int:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in names or NOTEBOOKS:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
            os.environ |= {"SKYSET_DATA": folder, "HF_DATASETS_CACHE": cache}
            NOTEBOOKS[name](Path(folder))
            (Path(folder) / "here").mkdir()
            store(name, Path(folder) / "here")
        print(f"{name}: {(FOLDER / f'{name}.ipynb').stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
