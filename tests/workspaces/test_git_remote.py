"""Git over https and ssh, from real servers; what opens a repository is shown to nobody."""

import json
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from engines.sshd import Sshd, keygen, serving
from leasehold.domain.specs import RunSpec, parse
from leasehold.errors import BadInputError
from leasehold.store.database import Row
from leasehold.vault import Vault
from leasehold.vault.sources import FilesSource
from story.conftest import House
from workspaces import trees
from workspaces.git_servers import Authority, GitServer
from workspaces.test_git import git, repository

__all__ = ["repository"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def server(repository: Path, authority: Authority) -> Iterator[GitServer]:
    one = GitServer(repository.parent, authority.certificate())
    yield one
    one.stop()


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with serving(tmp_path / "sshd") as one:
        yield one


@pytest.fixture
def hidden(tmp_path: Path) -> Path:
    """The directory whose files are secrets, below a tenant's name."""
    path = tmp_path / "hidden"
    path.mkdir()
    return path


@pytest.fixture
def house_with_git(lab: House, hidden: Path, authority: Authority) -> House:
    lab.worker.git_schemes = frozenset({"https", "ssh"})
    lab.worker.git_ca_file = authority.file
    lab.worker.vault = Vault({"files": FilesSource(hidden, salt="test")})
    lab.environment(policy="reuse_by_workspace")
    return lab


def keep(hidden: Path, name: str, value: str) -> dict[str, str]:
    path = hidden / "default" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(value)
    return {"secret": name}


def outcome(lab: House, **tree: Any) -> Row:
    return lab.over(lab.submit("true", tree=tree, workspace="/w"))


def checked_out(lab: House, row: Row) -> dict[str, str]:
    assert row["status"] == "succeeded", row["message"]
    lab.quiet()
    return dict(trees.read(lab.world.box(row["lease_id"]) / "work"))


def rows_of(lab: House) -> str:
    """Return all that is stored, as text."""
    with lab.database.read() as tx:
        tables = ("runs", "leases", "executions", "events")
        return json.dumps([tx.all(f"SELECT * FROM {name}") for name in tables], default=str)


class Watched:
    """Looks for a text in the argv and the variables of every process."""

    def __init__(self, text: str) -> None:
        self.text, self.times, self.found = text.encode(), 0, list[str]()

    def look(self) -> None:
        self.times += 1
        for folder in Path("/proc").iterdir():
            for name in ("cmdline", "environ") if folder.name.isdigit() else ():
                with suppress(OSError):
                    if self.text in (folder / name).read_bytes():
                        self.found.append(f"{folder}/{name}")


# ---- https --------------------------------------------------------------------------------


def test_a_repository_comes_over_https(
    house_with_git: House, server: GitServer, repository: Path
) -> None:
    row = outcome(house_with_git, git=f"{server.url}/repository", ref="main")
    assert checked_out(house_with_git, row) == {"a": "2", "b": "2", ".gitignore": "b\n"}
    assert row["tree"]["commit"] == git(repository, "rev-parse", "main")


def test_a_server_whose_certificate_nobody_vouches_for_is_refused(
    house_with_git: House, server: GitServer, tmp_path: Path
) -> None:
    house_with_git.worker.git_ca_file = Authority(tmp_path / "another").file
    row = outcome(house_with_git, git=f"{server.url}/repository")
    assert row["code"] == "workspace_unavailable"
    assert "certificate" in row["message"]
    assert server.authorizations == []


@pytest.mark.parametrize("form", ["someone:{}", "{}"])
def test_a_secret_opens_a_repository_and_is_shown_to_nobody(
    house_with_git: House, server: GitServer, hidden: Path, form: str
) -> None:
    token = f"t0ken-{secrets.token_hex(12)}"
    credential = keep(hidden, "opens", form.format(token) + "\n")
    server.login = f"someone:{token}" if ":" in form else f"git:{token}"
    watched = Watched(token)
    server.looking = watched.look
    row = outcome(house_with_git, git=f"{server.url}/repository", credential=credential)
    assert checked_out(house_with_git, row)["a"] == "2"
    assert watched.times > 1
    assert watched.found == []
    stored = rows_of(house_with_git)
    assert '"opens' in stored.replace("\\", "")
    assert token not in stored


def test_a_wrong_secret_fails_the_run_and_is_told_without_its_value(
    house_with_git: House, server: GitServer, hidden: Path
) -> None:
    server.login = "someone:right"
    credential = keep(hidden, "opens", "someone:wr0ng-and-long")
    row = outcome(house_with_git, git=f"{server.url}/repository", credential=credential)
    assert row["code"] == "workspace_unavailable"
    assert "Authentication failed" in row["message"]
    assert "wr0ng" not in rows_of(house_with_git)


def test_a_repository_that_wants_a_login_fails_at_once_without_one(
    house_with_git: House, server: GitServer
) -> None:
    server.login = "someone:right"
    row = outcome(house_with_git, git=f"{server.url}/repository")
    assert row["code"] == "workspace_unavailable"


def test_another_server_never_gets_the_secret(
    house_with_git: House, server: GitServer, authority: Authority, hidden: Path
) -> None:
    first = GitServer(server.root, authority.certificate())
    first.moved_to = server.url
    server.login = "someone:secret-of-first"
    credential = keep(hidden, "opens", server.login)
    row = outcome(house_with_git, git=f"{first.url}/repository", credential=credential)
    first.stop()
    assert row["code"] == "workspace_unavailable"
    assert set(server.authorizations) == {None}


def test_a_secret_that_is_not_there_is_named(house_with_git: House, server: GitServer) -> None:
    row = outcome(
        house_with_git, git=f"{server.url}/repository", credential={"secret": "no-such"}
    )
    assert row["status"] == "failed"
    assert "no-such" in row["message"]
    assert server.authorizations == []


@pytest.mark.parametrize("value", ["a:b\nusername=x", "\n", "a\tb"])
def test_a_secret_that_is_no_login_is_refused(
    house_with_git: House, server: GitServer, hidden: Path, value: str
) -> None:
    credential = keep(hidden, "opens", value)
    row = outcome(house_with_git, git=f"{server.url}/repository", credential=credential)
    assert row["status"] == "failed"
    assert server.authorizations == []


def test_a_server_that_is_away_is_asked_again(
    house_with_git: House, server: GitServer, authority: Authority
) -> None:
    server.stop()
    run_id = house_with_git.submit("true", tree={"git": f"{server.url}/repository"})
    house_with_git.until(lambda: house_with_git.run(run_id)["infra_attempts"] > 0)
    house_with_git.cancel(run_id)
    house_with_git.over(run_id)


# ---- ssh ----------------------------------------------------------------------------------


def ssh_url(sshd: Sshd, repository: Path) -> str:
    return f"ssh://{sshd.user}@{sshd.address}:{sshd.port}{repository}"


def test_a_repository_comes_over_ssh_with_a_key_that_is_a_secret(
    house_with_git: House, sshd: Sshd, repository: Path, hidden: Path
) -> None:
    key = sshd.key.read_text()
    row = outcome(
        house_with_git,
        git=ssh_url(sshd, repository),
        ref="main",
        credential=keep(hidden, "key", key),
        known_hosts=sshd.known_hosts(),
    )
    assert checked_out(house_with_git, row)["a"] == "2"
    assert row["tree"]["commit"] == git(repository, "rev-parse", "main")
    assert key.splitlines()[2] not in rows_of(house_with_git)


def test_a_key_is_in_no_argument_no_variable_and_no_file(
    house_with_git: House, tmp_path: Path, repository: Path, hidden: Path
) -> None:
    seen, script = tmp_path / "seen", tmp_path / "force"
    script.write_text(
        "#!/bin/sh\n"
        f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >{seen} 2>/dev/null\n"
        f"find {tempfile.gettempdir()} -maxdepth 4 -newer {script} -type f"
        " -path '*leasehold-git-*' "
        f"-exec cat {{}} + >>{seen} 2>/dev/null\n"
        'exec sh -c "$SSH_ORIGINAL_COMMAND"\n'
    )
    script.chmod(0o755)
    with serving(tmp_path / "forced", ForceCommand=str(script)) as sshd:
        key = sshd.key.read_text()
        row = outcome(
            house_with_git,
            git=ssh_url(sshd, repository),
            credential=keep(hidden, "key", key),
            known_hosts=sshd.known_hosts(),
        )
    assert checked_out(house_with_git, row)["a"] == "2"
    told = seen.read_bytes()
    assert b"git-upload-pack" in told
    assert sshd.known_hosts().split()[2].encode() in told
    assert key.splitlines()[2].encode() not in told


def test_a_host_whose_key_is_another_is_refused(
    house_with_git: House, sshd: Sshd, repository: Path, hidden: Path, tmp_path: Path
) -> None:
    credential = keep(hidden, "key", sshd.key.read_text())
    for known in (sshd.known_hosts(keygen(tmp_path / "other")), "# nobody"):
        row = outcome(
            house_with_git,
            git=ssh_url(sshd, repository),
            credential=credential,
            known_hosts=known,
        )
        assert row["code"] == "workspace_unavailable"
        assert "Host key verification failed" in row["message"]


def test_a_key_that_is_not_accepted_is_told_as_that(
    house_with_git: House, sshd: Sshd, repository: Path, hidden: Path, tmp_path: Path
) -> None:
    row = outcome(
        house_with_git,
        git=ssh_url(sshd, repository),
        credential=keep(hidden, "key", keygen(tmp_path / "stranger").read_text()),
        known_hosts=sshd.known_hosts(),
    )
    assert row["code"] == "workspace_unavailable"
    assert "Permission denied" in row["message"]


def test_what_is_no_key_or_wants_a_passphrase_is_refused(
    house_with_git: House, sshd: Sshd, repository: Path, hidden: Path, tmp_path: Path
) -> None:
    locked = keygen(tmp_path / "locked", passphrase="open sesame").read_text()
    for value in ("no key at all", locked):
        row = outcome(
            house_with_git,
            git=ssh_url(sshd, repository),
            credential=keep(hidden, "key", value),
            known_hosts=sshd.known_hosts(),
        )
        assert row["code"] == "workspace_unavailable"
        assert "no private key" in row["message"]


# ---- at the border ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://user:s3cret@host/r.git",
        "https://s3cret@host/r.git",
        "HTTPS://s3cret@host/r.git",
        "https:/s3cret@host/r.git",
        "https:s3cret@host/r.git",
        "ssh://git:s3cret@host/r.git",
        "git+ssh://git:s3cret@host/r.git",
        " https://s3cret@host/r.git",
    ],
)
@pytest.mark.parametrize("field", ["tree.git", "workspace"])
def test_credentials_in_a_url_are_refused_before_anything_is_stored(
    url: str, field: str
) -> None:
    body: dict[str, Any] = {"commands": [{"argv": ["true"]}]}
    body |= {"workspace": url} if field == "workspace" else {"tree": {"git": url}}
    with pytest.raises(BadInputError, match="--workspace-secret NAME") as caught:
        parse(RunSpec, body)
    assert caught.value.field == field
    assert "s3cret" not in str(caught.value)


def test_a_user_of_ssh_is_no_secret() -> None:
    body = {
        "commands": [{"argv": ["true"]}],
        "tree": {"git": "ssh://git@host/r.git"},
        "workspace": "ssh://git@host/r.git",
    }
    assert parse(RunSpec, body).tree is not None


def test_a_credential_without_a_url_is_refused() -> None:
    tree = {"digest": "0" * 64, "credential": {"secret": "x"}}
    with pytest.raises(BadInputError, match="belong to a git URL"):
        parse(RunSpec, {"commands": [{"argv": ["true"]}], "tree": tree})


def test_what_is_not_used_is_not_stored() -> None:
    body = {"commands": [{"argv": ["true"]}], "tree": {"git": "https://host/r.git"}}
    tree = parse(RunSpec, body).model_dump()["tree"]
    assert {"credential", "known_hosts"}.isdisjoint(tree)
