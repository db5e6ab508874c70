"""A git URL is cloned once, by a worker, at one commit."""

import subprocess
from pathlib import Path

import pytest

from leasehold.errors import BadInputError
from leasehold.trees.cloning import check_url
from story.conftest import House
from workspaces import trees

ALL = frozenset({"https", "ssh", "file"})


def git(where: Path, *words: str) -> str:
    who = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    done = subprocess.run(
        ["git", *who, *words], cwd=where, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with two commits; the first one has a tag."""
    path = tmp_path / "repository"
    path.mkdir()
    git(path, "init", "--quiet", "--initial-branch=main", ".")
    git(path, "config", "uploadpack.allowAnySHA1InWant", "true")
    for number in ("1", "2"):
        trees.write(path, {"a": number, ".gitignore": "b\n", "b": number})
        git(path, "add", "--all", "--force")
        git(path, "commit", "--quiet", "--message", number)
        if number == "1":
            git(path, "tag", "first")
    return path


@pytest.mark.parametrize(("ref", "text"), [(None, "2"), ("first", "1"), ("main", "2")])
def test_the_ref_lies_in_the_sandbox_without_its_history(
    lab: House, repository: Path, ref: str | None, text: str
) -> None:
    lab.worker.git_schemes = ALL
    lab.environment(policy="reuse_by_workspace")
    tree = {"git": f"file://{repository}", "ref": ref}
    row = lab.over(lab.submit("true", tree=tree, workspace="/w"))
    assert row["status"] == "succeeded", row["message"]
    lab.quiet()
    box = lab.world.box(row["lease_id"]) / "work"
    assert trees.read(box) == {"a": text, "b": text, ".gitignore": "b\n"}
    commit = git(repository, "rev-parse", ref or "main")
    assert row["tree"]["commit"] == commit
    assert lab.leases()[0]["facts"]["tree"]["commit"] == commit


def test_a_retry_works_on_the_commit_of_the_first_try(lab: House, repository: Path) -> None:
    lab.worker.git_schemes = ALL
    lab.environment()
    tree = {"git": f"file://{repository}", "ref": "main"}
    run_id = lab.submit(*["sleep", "0.1", "then", "false"], tree=tree, retries=1)
    lab.until(lambda: lab.run(run_id)["tree"] is not None)
    first = lab.run(run_id)["tree"]["commit"]
    trees.write(repository, {"a": "3"})
    git(repository, "commit", "--quiet", "--all", "--message", "3")
    assert lab.over(run_id)["tree"]["commit"] == first
    assert lab.events(run_id).count("workspace.realized") == 2
    assert {lease["facts"]["tree"]["commit"] for lease in lab.leases()} == {first}


def test_what_is_not_there_fails_before_a_sandbox_is_made(lab: House, repository: Path) -> None:
    lab.worker.git_schemes = ALL
    lab.environment()
    for url, ref in ((f"file://{repository}", "no-such"), ("file:///no/such", None)):
        row = lab.over(lab.submit("true", tree={"git": url, "ref": ref}))
        assert (row["code"], row["lease_id"]) == ("workspace_unavailable", None)


def test_a_kind_of_url_that_is_not_allowed_is_refused(lab: House, repository: Path) -> None:
    lab.worker.git_schemes = frozenset({"https"})
    lab.environment()
    row = lab.over(lab.submit("true", tree={"git": f"file://{repository}"}))
    assert row["code"] == "workspace_unavailable"
    assert "https://" in row["message"]


@pytest.mark.parametrize(
    "url",
    [
        "https://user:secret@host/r.git",
        "https://token@host/r.git",
        "ssh://git:secret@host/r.git",
        "ext::sh -c id",
        "http://host/r.git",
        "ssh://-oProxyCommand=id/r.git",
        "--upload-pack=id",
        "https://host/r.git\n--x",
    ],
)
def test_a_dangerous_url_is_refused(url: str) -> None:
    with pytest.raises(BadInputError):
        check_url(url, schemes=ALL)


def test_a_plain_url_is_taken_as_it_is() -> None:
    assert check_url("https://host/r.git", schemes=ALL) == "https://host/r.git"
    assert check_url("git+ssh://git@host/r", schemes=ALL) == "ssh://git@host/r"
