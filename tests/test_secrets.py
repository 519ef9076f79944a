"""Logins and tokens go to the host they are for, and nowhere else."""

import base64
import json
import traceback

import pytest
import requests

from skyset import secrets
from skyset.archives.fetch import Fetcher, FetchError
from skyset.archives.image_pool import ImagePool, ImageRequest
from skyset.http import HostLogin
from skyset.partitions.manifest import Manifest
from skyset.secrets import cookie_of, login_of, redacted, remember, remember_cookie, without_login
from skyset.testing.server import ArchiveServer
from tests.builds import build

PASSWORD = "S3cr3t p@ss/w:rd"
QUOTED = "S3cr3t%20p%40ss%2Fw%3Ard"
BASIC = f"Basic {base64.b64encode(f'alice:{PASSWORD}'.encode()).decode()}"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch):
    monkeypatch.setattr(secrets, "_logins", {})
    monkeypatch.setattr(secrets, "_cookies", {})
    monkeypatch.setattr(secrets, "_words", set())


@pytest.fixture
def server(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "a.txt").write_text("hello")
    with ArchiveServer(tmp_path / "archive") as running:
        running.login = f"alice:{PASSWORD}"
        yield running


def with_login(url, login=f"alice:{QUOTED}"):
    return url.replace("://", f"://{login}@")


# --- what is taken out of an address ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url, bare, login",
    [
        ("http://alice:pw@host/x?y#z", "http://host/x?y#z", ("alice", "pw")),
        ("https://alice@host:8443", "https://host:8443", ("alice", "")),
        (f"http://alice:{QUOTED}@[::1]:80/", "http://[::1]:80/", ("alice", PASSWORD)),
        ("http://a:b@c@host/", "http://host/", ("a", "b@c")),
        ("tcp://u:p@host:8786", "tcp://host:8786", ("u", "p")),
    ],
)
def test_an_address_loses_its_login(url, bare, login):
    assert without_login(url) == bare and login_of(bare) == login


@pytest.mark.parametrize("text", ["data/x", "http://host/a@b", "alice@host", "http://[broken@", "", "/a:b@c/d"])
def test_what_has_no_login_stays(text):
    assert without_login(text) == text and secrets._logins == {}


def test_a_login_is_for_its_scheme_host_and_port():
    without_login("http://a:b@Host/")
    assert login_of("http://host:80/x") == ("a", "b")
    assert login_of("https://host/x") == ("a", "b")  # the archive has moved to https
    assert login_of("http://host:81/x") is login_of("http://host.org/") is login_of("https://host:8443/") is None
    without_login("https://c:d@other/")
    assert login_of("http://other/") is None  # never in plain text what was given for https
    remember("https://other/", None)
    assert login_of("https://other/") is None


# --- what is hidden -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, hidden",
    [
        ("see http://bob:s3c@r@t@host/x?a=1.", "see http://***@host/x?a=1."),
        ("http://token@host/", "http://***@host/"),
        ("http:/bob:secret@host is not a folder", "http:/***@host is not a folder"),
        ("Invalid URL 'bob:secret@host/x': No scheme", "Invalid URL '***@host/x': No scheme"),
        ("https://e/?uri=http%3A%2F%2Fu%3Ap%2540%40h%2Fx&b=1", "https://e/?uri=http%3A%2F%2F***%40h%2Fx&b=1"),
        ("x?token=a&page=2&access_token=b#c", "x?token=***&page=2&access_token=***#c"),
        ("x?API-KEY=a&sig=b&key=c&monkey=d", "x?API-KEY=***&sig=***&key=***&monkey=d"),
        ("x?X-Amz-Credential=a%2Fb&X-Amz-Signature=c", "x?X-Amz-Credential=***&X-Amz-Signature=***"),
        ("x?password=a&amp;client_secret=b", "x?password=***&amp;client_secret=***"),
        ("/y?next=%2Fx%3Ftoken%3Dabc%26a%3D1", "/y?next=%2Fx%3Ftoken%3D***%26a%3D1"),
        ("{'Authorization': 'Basic YTpiYWJhYg=='}", "{'Authorization': '***'}"),
        ("Bearer abcdefgh.1jkl", "Bearer ***"),
        ("--token hf_aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3aB3d x", "--token hf_*** x"),
    ],
)
def test_secrets_are_hidden(text, hidden):
    assert redacted(text) == hidden


@pytest.mark.parametrize(
    "text",
    [
        "http://host/a@2x.png",
        "http://[::1]:80/x?hips=CDS/P/DSS2&ra=1",
        "12:30:11 me@host.org",
        "key=object_id",
        "a:b",
        "SHA-1 is 12ab, the list says 34cd",
        "C:\\data",
        "SELECT ra, dec FROM t WHERE key = 3",
        "a; b: c=d",
        "Basic configuration",
    ],
)
def test_other_texts_stay(text):
    assert redacted(text) == text


def test_a_password_that_is_known_is_hidden_wherever_it_stands():
    without_login(f"http://alice:{QUOTED}@host/")
    for form in (PASSWORD, QUOTED, QUOTED.replace("%20", "+"), BASIC.removeprefix("Basic ")):
        assert redacted(f"the server says <{form}>.") == "the server says <***>."
    without_login("http://anonymous:anonymous@host/")
    assert redacted("an anonymous server") == "an anonymous server"


def test_the_manifest_hides_them_written_and_read(built, tmp_path):
    manifest = Manifest.load(built)
    manifest.sources = ["http://a:Secret1@h/"]
    manifest.build["command"] = ["skyset build gz3d", "--base_url", "http://a:Secret1@h/", "--limit", "3"]
    assert "Secret1" not in manifest.to_json()
    values = json.loads((built / "manifest.json").read_text()) | {"sources": manifest.sources}
    values["build"]["command"] = manifest.build["command"]
    (tmp_path / "manifest.json").write_text(json.dumps(values))  # as skyset 0.1 wrote it
    old = Manifest.load(tmp_path)
    assert old.sources == ["http://***@h/"]
    assert old.build["command"] == ["skyset build gz3d", "--base_url", "http://***@h/", "--limit", "3"]


# --- sessions -----------------------------------------------------------------------------------------------


def fetch(url, folder):
    with Fetcher(retries=0, timeout=(20, 20)) as fetcher:
        return fetcher.fetch(url, folder / "a.txt").read_text()


def pooled(*urls):
    (answer,) = ImagePool(1, retries=0).run([ImageRequest("a", urls)])
    return answer


def test_a_login_logs_in(server, tmp_path):
    assert fetch(with_login(server.url) + "a.txt", tmp_path) == "hello"
    assert pooled(with_login(server.url) + "a.txt").data == b"hello"
    assert server.authorizations == [BASIC, BASIC]


def test_a_login_of_netrc_logs_in(server, tmp_path, monkeypatch):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login alice password abc\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.login = "alice:abc"
    assert fetch(server.url + "a.txt", tmp_path) == "hello" and pooled(server.url + "a.txt").data == b"hello"


@pytest.mark.parametrize("way", ["fetch", "pool"])
def test_a_login_never_follows_to_another_host(server, tmp_path, way):
    (tmp_path / "other").mkdir()
    with ArchiveServer(tmp_path / "other") as other:
        other.redirects["a.txt"] = server.url.replace("127.0.0.1", "localhost") + "a.txt"
        server.login = None
        where = with_login(other.url) + "a.txt"
        assert (fetch(where, tmp_path) if way == "fetch" else pooled(where).data.decode()) == "hello"
    assert other.authorizations == [BASIC] and server.authorizations == [None]


def test_nothing_of_a_login_is_in_what_goes_wrong(server, tmp_path):
    server.login = "alice:other"
    url = with_login(server.url) + "a.txt?token=T0psecret"
    with pytest.raises(FetchError) as caught:
        fetch(url, tmp_path)
    texts = ["".join(traceback.format_exception(caught.value)), repr(caught.value), caught.value.url]
    answer = pooled(url)
    texts += [answer.reason, answer.url]
    server.__exit__()
    with pytest.raises(FetchError) as caught:
        fetch(url, tmp_path)
    texts += ["".join(traceback.format_exception(caught.value)), repr(caught.value)]
    for text in texts:
        assert not any(secret in text for secret in (PASSWORD, QUOTED, "S3cr3t", "T0psecret", BASIC)), text
    assert caught.value.url == f"{server.url}a.txt?token=***"


def test_a_login_that_is_no_latin_1_is_sent_as_utf_8(server, tmp_path):
    server.login = "alice:κωδικός"
    assert fetch(with_login(server.url, "alice:%CE%BA%CF%89%CE%B4%CE%B9%CE%BA%CF%8C%CF%82") + "a.txt", tmp_path) == "hello"


# --- a whole build ------------------------------------------------------------------------------------------


def test_a_build_behind_a_login_writes_it_nowhere(archive, tmp_path, capfd):
    with ArchiveServer(archive) as server:
        server.login = f"alice:{PASSWORD}"
        server.fault(sorted(path.name for path in archive.glob("*.fits.gz"))[0], "404")
        where = with_login(server.url)
        assert build(tmp_path / "out", "--base_url", where, "--limit", 4) == 1
        server.login = "alice:another"
        assert build(tmp_path / "other", "--base_url", where, "--limit", 4) == 2
        url = server.url
    manifest = Manifest.load(tmp_path / "out")
    assert manifest.rows == 3 and manifest.sources == [url]
    assert url.replace("://", "://***@") in manifest.build["command"]
    said = capfd.readouterr()
    assert "401 Unauthorized" in said.err
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 3
    for text in (*written, said.out.encode(), said.err.encode()):
        assert not any(secret.encode() in text for secret in (PASSWORD, QUOTED, "S3cr3t", BASIC))


def test_a_cookie_takes_the_place_of_a_login_at_its_host_alone():
    url, other = "https://cookie.example.org/a", "https://cookie.example.org:8443/a"
    remember(url, ("alice", "Pass-w0rd"))
    for address in (url, other):
        remember_cookie(address, "SSO", '"t0ken=/+abc"')
    remember_cookie(other, "SSO", None)
    assert (cookie_of(url), cookie_of(other), cookie_of("nothing")) == ('SSO="t0ken=/+abc"', None, None)
    request = requests.Request("GET", url, auth=HostLogin()).prepare()
    assert request.headers["Cookie"] == 'SSO="t0ken=/+abc"' and "Authorization" not in request.headers
    assert redacted("the answer is t0ken=/+abc") == "the answer is ***"
