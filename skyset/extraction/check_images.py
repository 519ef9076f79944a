"""The files of check images, written extension by extension."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from astropy.io import fits

from skyset.errors import UserError
from skyset.extraction.image_headers import without_storage
from skyset.extraction.ldac import replacing

if TYPE_CHECKING:
    from skyset.extraction.mosaic import Extension


class CheckImages:
    """The check images of all extensions, each a file: the image alone, or one extension after the other."""

    def __init__(self, wanted: dict[str, Path], several: bool) -> None:
        self.wanted, self.several, self.stack = wanted, several, contextlib.ExitStack()

    def __enter__(self) -> CheckImages:
        self.stack.__enter__()
        try:
            self.files = {kind: self.stack.enter_context(replacing(path)) for kind, path in self.wanted.items()}
        except BaseException:
            self.stack.close()
            raise
        for file in self.files.values() if self.several else ():
            fits.PrimaryHDU().writeto(file)
        return self

    def __exit__(self, *error) -> bool | None:
        return self.stack.__exit__(*error)

    def write(self, extension: Extension) -> None:
        for kind, file in self.files.items():
            pixels = np.asarray(extension.measured.check[kind])
            data = np.ascontiguousarray(pixels, ">i4" if kind == "SEGMENTATION" else ">f4")
            header = fits.Header() if kind.startswith("MINI") else without_storage(extension.header)
            hdu = (fits.ImageHDU if self.several else fits.PrimaryHDU)(data, header)
            try:
                file.write(hdu.header.tostring().encode("ascii") + data.tobytes() + b"\0" * (-data.nbytes % 2880))
            except OSError as error:
                raise UserError(f"cannot write {self.wanted[kind]}: {error.strerror or error}") from error
