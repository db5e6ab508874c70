"""
What an environment says about its target: where it is, who we are there, and whom we trust.

The private key is a secret. Where a config is submitted it is a reference, and cannot be
looked at; where it is used it is the text of the key. Nobody is trusted by default: a host key
that `known_hosts` does not list is refused, and there is no switch that says otherwise.
"""

import hashlib
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from leasehold.provider import (
    ConfigRejectedError,
    Json,
    Problem,
    Validation,
    check_schema,
    secret_field,
)

if TYPE_CHECKING:
    import asyncssh

SCHEMA: Final[Json] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "Directories and commands on a host that ssh reaches",
    "type": "object",
    "additionalProperties": False,
    "required": ["host", "user", "path", "private_key", "known_hosts"],
    "properties": {
        "host": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_]([A-Za-z0-9._:-]*[A-Za-z0-9_])?$|^::[A-Fa-f0-9:.]*$",
            "maxLength": 253,
            "description": "Name or address of the target.",
        },
        "port": {
            "type": "integer",
            "minimum": 1,
            "maximum": 65535,
            "default": 22,
            "description": "Where its sshd listens.",
        },
        "user": {
            "type": "string",
            "pattern": r"^[A-Za-z0-9_][A-Za-z0-9_.@\\-]{0,99}$",
            "description": "The account; commands have all of its rights.",
        },
        "path": {
            "type": "string",
            "pattern": r"^/[^\u0000-\u001f\u007f]+$",
            "maxLength": 512,
            "description": "Absolute directory on the target; sandboxes are made below it.",
        },
        "private_key": secret_field("Private key of the account, as ssh-keygen writes it."),
        "passphrase": secret_field("Passphrase of the private key, if it has one."),
        "known_hosts": {
            "type": "string",
            "minLength": 1,
            "maxLength": 65536,
            "description": "Lines of a known_hosts file; the target's key must be in them.",
        },
        "sessions": {
            "type": "integer",
            "minimum": 1,
            "maximum": 64,
            "default": 8,
            "description": "Calls at once over one connection; below the sshd's MaxSessions.",
        },
        "reuse_lease": {
            "type": "boolean",
            "default": True,
            "description": "Whether a later run may get the same directory.",
        },
    },
}
_SECRETS: Final = ("private_key", "passphrase")


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """All that a connection needs; two configs that agree in it share one."""

    host: str
    port: int
    user: str
    known_hosts: str
    sessions: int
    private_key: str = field(repr=False)
    passphrase: str | None = field(repr=False)

    @property
    def name(self) -> str:
        """The target in a word, for people."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"ssh://{self.user}@{host}:{self.port}"

    @property
    def mark(self) -> str:
        """A digest of all of it, so that what is kept under it names no secret."""
        parts = [self.host, str(self.port), self.user, self.known_hosts, str(self.sessions)]
        parts += [self.private_key, self.passphrase or ""]
        return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()


def login_of(config: Json) -> Login:
    """
    Read the login out of a config whose secrets are in their places.

    Raises:
        ConfigRejectedError: Something is missing; names it, never a value.
    """
    if missing := [key for key in SCHEMA["required"] if key not in config]:
        raise ConfigRejectedError(f"the config of an ssh target lacks {', '.join(missing)}")
    for key in _SECRETS:
        if not isinstance(config.get(key, ""), str):
            raise ConfigRejectedError(f"{key}: the secret was not put in its place")
    return Login(
        host=config["host"],
        port=config.get("port", 22),
        user=config["user"],
        known_hosts=config["known_hosts"],
        sessions=config.get("sessions", 8),
        private_key=config["private_key"],
        passphrase=config.get("passphrase"),
    )


def check(config: Json) -> Validation:
    """Check a config without asking the target anything."""
    answer = check_schema(SCHEMA, config)
    if not answer.ok:
        return replace(answer, problems=tuple(map(_plainer, answer.problems)))
    normal = dict(answer.config)
    problems: list[Problem] = []
    warnings: list[str] = []
    normal["path"] = posixpath.normpath("/" + normal["path"].lstrip("/"))
    if ".." in config["path"].split("/") or normal["path"] == "/":
        text = "must be a directory below the root, without .."
        problems.append(Problem(path="path", code="path", message=text))
    _check_hosts(normal, problems, warnings)
    _check_key(normal, problems)
    return Validation(
        problems=tuple(problems),
        warnings=tuple(warnings),
        config={} if problems else normal,
    )


def _plainer(problem: Problem) -> Problem:
    if problem.path.split(".")[0] not in _SECRETS:
        return problem
    text = 'must be {"secret": "NAME"}, or the text itself'
    return replace(problem, message=text)


def _check_hosts(
    config: Mapping[str, Any], problems: list[Problem], warnings: list[str]
) -> None:
    import asyncssh

    try:
        hosts = asyncssh.import_known_hosts(config["known_hosts"])
    except ValueError as error:
        problems.append(Problem(path="known_hosts", code="known_hosts", message=str(error)))
        return
    if not any(hosts.match(config["host"], "", config["port"])[:2]):
        warnings.append(
            f"known_hosts has no key for {config['host']}, port {config['port']}: the target "
            "is refused unless a line names its address"
        )


def _check_key(config: Mapping[str, Any], problems: list[Problem]) -> None:
    key, passphrase = config["private_key"], config.get("passphrase")
    if not isinstance(key, str) or not isinstance(passphrase, str | None):
        return
    try:
        read_key(key, passphrase)
    except ConfigRejectedError as error:
        path, _, text = str(error).partition(": ")
        problems.append(Problem(path=path, code="key", message=text))


def read_key(key: str, passphrase: str | None) -> "asyncssh.SSHKey":
    """
    Parse a private key; takes a while if it has a passphrase.

    Raises:
        ConfigRejectedError: Names the field. The library's own words are not shown: they might
            quote what they choke on.
    """
    import asyncssh

    try:
        return asyncssh.import_private_key(key, passphrase)
    except asyncssh.KeyEncryptionError:
        raise ConfigRejectedError("passphrase: is not the one of this key") from None
    except asyncssh.KeyImportError as error:
        if not passphrase and "passphrase" in str(error).lower():
            raise ConfigRejectedError("passphrase: the key needs one") from None
        text = "private_key: is not a private key that can be read (OpenSSH or PEM)"
        raise ConfigRejectedError(text) from None
