"""Images found in folders: what is walked into, and what is not."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from skyset.building.imagefiles import files_below, images_below


def test_links_to_folders_are_followed_once(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "images"
    (elsewhere / "deep").mkdir(parents=True)
    folder.mkdir()
    for place in (folder / "a.png", elsewhere / "b.png", elsewhere / "deep" / "c.png", elsewhere / ".hidden.png"):
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(place)
    os.symlink(elsewhere, folder / "link")
    os.symlink(elsewhere, folder / "link_again")
    os.symlink(folder, elsewhere / "deep" / "back")  # a circle
    assert [path.name for path in files_below(folder)] == ["a.png", "b.png", "c.png"]
    assert sorted(images_below(folder).places) == ["a", "b", "c"]
    os.symlink(folder, tmp_path / "whole")
    assert [Path(path).name for path in files_below(tmp_path / "whole")] == ["a.png", "b.png", "c.png"]
