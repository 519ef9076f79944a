"""``push_to_hub`` of `datasets`, of one of our tables and of a stream, to the loopback Hub: dtypes and shapes are kept."""

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import HfFileSystem

import skyset
from skyset.testing.hub import HubServer
from tests.hub import TOKEN, talking_to

pytestmark = pytest.mark.usefixtures("cache_of_its_own")


@pytest.mark.parametrize("streaming", [False, True])
def test_dtypes_are_kept(built_sdss, tmp_path, monkeypatch, streaming):
    with HubServer(tmp_path / "hub") as hub, talking_to(hub):
        hub.add_user("alice", TOKEN)
        monkeypatch.setattr("datasets.config.HF_ENDPOINT", hub.host)
        monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
        HfFileSystem.clear_instance_cache()
        rows = skyset.load("sdss_galaxy_zoo", data_dir=str(built_sdss), streaming=streaming, format=None)
        rows.push_to_hub("alice/sdss")
        ours = {row["object_id"]: row for row in skyset.load("sdss_galaxy_zoo", data_dir=str(built_sdss))}
        theirs = load_dataset("alice/sdss", split="train", cache_dir=str(tmp_path / "cache"))
        assert theirs.features == rows.features and len(theirs) == len(ours)
        stored = theirs.with_format("arrow")[:5]
        for name in ("image", "ra", "label"):
            assert str(stored.schema.field(name).type) == str(rows.features.arrow_schema.field(name).type)
        for row in theirs.select(range(5)):
            assert np.array_equal(np.array(row["image"], np.uint8), ours[row["object_id"]]["image"])
            assert row["ra"] == ours[row["object_id"]]["ra"]
    HfFileSystem.clear_instance_cache()
