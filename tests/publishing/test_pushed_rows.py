"""What was pushed, as people without skyset load it: the same rows, dtypes and shapes."""

import hashlib
import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

import skyset
from skyset.publishing import plan, push
from skyset.publishing.contents import Form
from skyset.publishing.request import Request
from skyset.testing.hub import HubServer
from tests.hub import TOKEN, environment, talking_to

pytestmark = pytest.mark.datasets3

#: Prints the rows of two repositories; nothing of skyset can be imported.
READ = """
import hashlib, json, sys
sys.modules["skyset"] = None
import numpy as np
from datasets import load_dataset

def plain(value):
    if hasattr(value, "convert"):
        value = np.asarray(value)
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, np.ndarray)) and len(value) and isinstance(value[0], str):
        return list(value)
    if isinstance(value, (list, np.ndarray)):
        array = np.asarray(value)
        return [list(array.shape), hashlib.sha256(np.ascontiguousarray(array, "<f8").tobytes()).hexdigest()]
    return value

for name, config in (("sky/gz3d", None), ("sky/rings", "rings_basic")):
    for streaming in (True, False):
        rows = load_dataset(name, config, split="train", streaming=streaming)
        told = {column: str(feature) for column, feature in rows.features.items()}
        few = (rows.take(3) if streaming else rows.select(range(3))).with_format("numpy")
        print(json.dumps([told, [plain(row) for row in few]]))
"""


#: The numpy format of datasets 3 itself narrows numbers of 64 bits, that of its tables.
IS_OLD = version("datasets").startswith("3.")


def plain(value):
    """A value as the process without skyset prints it."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | np.ndarray) and not (len(value) and isinstance(value[0], str)):
        array = np.asarray(value)
        digest = hashlib.sha256(np.ascontiguousarray(array, "<f8").tobytes()).hexdigest()
        return [list(array.shape), digest]
    return list(value) if isinstance(value, list | np.ndarray) else value


def narrowed(row):
    return {name: float(np.float32(each)) if isinstance(each, float) and IS_OLD else each for name, each in row.items()}


def test_rows_without_skyset_are_the_same(built, rings, tmp_path):
    with HubServer(tmp_path / "hub") as hub:
        hub.add_user("alice", TOKEN, organisations=("sky",))
        form = Form(shard_bytes=8 << 20)
        with talking_to(hub):
            for survey, folder, name in (("gz3d", built, "sky/gz3d"), ("gz_decals", rings, "sky/rings")):
                push.push(plan.planned(Request(survey, folder, name, work_dir=tmp_path / survey, form=form)))
        run = [sys.executable, "-c", READ]
        done = subprocess.run(run, env=environment(hub, tmp_path), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    assert len(lines) == 4
    for (told, rows), (name, config, folder) in zip(
        lines, [("gz3d", None, built)] * 2 + [("gz_decals", "rings_basic", rings)] * 2, strict=True
    ):
        ours = skyset.load(name, config, data_dir=str(folder))
        expected = {column: str(feature) for column, feature in ours.features.items()}
        assert {column: told[column] for column in expected} == expected
        by_id = {row["object_id"]: row for row in ours}
        assert len(rows) == 3
        for row in rows:
            assert narrowed({column: row[column] for column in expected}) == narrowed(plain(by_id[row["object_id"]]))
