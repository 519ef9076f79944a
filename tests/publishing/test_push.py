"""``skyset push`` against the loopback Hub: rows come back without skyset, nothing is sent twice, nothing is seen half."""

import hashlib
import io
import json
import resource
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner

from skyset.cli import app
from skyset.errors import UserError
from skyset.partitions.manifest import Manifest
from skyset.publishing import client, plan, push
from skyset.publishing.contents import Form
from skyset.publishing.journal import Journal
from skyset.publishing.metadata import split_card
from skyset.publishing.request import Request
from skyset.testing.hub import HubServer
from skyset.testing.hub.repositories import git_blob
from tests.hub import TOKEN, talking_to
from tests.processes import forked, killed_once, status_of

NAME = "sky/rings"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(client, "BACKOFF", 0.01)
    with HubServer(tmp_path / "hub") as server:
        server.add_user("alice", TOKEN, organisations=("sky",))
        with talking_to(server):
            yield server


@pytest.fixture
def folder(rings, tmp_path) -> Path:
    """A copy of the rings, to be changed."""
    return Path(shutil.copytree(rings, tmp_path / "rings"))


def request(folder: Path, work: Path, **options) -> Request:
    """A push whose Parquet files are small: a config has several."""
    return Request("gz_decals", folder, NAME, work_dir=work, form=Form(shard_bytes=1 << 16), **options)


def pushed(folder: Path, work: Path, **options) -> str:
    return push.push(plan.planned(request(folder, work, **options)))


def data_files(hub: HubServer, revision: str = "main") -> dict[str, bytes]:
    return {path: content for path, content in hub.files(NAME, revision).items() if path.startswith("data/")}


def test_a_second_push_sends_nothing(hub, folder, tmp_path, capsys):
    pushed(folder, tmp_path / "work")
    first, sent, head = data_files(hub), list(hub.objects.sent), hub.dataset(NAME).refs["refs/heads/main"]
    assert len(first) > 6 and len(hub.commits) == 1
    assert {"README.md", "CITATION.cff", "croissant.json", "manifest.json"} < set(hub.files(NAME))
    pushed(folder, tmp_path / "another")
    assert hub.objects.sent == sent and hub.dataset(NAME).refs["refs/heads/main"] == head
    assert "is up to date" in capsys.readouterr().out


def test_a_killed_push_goes_on_and_sends_nothing_twice(hub, folder, tmp_path):
    assert killed_once(lambda: len(hub.objects.sent) > 3, lambda: pushed(folder, tmp_path / "work"))
    assert data_files(hub) == {}
    before = len(hub.objects.sent)
    pushed(folder, tmp_path / "work")
    assert len(hub.objects.sent) > before > 3
    assert len(set(hub.objects.sent)) == len(hub.objects.sent)
    assert len(data_files(hub)) == len(plan.planned(request(folder, tmp_path)).items)
    assert list((tmp_path / "work" / "files").iterdir()) == []


@pytest.fixture
def few(monkeypatch):
    """A commit takes four files: the rings are a long push."""
    monkeypatch.setattr(client.Hub, "most_files", 4)


def test_many_files_are_seen_at_once(hub, few, folder, tmp_path):
    hub.fault("POST */merge", "500")
    with pytest.raises(UserError, match="the same command goes on"):
        pushed(folder, tmp_path / "work")
    assert data_files(hub) == {} and set(hub.dataset(NAME).pulls) == {1}
    assert all(operations <= 5 for _, operations in hub.commits)
    sent = list(hub.objects.sent)
    hub.clear()
    pushed(folder, tmp_path / "work")
    assert hub.objects.sent == sent and hub.dataset(NAME).pulls[1].status == "merged"
    assert len(data_files(hub)) == len(plan.planned(request(folder, tmp_path)).items)
    pushed(folder, tmp_path / "work")
    assert set(hub.dataset(NAME).pulls) == {1}


def test_a_long_push_that_was_killed_goes_on(hub, few, folder, tmp_path):
    assert killed_once(lambda: len(hub.commits) > 1, lambda: pushed(folder, tmp_path / "work"))
    assert data_files(hub) == {}
    pushed(folder, tmp_path / "work")
    assert len(set(hub.objects.sent)) == len(hub.objects.sent) and set(hub.dataset(NAME).pulls) == {1}
    assert len(data_files(hub)) == len(plan.planned(request(folder, tmp_path)).items)


def test_a_long_push_that_clashes_begins_a_new_pull_request(hub, few, folder, tmp_path, monkeypatch):
    merge = client.Hub.merge

    def late(self, number):
        if number == 1:  # another push has come to its end meanwhile
            tree = {**hub.dataset(NAME).commit("main").tree, "CITATION.cff": git_blob(b"theirs")}
            hub.dataset(NAME).add("refs/heads/main", tree, "another", "bob")
        return merge(self, number)

    monkeypatch.setattr(client.Hub, "merge", late)
    pushed(folder, tmp_path / "work", overwrite=True)
    assert [pull.status for pull in hub.dataset(NAME).pulls.values()] == ["closed", "merged"]
    assert len(set(hub.objects.sent)) == len(hub.objects.sent) and data_files(hub)


@pytest.mark.parametrize("kind", ["conflict", "lost", "500", "429"])
def test_a_commit_that_meets_a_fault(hub, folder, tmp_path, kind):
    hub.fault("POST */commit/*", kind, times=1, **({"retry_after": 1} if kind == "429" else {}))
    pushed(folder, tmp_path / "work")
    assert len(data_files(hub)) == len(plan.planned(request(folder, tmp_path)).items)
    assert sum(commit.title.startswith("gz_decals") for commit in hub.dataset(NAME).commits.values()) == 1
    assert sum(path.startswith("other/") for path in hub.files(NAME)) == (kind == "conflict")


def without(folder: Path, cell: int) -> None:
    """Take the partitions of a cell out of a folder."""
    manifest = Manifest.load(folder)
    for entry in [entry for entry in manifest.files if entry.healpix == cell]:
        (folder / entry.path).unlink()
        manifest.files.remove(entry)
    manifest.save(folder)


def test_what_has_changed_is_sent(hub, folder, tmp_path):
    pushed(folder, tmp_path / "work")
    before, sent = data_files(hub), len(hub.objects.sent)
    without(folder, Manifest.load(folder).files[3].healpix)
    pushed(folder, tmp_path / "work")
    after = data_files(hub)
    changed = [path for path in before if before[path] != after.get(path)]
    assert 0 < len(changed) <= 4 and len(hub.objects.sent) - sent <= 4 < len(before) / 3
    manifest = json.loads(hub.files(NAME)["manifest.json"])
    assert {each["path"] for each in manifest["files"]} == set(after)


def test_files_of_others_stay(hub, folder, tmp_path):
    HfApi().create_repo(NAME, repo_type="dataset")
    theirs = {"notes.txt": b"mine", "data/other.csv": b"a,b"}
    for path, content in theirs.items():
        HfApi().upload_file(path_or_fileobj=content, path_in_repo=path, repo_id=NAME, repo_type="dataset")
    pushed(folder, tmp_path / "work")
    pushed(folder, tmp_path / "work", format="hdf5")
    assert theirs.items() < hub.files(NAME).items()
    assert data_files(hub).keys() == {"data/other.csv"}  # the Parquet files were ours


@pytest.mark.parametrize("path", ["README.md", "manifest.json", "CITATION.cff"])
def test_files_of_others_are_not_replaced(hub, folder, tmp_path, path):
    HfApi().create_repo(NAME, repo_type="dataset")
    HfApi().upload_file(path_or_fileobj=b"theirs", path_in_repo=path, repo_id=NAME, repo_type="dataset")
    with pytest.raises(UserError, match=f"{path}.* --overwrite"):
        pushed(folder, tmp_path / "work")
    assert hub.files(NAME)[path] == b"theirs" and data_files(hub) == {}
    pushed(folder, tmp_path / "work", overwrite=True)
    assert hub.files(NAME)[path] != b"theirs" and data_files(hub)


def test_a_card_that_people_changed_on_the_hub_stays_theirs(hub, folder, tmp_path):
    pushed(folder, tmp_path / "work")
    text = hub.files(NAME)["README.md"].decode() + "\nWith thanks to all.\n"
    text = text.replace("license: cc-by-4.0", "license: mit")
    HfApi().upload_file(path_or_fileobj=text.encode(), path_in_repo="README.md", repo_id=NAME, repo_type="dataset")
    for _ in range(2):
        without(folder, Manifest.load(folder).files[0].healpix)
        pushed(folder, tmp_path / "work")
        kept = hub.files(NAME)["README.md"].decode()
        assert "With thanks to all." in kept and "license: mit" in kept


def test_a_damaged_partition_is_named(hub, folder, tmp_path):
    path = folder / Manifest.load(folder).files[2].path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for form in ("parquet", "hdf5"):
        with pytest.raises(UserError, match=f"{path.parent.name}.*skyset verify"):
            pushed(folder, tmp_path / "work", format=form)
    assert set(hub.files(NAME)) == {".gitattributes"}


def test_a_branch_of_its_own(hub, few, folder, tmp_path):
    pushed(folder, tmp_path / "work", revision="new")
    assert data_files(hub, "new") and data_files(hub) == {} and hub.dataset(NAME).pulls == {}


@pytest.mark.parametrize("revision", ["main", "new"])
def test_a_killed_long_push_goes_on_also_where_the_build_has_changed(hub, few, folder, tmp_path, revision):
    """Files are there that no list of files names yet, in the pull request or the branch; some are the old build's."""
    assert killed_once(lambda: len(hub.commits) > 1, lambda: pushed(folder, tmp_path / "work", revision=revision))
    there = data_files(hub, revision if revision == "new" else "refs/pr/1")
    assert len(there) >= 4 and "manifest.json" not in hub.files(NAME, revision)
    first = min(entry.healpix for entry in Manifest.load(folder).files)
    without(folder, first)  # which names a file
    pushed(folder, tmp_path / "work", revision=revision)
    items = plan.planned(request(folder, tmp_path)).items
    assert data_files(hub, revision).keys() == {item.path for item in items} and there.keys() - data_files(hub, revision)
    assert len(set(hub.objects.sent)) == len(hub.objects.sent)


@pytest.mark.parametrize("path", ["README.md", "croissant.json", "CITATION.cff", "figures/sky.png"])
def test_files_of_others_are_seen_before_anything_is_sent(hub, folder, tmp_path, path):
    (folder / "figures").mkdir()
    (folder / "figures" / "sky.png").write_bytes(b"ours\0")
    HfApi().create_repo(NAME, repo_type="dataset")
    HfApi().upload_file(path_or_fileobj=b"theirs", path_in_repo=path, repo_id=NAME, repo_type="dataset")
    sent = len(hub.objects.sent)
    with pytest.raises(UserError, match=rf"{path}.*choose another --repo, or --overwrite"):
        pushed(folder, tmp_path / "work")
    assert len(hub.objects.sent) == sent and hub.files(NAME)[path] == b"theirs"


def test_settings(hub, folder, tmp_path):
    pushed(folder, tmp_path / "work", private=True, gated="manual")
    assert hub.dataset(NAME).private and hub.dataset(NAME).gated == "manual"


def test_raw_files_are_a_config(hub, folder, tmp_path):
    (folder / "raw" / "night").mkdir(parents=True)
    (folder / "raw" / "night" / "1.fits").write_bytes(b"SIMPLE\0")
    (folder / "raw" / "night" / ".part").write_bytes(b"x")
    (folder / "raw" / "list.txt").write_text("1.fits")
    pushed(folder, tmp_path / "work", raw=True)
    assert {path for path in hub.files(NAME) if path.startswith("raw/")} == {"raw/night/1.fits", "raw/list.txt"}
    table = pq.read_table(io.BytesIO(hub.files(NAME)["raw.parquet"])).to_pylist()
    assert table[1] == {"path": "raw/night/1.fits", "bytes": 7, "sha256": hashlib.sha256(b"SIMPLE\0").hexdigest()}
    configs = split_card(hub.files(NAME)["README.md"].decode())[0]["configs"]
    assert [each["config_name"] for each in configs] == ["default", "rings_basic", "raw"]
    sent = len(hub.objects.sent)
    pushed(folder, tmp_path / "work", raw=True)
    assert len(hub.objects.sent) == sent


def test_a_hats_catalogue_goes_as_it_is(hub, tmp_path):
    """Its own card is kept, and a FITS file, whose header is text, is sent as the binary file that it is."""
    catalogue = tmp_path / "rings_hats"
    (catalogue / "dataset" / "Norder=0").mkdir(parents=True)
    files = {"hats.properties": b"obs_collection=rings\n", "dataset/Norder=0/Npix=1.parquet": b"PAR1\0PAR1"}
    files |= {"skymap.fits": b"SIMPLE  =" + b" " * 3000 + b"\0\1", "partition_info.csv": b"Norder,Npix\n0,1\n"}
    for path, content in files.items():
        (catalogue / path).write_bytes(content)
    (catalogue / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# Rings as HATS\n")
    pushed(catalogue, tmp_path / "work", format="hats")
    there = hub.files(NAME)
    assert files.items() < there.items() and b"# Rings as HATS" in there["README.md"]
    listed = json.loads(there["published.json"])
    assert {each["path"] for each in listed["files"]} == {"dataset/Norder=0/Npix=1.parquet", "skymap.fits"}
    assert {"hats.properties", "README.md"} < set(listed["beside"])
    head = hub.dataset(NAME).refs["refs/heads/main"]
    pushed(catalogue, tmp_path / "work", format="hats")
    assert hub.dataset(NAME).refs["refs/heads/main"] == head


def test_croissant_and_the_list_describe_the_same(hub, rings, tmp_path):
    pushed(rings, tmp_path / "work")
    values = json.loads(hub.files(NAME)["croissant.json"])
    sets = {each["name"] for each in values["recordSet"]}
    assert {"default-train", "rings_basic-train"} <= sets
    fields = {each["name"]: each for each in values["recordSet"][0]["field"]}
    assert fields["default-train/image"]["dataType"] == "sc:ImageObject"
    assert "[deg]" in fields["default-train/ra"]["description"]
    mlcroissant = pytest.importorskip("mlcroissant", reason="the checker of MLCommons is not here")
    file = tmp_path / "croissant.json"
    file.write_bytes(hub.files(NAME)["croissant.json"])
    mlcroissant.Dataset(jsonld=str(file))


def test_a_full_disk_is_told(hub, folder, tmp_path):
    def fill() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        with pytest.raises(UserError, match="cannot write"):
            pushed(folder, tmp_path / "work")

    assert status_of(forked(fill)) == 0
    assert set(hub.files(NAME)) == {".gitattributes"}
    pushed(folder, tmp_path / "work")
    assert data_files(hub)


@pytest.mark.parametrize(
    ("options", "token", "why"),
    [
        ({}, "", "hf auth login"),
        ({}, "hf_unknown0123456", "does not take this login"),
        ({"repository": "other/rings"}, TOKEN, "may not write to other/rings"),
        ({"repository": "rings"}, TOKEN, "ORG/NAME"),
        ({"repository": "sky/ri ngs"}, TOKEN, "--repo"),
        ({"format": "zarr"}, TOKEN, "parquet, hdf5, hats"),
        ({"format": "hats"}, TOKEN, "skyset hats"),
        ({"survey": "gz3d"}, TOKEN, "holds gz_decals, not gz3d"),
        ({"raw": True}, TOKEN, "no folder"),
    ],
)
def test_what_cannot_be_pushed(hub, rings, tmp_path, monkeypatch, options, token, why):
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    asked = replace(request(rings, tmp_path / "work"), **options)
    with pytest.raises(UserError, match=why) as error:
        push.push(plan.planned(asked))
    assert not token or token not in str(error.value)
    assert hub.repositories == {}


def test_no_network(rings, tmp_path, monkeypatch):
    monkeypatch.setattr(client, "BACKOFF", 0.0)
    with HubServer(tmp_path / "hub") as gone:
        gone.add_user("alice", TOKEN)
    with talking_to(gone), pytest.raises(UserError, match="cannot be reached"):
        pushed(rings, tmp_path / "work")


def test_one_push_at_a_time(hub, rings, tmp_path):
    with Journal(tmp_path / "work"), pytest.raises(UserError, match="another push"):
        pushed(rings, tmp_path / "work")


def test_dry_run_asks_nothing(rings, tmp_path):
    result = CliRunner().invoke(app, ["push", "gz_decals", "--data_dir", str(rings), "--repo", NAME, "--dry_run"])
    assert result.exit_code == 0, result.output
    assert "data/rings_basic/train/healpix-" in result.output and "one commit: datasets/sky/rings" in result.output


def test_the_token_is_nowhere(hub, folder, tmp_path, capsys):
    hub.fault("POST */commit/*", "500", times=1)
    pushed(folder, tmp_path / "work")
    said = "".join(capsys.readouterr())
    files = b"".join(path.read_bytes() for path in (tmp_path / "work").rglob("*") if path.is_file())
    assert TOKEN not in said and TOKEN.encode() not in files + b"".join(hub.files(NAME).values())


def test_commits_keep_to_an_hour(tmp_path):
    with Journal(tmp_path) as journal:
        for _ in range(3):
            journal.committed()
        assert journal.pause(4) == 0 and 3590 < journal.pause(3) <= 3600
        journal.done()
    with Journal(tmp_path) as journal:
        assert journal.pause(3) > 3590
