"""The account of the HSC archive: where it comes from, in which order, and that nothing shows it."""

import io
import json

import pytest

from skyset.archives import account
from skyset.archives.account import account_for, forget_account, without_account
from skyset.errors import UserError
from skyset.secrets import login_of, remember

URL = "https://archive.example.org/datasearch/api/catalog_jobs/"
OURS = ("astronomer", "Milky Way, 4!")


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch, tmp_path):
    """No variables, an empty .netrc, no terminal, nothing remembered."""
    for name in (account.USER, account.PASSWORD):
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setattr("sys.stdin", io.StringIO())
    yield netrc
    remember(URL, None)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_variables_come_before_netrc(monkeypatch, nothing_known):
    nothing_known.write_text("machine archive.example.org login other password theirs\n")
    assert account_for(URL) == ("other", "theirs")
    forget_account(URL)
    monkeypatch.setenv(account.USER, OURS[0])
    monkeypatch.setenv(account.PASSWORD, OURS[1])
    assert account_for(URL) == OURS
    assert login_of("https://archive.example.org/das_cutout/") == OURS, "what sessions send to this host"
    assert login_of("https://elsewhere.example.org/") is None


def test_a_login_in_the_address_comes_first(monkeypatch):
    monkeypatch.setenv(account.USER, OURS[0])
    monkeypatch.setenv(account.PASSWORD, OURS[1])
    assert account_for("https://me:mine@archive.example.org/") == ("me", "mine")


def test_a_terminal_is_asked_and_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr("sys.stdin", Terminal("astronomer\n"))
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(account.getpass, "getpass", lambda prompt, stream: asked.append(prompt) or OURS[1])
    assert [account_for(URL), account_for(URL)] == [OURS, OURS]
    assert asked == ["password: "]


@pytest.mark.parametrize("typed", ["", "\n"])
def test_nothing_typed_is_no_account(monkeypatch, typed):
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    monkeypatch.setattr("sys.stderr", Terminal())
    monkeypatch.setattr(account.getpass, "getpass", lambda prompt, stream: "")
    with pytest.raises(UserError, match=r"^the account for archive.example.org has no user name$"):
        account_for(URL)
    assert login_of(URL) is None


def test_without_any_it_says_what_to_do():
    with pytest.raises(UserError, match=r"^no account for archive.example.org: set SSP_PDR_USR and SSP_PDR_PWD, or .*netrc"):
        account_for(URL)


@pytest.mark.parametrize(("given", "lack"), [(account.USER, account.PASSWORD), (account.PASSWORD, account.USER)])
def test_half_an_account_is_named(monkeypatch, given, lack):
    monkeypatch.setenv(given, "something 1")
    with pytest.raises(UserError, match=f"^{given} is set and {lack} is not") as raised:
        account_for(URL)
    assert "something" not in str(raised.value)


@pytest.mark.parametrize("password", ["hello", "a b&c<d>", 'quote" and \\ back', "Grüße", "with\ttab", "100%"])
def test_no_form_of_the_password_is_left_in_a_servers_words(password):
    said = json.dumps({"credential": {"account_name": "me", "password": password}})
    forms = [password, said, json.dumps(password, ensure_ascii=False), f"user me:{password}.", repr(password)]
    for text in forms:
        hidden = without_account(text, ("me", password))
        assert password not in hidden and json.dumps(password)[1:-1] not in hidden and "***" in hidden
    assert without_account("nothing of it", ("me", "Zq9")) == "nothing of it"
