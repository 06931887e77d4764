"""Accounts: hashes that others can check, files that say what is wrong by its line, and nothing of a secret."""

import io
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xray.commands import account
from xray.errors import InputError, spelled
from xray.serving import accounts
from xray.serving.accounts import Accounts, Hash, account_line, put_line, read_accounts

# The example of passlib's documentation (passlib.hash.scrypt), which another library made.
OF_PASSLIB = "$scrypt$ln=16,r=8,p=1$aM15713r3Xsvxbi31lqr1Q$nFNh2CVHVjNldFVKDHDlm4CbdRSCdEBsjjJxD+iCs5E"
CHEAP = {"LN": 1, "R": 1, "P": 1}


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    """Hashes that take no time."""
    for name, value in CHEAP.items():
        monkeypatch.setattr(accounts, name, value)


def test_a_hash_of_another_library_is_understood():
    assert Hash.read(OF_PASSLIB).matches("password")
    assert not Hash.read(OF_PASSLIB).matches("Password")
    assert str(Hash.read(OF_PASSLIB)) == OF_PASSLIB


def test_the_cost_is_what_owasp_asks_for():
    # OWASP Password Storage Cheat Sheet: N=2^14 (16 MiB), r=8, p=5 is among the minimum settings.
    from importlib import reload

    fresh = reload(accounts)
    assert (fresh.LN, fresh.R, fresh.P) == (14, 8, 5)


@settings(max_examples=50)
@given(st.text(min_size=8, max_size=40), st.text(min_size=8, max_size=40))
def test_a_secret_matches_itself_alone(secret, other):
    import unicodedata

    hashed = Hash.read(str(Hash.of(secret)))
    assert hashed.matches(secret)
    same = unicodedata.normalize("NFC", secret) == unicodedata.normalize("NFC", other)
    assert hashed.matches(other) == same


def test_two_hashes_of_one_secret_differ_and_two_spellings_of_one_letter_do_not():
    assert str(Hash.of("open sesame")) != str(Hash.of("open sesame"))
    assert Hash.of("Ka\u0308se 12345").matches("K\u00e4se 12345")


@pytest.mark.parametrize(
    "text",
    [
        "", "secret", "$2b$12$abc", OF_PASSLIB[:-30], OF_PASSLIB.replace("ln=16", "ln=25"),
        OF_PASSLIB.replace("r=8", "r=0"), OF_PASSLIB.replace("p=1", "p=99"),
        OF_PASSLIB.replace("ln=16,r=8", "ln=20,r=32"),
        OF_PASSLIB + "\n",
    ],
)  # fmt: skip
def test_what_is_no_hash_is_refused(text):
    with pytest.raises(ValueError, match=r"a hash that takes|no hash that"):
        Hash.read(text)


def test_names_and_tokens():
    found = Accounts({"ali": Hash.of("open sesame"), "bot": Hash.of("token-token")})
    assert found.named("ali", "open sesame")
    assert not found.named("ali", "token-token")
    assert not found.named("nobody", "open sesame")
    assert found.any("token-token")
    assert found.any("open sesame")
    assert not found.any("open sesamE")


def test_a_file_is_read_and_its_rights_are_looked_at(tmp_path):
    path = tmp_path / "accounts"
    path.write_text(f"# of the ward\n\nali:{OF_PASSLIB}\n{account_line('b@x.org', 'open sesame')}\n")
    path.chmod(0o600)
    warnings = []
    assert list(read_accounts(path, warnings.append).of) == ["ali", "b@x.org"]
    assert warnings == []
    path.chmod(0o640)
    read_accounts(path, warnings.append)
    assert warnings == [f"warning: others than its owner may read {path}: chmod 600 {path}"]


@pytest.mark.parametrize(
    "text", ["\ufeffali:{}\n", "# of the ward\r\n\r\nali:{}\r\n", "\ufeff# ward\nali: {}", "  ali:{}  \n\t\n#"]
)
def test_a_file_of_any_editor_is_read_and_written_again(tmp_path, text):
    path = tmp_path / "accounts"
    path.write_bytes(text.format(OF_PASSLIB).encode())
    assert str(read_accounts(path, lambda line: None).of["ali"]) == OF_PASSLIB
    assert not put_line(path, account_line("bob", "open sesame"))
    assert put_line(path, account_line("ali", "open sesame"))
    assert sorted(read_accounts(path, pytest.fail).of) == ["ali", "bob"]
    assert path.read_text().count("ward") == text.count("ward")


@pytest.mark.parametrize("text", ["", "# nobody yet\n", "\ufeff\r\n"])
def test_the_first_account_goes_into_a_file_without_any(tmp_path, text):
    path = tmp_path / "accounts"
    path.write_bytes(text.encode())
    assert not put_line(path, account_line("ali", "open sesame"))
    assert list(read_accounts(path, pytest.fail).of) == ["ali"]


def test_no_file_comes_to_hold_more_than_a_server_takes(tmp_path):
    path = tmp_path / "accounts"
    path.write_text("".join(f"n{number}:{OF_PASSLIB}\n" for number in range(100)))
    before = path.read_text()
    with pytest.raises(InputError, match="has 100 accounts, and no more are possible"):
        put_line(path, account_line("ali", "open sesame"))
    assert path.read_text() == before
    assert put_line(path, account_line("n7", "open sesame"))
    assert len(read_accounts(path, pytest.fail).of) == 100


def test_an_account_that_cannot_be_written_is_told(tmp_path):
    with pytest.raises(InputError, match=r"cannot be written \(No such file or directory\): give another file"):
        put_line(tmp_path / "nowhere" / "accounts", account_line("ali", "open sesame"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 accounts, 1 to 100 are possible"),
        ("ali:secret\n", f"line 1: no hash that {spelled('account')} makes"),
        (f"#\nali{OF_PASSLIB}\n", "line 2: no NAME:HASH"),
        (f"ali:{OF_PASSLIB}\nali:{OF_PASSLIB}\n", "line 2: a name that stands there twice"),
        ("".join(f"n{number}:{OF_PASSLIB}\n" for number in range(101)), "has 101 accounts"),
        ("x" * 70000, "is no file of accounts"),
        (b"\xff\xfe", "is no text in UTF-8"),
    ],
)
def test_a_wrong_file_is_told_by_its_line_and_not_by_what_it_says(tmp_path, text, message):
    path = tmp_path / "accounts"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=message) as raised:
        read_accounts(path, lambda line: None)
    assert "secret" not in str(raised.value)
    assert f"{spelled('account')} NAME" in str(raised.value)


def test_no_file_is_told(tmp_path):
    with pytest.raises(InputError, match="cannot be read \\(No such file"):
        read_accounts(tmp_path / "nothing", lambda line: None)
    with pytest.raises(InputError, match="is no file of accounts"):
        read_accounts(tmp_path, lambda line: None)


@pytest.mark.parametrize(
    ("name", "secret", "message"),
    [
        ("", "open sesame", "no name of an account"), ("a:b", "open sesame", "no name of an account"),
        ("ali", "short", "has a length of 5"), ("ali", "x" * 1025, "has a length of 1025"),
        ("ali", "open\tsesame", "control characters"),
    ],
)  # fmt: skip
def test_what_can_be_no_account(name, secret, message):
    with pytest.raises(InputError, match=message):
        account_line(name, secret)


def test_the_command_reads_the_secret_from_stdin(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.stdin", io.StringIO("open sesame\nsecond line\n"))
    account.main(account.Config(name="ali"))
    out = capsys.readouterr().out
    name, _, hashed = out.strip().partition(":")
    assert name == "ali"
    assert Hash.read(hashed).matches("open sesame")
    path = tmp_path / "accounts"
    for secret, said in (("open sesame", "was added"), ("other secret", "has a new secret")):
        monkeypatch.setattr("sys.stdin", io.StringIO(secret))
        account.main(account.Config(name="ali", auth=path))
        assert said in capsys.readouterr().err
        assert read_accounts(path, pytest.fail).named("ali", secret)
    assert os.stat(path).st_mode & 0o777 == 0o600


def test_the_command_makes_a_token_and_shows_it_once(capsys, tmp_path):
    account.main(account.Config(name="bot", generate=True, auth=tmp_path / "accounts"))
    said = capsys.readouterr()
    token = said.out.strip()
    assert len(token) == 43
    assert token not in said.err + (tmp_path / "accounts").read_text()
    assert read_accounts(tmp_path / "accounts", pytest.fail).any(token)


def test_a_file_that_is_none_is_not_written_over(tmp_path):
    path = tmp_path / "accounts"
    path.write_text("something else\n")
    with pytest.raises(InputError, match="line 1"):
        put_line(path, account_line("ali", "open sesame"))
    assert path.read_text() == "something else\n"
