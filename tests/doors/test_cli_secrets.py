"""``leasehold secrets``: what it takes, shows and refuses."""

from pathlib import Path

import pytest

from command_line import Live, Said, call, create_environment, serve
from leasehold.provider import secret_field
from leasehold.store.database import Database
from leasehold.vault import keys

VALUE = "open sesame, please"


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys"
    keys.make_file(path)
    monkeypatch.setenv("LEASEHOLD_SECRET_KEYS_FILE", str(path))
    return path


def put(name: str, value: str = VALUE) -> Said:
    return call("secrets", "set", name, "--json", stdin=f"{value}\n".encode())


@pytest.mark.usefixtures("deployment", "keyring")
def test_a_secret_is_set_listed_and_deleted_and_never_shown() -> None:
    assert put("door").json() == {"name": "door", "version": 1}
    assert put("door").json() == {"name": "door", "version": 2}
    (shown,) = call("secrets", "list", "--json").json()
    assert (shown["name"], shown["version"], shown["leases"]) == ("door", 2, 0)
    table = call("secrets", "list").out
    assert "door" in table
    assert VALUE not in table
    assert call("secrets", "delete", "door", "--json").json()["deleted"]
    said = call("secrets", "delete", "door")
    assert said.code == 3
    assert said.err == "leasehold: there is no secret 'door'; there are: none yet\n"
    assert call("secrets", "list", "--json").json() == []


@pytest.mark.usefixtures("deployment", "keyring")
@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("-odd", b"value", "No such option"),
        ("a/b", b"value", "NAME: must begin with a letter or digit"),
        ("empty", b"", "the value: is empty"),
        ("large", b"x" * 70_000, "the value: has"),
        ("binary", b"\xff\xfe", "the value: must be UTF-8 text"),
        ("nul", b"a\0b", "the value: must not hold a NUL"),
    ],
)
def test_what_cannot_be_kept_is_refused_and_not_repeated(
    name: str, value: bytes, words: str
) -> None:
    said = call("secrets", "set", name, stdin=value)
    assert said.code == 2
    assert words in said.err
    assert call("secrets", "list", "--json").json() == []


@pytest.mark.usefixtures("deployment")
def test_a_deployment_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    said = put("door")
    assert said.code == 2
    assert "leasehold secrets new-key > FILE" in said.err
    key = call("secrets", "new-key").out
    path = tmp_path / "made"
    path.write_text(key)
    path.chmod(0o620)
    env = {"LEASEHOLD_SECRET_KEYS_FILE": str(path)}
    assert "others may write" in call("secrets", "set", "x", stdin=b"vvvv", env=env).err
    path.chmod(0o600)
    assert call("secrets", "set", "x", stdin=b"vvvv", env=env).code == 0
    path.write_text("no key at all\n")
    assert "line 1 is no key" in call("secrets", "set", "x", stdin=b"vvvv", env=env).err


@pytest.mark.usefixtures("deployment")
def test_keys_are_rotated_and_the_doctor_says_where_it_stands(keyring: Path) -> None:
    put("door")

    def finding() -> str:
        rows = call("doctor", "--json").json()["checks"]
        return next(f"{r['state']}: {r['summary']}" for r in rows if r["name"] == "secrets")

    assert finding().startswith("ok: 1 values")
    old = keyring.read_text()
    keyring.write_text(call("secrets", "new-key").out)
    assert finding().startswith("wrong: 1 values have a key not in")
    keyring.write_text(keyring.read_text() + old)
    assert finding() == "note: 1 values are under an older key"
    assert call("secrets", "rotate", "--json").json()["encrypted_anew"] == 1
    assert finding().startswith("ok: 1 values")
    keyring.unlink()
    assert finding().startswith("wrong: 1 values are encrypted, and there is no")


@pytest.mark.usefixtures("deployment", "keyring")
def test_a_config_takes_the_name_of_a_secret_and_not_its_value(database: Database) -> None:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "properties": {"image": {"type": "string"}, "token": secret_field("Of its account.")},
    }
    with database.write("test") as tx:
        host = tx.value("SELECT id FROM hosts")
        serve(tx, key="fake", host_id=host, schema=schema)
    said = create_environment("place", "--set", f"token={VALUE}")
    assert said.code == 2
    assert "config.token: is a secret: store it with `leasehold secrets set NAME`" in said.err
    assert VALUE not in said.err
    made = create_environment(
        "place",
        *("--set-secret", "token=door", "--secret", "A=door", "-e", "B=1"),
        *("--unchecked", "--json"),
    )
    assert made.code == 0, made.err
    assert made.json()["config"] == {"token": {"secret": "door"}}
    assert made.json()["env_names"] == ["A", "B"]
    twice = create_environment("other", "--secret", "A=x", "-e", "A=1")
    assert (twice.code, "A is given with -e as well" in twice.err) == (2, True)
    wrong = create_environment("other", "--secret", "A=a/b")
    assert (wrong.code, "-e: A.secret" in wrong.err) == (2, True)


@pytest.mark.slow
def test_a_real_command_gets_it_and_nothing_on_the_disk_or_in_a_log_has_it(
    tmp_path: Path,
) -> None:
    with Live(tmp_path / "home", LEASEHOLD_LOG_LEVEL="DEBUG") as live:
        assert live.call("secrets", "set", "door", stdin=VALUE.encode()).code == 0
        script = 'printf %s "$DOOR" | cksum; echo "$DOOR"; echo "$DOOR" | base64 >&2'
        said = live.call("run", "--secret", "DOOR=door", "--", "sh", "-c", script)
        assert said.code == 0, said.err
        checksum, shown = said.out.splitlines()
        assert checksum.split()[1] == str(len(VALUE))
        assert shown == "*" * len(VALUE)
        assert said.err.strip("*=\n") in {"", "o", "K", "Cg", "Cg=", "UK", "lCg"}
        missing = live.call("run", "--secret", "DOOR=dor", "--", "true")
        assert missing.code == 255
        assert "there is no secret 'dor' (looked in: database)" in missing.err
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert VALUE.encode() not in path.read_bytes(), path
