"""Files whose data lie elsewhere: links, external storage, virtual datasets, names that lead somewhere."""

from __future__ import annotations

from pathlib import Path

import h5py

from tests.hostile.good import IMAGE
from tests.hostile.structured import STRUCTURED, beside_image, dataset, instead_of_image, link, structured, virtual


def declare_links() -> None:
    """Data that lie elsewhere. ``outside.*`` stand beside the partition."""
    targets = {"absolute": "/elsewhere", "relative": "elsewhere", "itself": "/image", "dots": "./../image", "nothing": "/no"}
    for name, target in targets.items():
        instead_of_image(
            f"soft:{name}",
            "refused",
            lambda file, target=target: (
                file.__setitem__("elsewhere", IMAGE),
                file.__setitem__("image", h5py.SoftLink(target)),
            ),
        )
    for name, (target, inside) in {
        "relative": ("outside.hdf5", "/image"),
        "itself": ("case.hdf5", "/image"),
        "missing": ("nothing.hdf5", "/image"),
        "device": ("/dev/zero", "/"),
        "dots": ("../../../../etc/passwd", "/x"),
        "unicode": ("é☃.hdf5", "/image"),
        "url": ("http://127.0.0.1:1/x.hdf5", "/image"),
        "long": ("x" * 30000, "/image"),
    }.items():
        instead_of_image(f"external:{name}", "refused", link(h5py.ExternalLink(target, inside)))
        beside_image(f"external beside:{name}", lambda f, t=target, i=inside: f.__setitem__("more", h5py.ExternalLink(t, i)))
    for name in ("outside.bin", "case.hdf5", "nothing.bin", "/dev/zero"):
        options = {"shape": IMAGE.shape, "dtype": "u1", "external": [(name, 0, IMAGE.nbytes)]}
        instead_of_image(f"storage:{name}", "refused", dataset(**options))
    for name in ("outside.hdf5", ".", "nothing.hdf5"):
        instead_of_image(f"virtual:{name}", "refused", lambda file, name=name: virtual(file, name))


@structured("external:absolute", "refused")
def absolute_link(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        del file["image"]
        file["image"] = h5py.ExternalLink(path.with_name("outside.hdf5"), "/image")


#: Columns whose names lead somewhere: a manifest may name them.
NAMES = ("more/image", "/more/image", "a\0b", ".", "", "../image", "more/../image", "\ud800", "soft/image")


def odd_name(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["more"] = h5py.ExternalLink("outside.hdf5", "/")
        file["soft"] = h5py.SoftLink("/more")


for _name in NAMES:
    STRUCTURED[f"column:{_name!a}"] = "refused", odd_name


declare_links()
