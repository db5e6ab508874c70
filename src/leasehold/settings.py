"""Every knob of a process, read once from the environment (``LEASEHOLD_*``) at its door."""

import os
import re
from datetime import timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from pydantic import Field, SecretStr, ValidationError, create_model, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from leasehold.errors import BadInputError

PREFIX: Final = "LEASEHOLD_"
BROKER_SCHEMES: Final = ("redis", "rediss", "sentinel", "amqp", "amqps", "pyamqp")
LABEL_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}")
LABEL_CHARS: Final = 255
_ORIGIN: Final = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")
_NOT_OURS: Final = frozenset(
    {"API_URL", "API_TOKEN", "RUN_ID", "TOKEN", "TEST_POSTGRES_URL", "TEST_REDIS_URL"}
    | {"REQUIRE_SERVICES"}
)
"""Names with our prefix that are no settings: a sandbox's, a client's, the test suite's."""


class Settings(BaseSettings):
    """
    Settings of one process; built at the process door and passed down.

    Durations are seconds or ISO 8601 (``PT30S``); sizes end in ``_bytes``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True
    )

    home: Path = Path(".leasehold")
    """Where an embedded stack and a host keep their files."""

    database_url: SecretStr | None = None
    """``postgresql://user:password@host/name`` or ``sqlite:////path``; default: in `home`."""

    tenant: str = Field(default="default", min_length=1, max_length=64)
    """Whose rows the command line works on; `--tenant` goes before."""

    broker_url: SecretStr | None = None
    """Redis or Valkey (``redis://``, ``rediss://``) or RabbitMQ (``amqp://``, ``amqps://``);
    default: the embedded broker of `home`."""

    broker_prefix: str = "leasehold."
    """Key prefix in Redis: deployments may share a server. With RabbitMQ, give each
    deployment a virtual host of its own (``amqp://user:password@host:5672/vhost``)."""

    host_root: Path | None = None
    """Where this host keeps its id and its sandboxes; default ``<home>/host``."""

    host_capacity: int | None = Field(default=None, ge=1)
    """Sandboxes on this host at once; default: what its memory bears (64 a GiB)."""

    host_labels: dict[str, str] = Field(default_factory=dict, max_length=64)
    """What environments and runs may require of this host (`--require`), as a JSON object:
    ``{"gpu": "1"}``; read when its agent starts."""

    max_concurrent: int | None = Field(default=None, ge=1)
    """Sandboxes in the whole deployment at once."""

    max_per_tenant: int | None = Field(default=None, ge=1)
    """Sandboxes of one tenant at once."""

    max_queued: int = Field(default=100_000, ge=1)
    """Queued runs per tenant; more are refused with "full"."""

    allow_fake: bool = False
    """Serve the `fake` provider to saved environments; embedded mode and tests only."""

    timers: dict[str, Any] = Field(default_factory=dict)
    """Durations that promises rest on (`domain.timers.Timers`), as a JSON object."""

    worker_processes: int = Field(default=1, ge=1, le=64)
    """Processes for steps that a host agent keeps; the beat lane is one more."""

    worker_threads: int = Field(default=8, ge=1, le=256)
    """Steps at once in each of them."""

    beat_batch: int = Field(default=500, ge=1, le=10_000)
    """Running commands that one beat looks at, at most."""

    clock_batch: int = Field(default=200, ge=1, le=10_000)
    """Rows of each kind that one turn of the clock handles, at most."""

    store_url: str | None = None
    """Where workspaces and artifacts are kept: a directory or an fsspec URL (``s3://bucket/key``,
    with the extra `s3`), the same for every process; default ``<home>/store``."""

    max_workspace_bytes: int = Field(default=1024**3, ge=1)
    """Of all files of one workspace."""

    max_workspace_files: int = Field(default=100_000, ge=1)
    """Files, directories and links of one workspace."""

    max_artifact_bytes: int = Field(default=256 * 1024**2, ge=1)
    """Of one artifact; a bigger one is skipped, and that is noted."""

    max_artifacts_bytes: int = Field(default=1024**3, ge=1)
    """Of all artifacts and changed files of one run."""

    max_artifacts: int = Field(default=10_000, ge=1)
    """Artifacts and changed files of one run."""

    git_schemes: str = Field(default="https,ssh", pattern="^[a-z]+(,[a-z]+)*$")
    """What a workspace's git URL may begin with (`file` reads a worker's own disk)."""

    git_ca_file: Path | None = None
    """Certificates (PEM) that workers trust of git servers, instead of the system's."""

    api_requests_per_s: float = Field(default=200.0, ge=0, allow_inf_nan=False)
    """Requests a second with one API key, in the long run, to one process of the API; 0: no
    limit. More are answered with 429."""

    api_burst: int = Field(default=1000, ge=1)
    """Requests with one API key at once, before that limit counts."""

    api_failures_per_minute: float = Field(default=60.0, ge=0, allow_inf_nan=False)
    """Requests without a valid API key, from one address to one process; 0: no limit."""

    api_proxies: str = Field(default="", pattern=r"^[0-9a-fA-F.:/]*(,[0-9a-fA-F.:/]+)*$")
    """Addresses or networks of proxies, `10.0.0.7,10.1.0.0/16`: whom they forward for (the
    header `X-Forwarded-For`) is believed. Without them all clients of a proxy count as one."""

    api_cors_origins: str = ""
    """Origins whose pages may use the API, `https://ops.example.org,http://127.0.0.1:3000`;
    exact ones only. By default none."""
    api_streams: int = Field(default=500, ge=1, le=10_000)
    """Streams that one process of the API holds open at once; each is an open file too."""

    events: bool = False
    """Send Celery task events, so that Flower lists every step."""

    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """How much is logged: DEBUG, INFO, WARNING or ERROR."""

    log_json: bool = False
    """Log lines as JSON objects."""

    embedded_broker: str = Field(default="auto", pattern="^(auto|fakeredis)$")
    """What `leasehold up` brokers with: `auto` (a server that a wheel or the machine has, else
    fakeredis) or `fakeredis` (pure Python)."""

    webhook_networks: str = Field(default="", pattern=r"^[0-9a-fA-F.:/]*(,[0-9a-fA-F.:/]+)*$")
    """Networks that webhooks may reach beside public addresses, `10.1.0.0/16,fd00:1::/64`. By
    default none: no private, loopback, link-local or other special address is connected to."""

    webhook_deliveries: int = Field(default=8, ge=0, le=256)
    """Deliveries to webhooks that this host (or `leasehold clock`) has under way at once; 0: it
    sends none."""

    webhook_timeout_s: float = Field(default=15.0, ge=1, le=120, allow_inf_nan=False)
    """How long one delivery may take, with the look-up of the name and all redirects."""

    webhook_ca_file: Path | None = None
    """Certificates (PEM) that are trusted of webhooks' receivers beside the public ones."""

    secret_keys_file: Path | None = None
    """Keys that encrypt secrets, one a line: the first encrypts, all decrypt. Default:
    `secret-keys` in `home`, made by the first `leasehold secrets set` of an embedded stack."""

    secret_sources: str = Field(
        default="database",
        pattern="^(database|environment|files)(,(database|environment|files))*$",
    )
    """Where a worker looks for a secret, in this order: `database,environment,files`."""

    secret_env_prefix: str | None = Field(default=None, pattern="^[A-Za-z_][A-Za-z0-9_]*$")
    """Of the variables that are secrets (source `environment`): prefix + name; other tenants
    than `default`: prefix + tenant + `__` + name."""

    secret_files_dir: Path | None = None
    """Directory of the source `files`: `<tenant>/<name>` below it."""

    @field_validator("broker_url")
    @classmethod
    def _is_a_broker_of_ours(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            scheme = url.get_secret_value().partition("://")[0]
            if scheme.lower() not in BROKER_SCHEMES:
                allowed = ", ".join(f"{name}://" for name in BROKER_SCHEMES)
                raise ValueError(f"no such kind of broker; it begins with one of {allowed}")
        return url

    @field_validator("api_cors_origins")
    @classmethod
    def _are_origins(cls, text: str) -> str:
        for origin in filter(None, text.split(",")):
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(
                    f"{origin!r}: an origin is https://host or http://host:port, exactly as a"
                    " browser sends it: small letters, no path, no wildcard"
                )
        return text

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        for network in filter(None, text.split(",")):
            ip_network(network)
        return text

    @field_validator("host_labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not LABEL_NAME.fullmatch(name) or len(value) > LABEL_CHARS or "\0" in value:
                raise ValueError(
                    f"{name!r}: a label's name is of letters, digits and . _ : - (at most 100),"
                    f" its value of at most {LABEL_CHARS} characters"
                )
        return labels

    @property
    def database_address(self) -> str:
        """Return the database's URL."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.home / 'leasehold.db').absolute()}"

    @property
    def secret_keys_path(self) -> Path:
        """Return the file of the keys that encrypt secrets, which may not exist yet."""
        return (self.secret_keys_file or self.home / "secret-keys").absolute()

    @property
    def store_address(self) -> str:
        """Return where workspaces and artifacts are kept."""
        return self.store_url or str((self.home / "store").absolute())

    @property
    def host_home(self) -> Path:
        """Return the directory of this host's id and sandboxes."""
        return (self.host_root or self.home / "host").absolute()


def _unknown(names: set[str]) -> set[str]:
    known = {name.upper() for name in Settings.model_fields} | _NOT_OURS
    return {
        name
        for name in names - known
        if "_PORT" not in name and "_SERVICE_" not in name and not name.endswith("_PORT")
    }


def load(**overrides: Any) -> Settings:
    """
    Read the environment.

    Raises:
        BadInputError: A setting is wrong or unknown; names it and what is allowed.
    """
    ours = {name.removeprefix(PREFIX) for name in os.environ if name.startswith(PREFIX)}
    if unknown := _unknown(ours):
        first = min(unknown)
        allowed = ", ".join(PREFIX + name.upper() for name in sorted(Settings.model_fields))
        raise BadInputError(f"{PREFIX}{first}: no such setting; allowed: {allowed}")
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = PREFIX + "_".join(str(part) for part in problem["loc"]).upper()
        raise BadInputError(f"{name}: {problem['msg']}", field=name) from None


_DURATION_MODEL: Final = create_model("Duration", value=(timedelta, ...))


def as_timedelta(value: Any) -> timedelta:
    """Return a duration given as seconds or ISO 8601 text."""
    duration: timedelta = getattr(_DURATION_MODEL(value=value), "value")  # noqa: B009
    return duration
