"""
What a person may ask for, checked at the border.

Durations come in as seconds or as text (``90``, ``"90s"``, ``"10m"``, ``"1h30m"``, ``"7d"``).
Every refusal is a `BadInputError` that names the field, what came and what is allowed.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    PlainSerializer,
    Tag,
    model_validator,
)
from pydantic import ValidationError as PydanticError

from leasehold.domain import variables
from leasehold.domain.durations import parse_duration
from leasehold.domain.lifecycle import LeasePolicy
from leasehold.domain.repositories import NO_CREDENTIALS, has_credentials
from leasehold.domain.secrets import NAME_PATTERN
from leasehold.errors import BadInputError

SETUP: Final = -1
"""The index of the set-up command: before the first."""

MAX_COMMANDS: Final = 100
MAX_PLACE: Final = 4000
MAX_ARGV_BYTES: Final = 1024 * 1024
MAX_STDIN_BYTES: Final = 4 * 1024 * 1024
MAX_OUTPUT_CAP_BYTES: Final = 1024**3
_ENV_NAME: Final = r"^[A-Za-z_][A-Za-z0-9_]*$"
_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}$"


def _no_nul(value: Any) -> Any:
    if isinstance(value, str) and "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _stays_inside(value: Any) -> Any:
    if isinstance(value, str) and (
        "\0" in value or value[:1] in "/!" or ".." in value.split("/")
    ):
        raise ValueError("must be a pattern of paths below the working directory")
    return value


def _is_a_place(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not 0 < len(value) <= MAX_PLACE:
        raise ValueError(f"must be a path of 1 to {MAX_PLACE} characters")
    if "\0" in value or ".." in value.split("/"):
        raise ValueError("must be a path that does not lead upwards: no `..` in it")
    if not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value):
        raise ValueError("must be a path in UTF-8")
    return value


Seconds = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, le=366 * 86400, allow_inf_nan=False),
    PlainSerializer(lambda seconds: seconds, return_type=float),
]
Text = Annotated[str, BeforeValidator(_no_nul)]
Glob = Annotated[str, BeforeValidator(_stays_inside), Field(min_length=1, max_length=1000)]
Place = Annotated[str, BeforeValidator(_is_a_place)]
"""A path in the sandbox; whether an absolute one is inside, its provider knows."""

EnvName = Annotated[str, Field(pattern=_ENV_NAME, max_length=256)]
Name = Annotated[str, Field(pattern=_NAME)]
SecretName = Annotated[str, Field(pattern=NAME_PATTERN)]
Requires = dict[Name, Annotated[Text, Field(max_length=255)]]


class Spec(BaseModel):
    """Base of all specs: unknown fields are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _is_none(value: Any) -> bool:
    return value is None


class SecretRef(Spec):
    """The name of a secret; its value is put in this place by a worker, at use."""

    secret: SecretName


_TEXT, _REF = "(text)", "(reference)"


def _kind_of(value: Any) -> str:
    return _REF if isinstance(value, Mapping | SecretRef) else _TEXT


EnvValue = Annotated[
    Annotated[Text, Tag(_TEXT)] | Annotated[SecretRef, Tag(_REF)], Discriminator(_kind_of)
]


def plain_env(env: Mapping[str, str | SecretRef]) -> dict[str, Any]:
    """Return variables as JSON, references as ``{"secret": NAME}``."""
    return {
        name: value.model_dump() if isinstance(value, SecretRef) else value
        for name, value in env.items()
    }


class CommandSpec(Spec):
    """One command; `argv` is handed over as it is, no shell reads it."""

    argv: tuple[Text, ...] = Field(min_length=1)
    cwd: Text | None = None
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    stdin: str = Field(default="", max_length=MAX_STDIN_BYTES * 4 // 3 + 4)
    """Base64, since JSON holds no bytes."""


class TreeSpec(Spec):
    """The tree of files that a run works on: packed in the store, or to be cloned."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """SHA-256 of the packed tree in the store."""

    bytes: int = Field(default=0, ge=0)
    files: int = Field(default=0, ge=0)
    git: Text | None = Field(default=None, max_length=2000, min_length=1)
    """A repository's URL; a worker clones it."""

    credential: SecretRef | None = Field(default=None, exclude_if=_is_none)
    """What opens it: for https `USER:PASSWORD` or a token, for ssh a private key."""

    known_hosts: Text | None = Field(
        default=None, min_length=1, max_length=20_000, exclude_if=_is_none
    )
    """The keys of its ssh server, as in a known_hosts file; by default the worker's own."""

    ref: Text | None = Field(
        default=None, max_length=200, pattern=r"^[A-Za-z0-9_][^\s~^:?*\[\\]*$"
    )

    @model_validator(mode="after")
    def _is_one_of_two(self) -> Self:
        if (self.digest is None) == (self.git is None):
            raise ValueError("give a digest or a git URL")
        if self.ref is not None and self.git is None:
            raise ValueError("a ref belongs to a git URL")
        if self.git is None and (self.credential or self.known_hosts):
            raise ValueError("credential and known_hosts belong to a git URL")
        return self


class CopySpec(Spec):
    """What `leasehold cp` brings into a sandbox; the worker sees there where it goes."""

    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of what lies in the store: the file as it is, or a packed tree."""

    bytes: int = Field(ge=0)
    to: Place
    name: Annotated[Place, Field(pattern=r"^[^/]+$")] | None = None
    """What the one source is called, if `to` is a directory; None: it goes into `to` itself."""

    is_file: bool = False
    executable: bool = False
    to_directory: bool = False
    """`to` must be a directory already: there are several sources, or it ends with a slash."""


class RunSpec(Spec):
    """What one run is to do."""

    commands: tuple[CommandSpec, ...] = Field(min_length=1, max_length=MAX_COMMANDS)
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    timeout_s: Seconds | None = None
    """Of one execution; none by default."""

    grace_s: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=600)] = 10.0
    queue_timeout_s: Seconds | None = None
    start_timeout_s: Seconds | None = None
    deadline_s: Seconds | None = None
    retries: int = Field(default=0, ge=0, le=100)
    max_infra_attempts: int = Field(default=5, ge=1, le=100)
    idempotent: bool = False
    """True: after a loss with an unknown fate the command may be started again."""

    priority: int = Field(default=5, ge=0, le=9)
    """9 first."""

    labels: dict[Name, Text] = Field(default_factory=dict, max_length=64)
    requires: Requires = Field(default_factory=dict, max_length=64)
    """Labels that the host must have, beside those that the environment requires."""

    workspace: Text | None = Field(default=None, max_length=1000, min_length=1)
    """Its name: what scopes reuse, and what one run at a time works on."""

    tree: TreeSpec | None = None
    setup: CommandSpec | None = None
    """Prepares the sandbox before the first command; not repeated on an unchanged tree."""

    setup_timeout_s: Seconds = 600.0
    artifacts: tuple[Glob, ...] = Field(default=(), max_length=100)
    """Which files are kept when the last command is over."""

    sync_back: bool = False
    """Keep what the run changed in its tree, too."""

    # Left out of what is stored and hashed unless it is used: a key that was given to an
    # earlier version must still mean the same request.
    copy_in: CopySpec | None = Field(default=None, exclude_if=_is_none)
    """What is put into the sandbox before the first command, over what is there."""

    copy_out: Place | None = Field(default=None, exclude_if=_is_none)
    """What is kept when the last command is over: this one file, or all below a directory."""

    output_cap_bytes: int = Field(default=16 * 1024 * 1024, ge=0, le=MAX_OUTPUT_CAP_BYTES)

    def blob(self) -> str | None:
        """Return the digest of what it names in the store."""
        if self.copy_in is not None:
            return self.copy_in.digest
        return None if self.tree is None else self.tree.digest

    def secret_names(self) -> set[str]:
        """Return the secrets that its variables name."""
        every = (*self.commands, *([self.setup] if self.setup else []))
        given = (self.env, *(command.env for command in every))
        return {
            value.secret
            for env in given
            for value in env.values()
            if isinstance(value, SecretRef)
        }

    @model_validator(mode="after")
    def _copies_and_nothing_else(self) -> Self:
        if self.copy_in is not None and (self.tree is not None or self.setup is not None):
            raise ValueError("copy_in goes with no tree and no setup")
        if self.copy_out is not None and (self.artifacts or self.sync_back):
            raise ValueError("copy_out goes with no artifacts and no sync_back")
        return self

    @model_validator(mode="after")
    def _has_a_tree_to_compare(self) -> Self:
        if self.sync_back and (self.tree is None or self.tree.digest is None):
            raise ValueError("sync_back needs a packed tree to compare with")
        return self

    @property
    def moves_files(self) -> bool:
        """Whether files go into the sandbox or come out of it."""
        return self.tree is not None or self.copy_in is not None or self.collects

    @property
    def collects(self) -> bool:
        return bool(self.artifacts) or self.sync_back or self.copy_out is not None

    def command(self, index: int) -> CommandSpec:
        """Return a command of the run; `SETUP` is the one before the first."""
        if index != SETUP:
            return self.commands[index]
        assert self.setup is not None
        return self.setup

    def timeout_of(self, index: int) -> float | None:
        """Return how long a command may take, in seconds."""
        return self.setup_timeout_s if index == SETUP else self.timeout_s


class EnvironmentLimits(Spec):
    max_concurrent: int | None = Field(default=None, ge=1, le=100_000)
    """Sandboxes of this environment at once."""


class EnvironmentSpec(Spec):
    """A named place where work may run."""

    name: Name
    provider: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
    description: Text = Field(default="", max_length=2000)
    config: dict[str, Any] = Field(default_factory=dict)
    env: dict[EnvName, EnvValue] = Field(default_factory=dict)
    policy: LeasePolicy = LeasePolicy.EPHEMERAL
    limits: EnvironmentLimits = EnvironmentLimits()
    requires: Requires = Field(default_factory=dict, max_length=64)
    """Labels that a host must have to make sandboxes of it."""

    idle_ttl_s: Seconds | None = None
    retained_ttl_s: Seconds | None = None


SpecT = TypeVar("SpecT", bound=Spec)


def parse(kind: type[SpecT], value: Any) -> SpecT:
    """
    Build a spec from outside data.

    Raises:
        BadInputError: Names the first field that is wrong, the kind of value that came and
            what is allowed.
    """
    try:
        spec = kind.model_validate(value)
    except PydanticError as error:
        raise refusal(kind, error.errors(include_url=False)[0]) from None
    _check_sizes(spec)
    _check_variables(spec)
    _check_urls(spec)
    return spec


def refusal(kind: Any, problem: Mapping[str, Any], *, skip: int = 0) -> BadInputError:
    """
    Return what pydantic found wrong in our words.

    Args:
        kind: What was to be built; its fields are named to who gave an unknown one.
        problem: One of pydantic's errors.
        skip: How many parts of its path are not of the value itself.
    """
    path = tuple(problem["loc"][skip:])
    field = ".".join(str(part) for part in path if part not in {_TEXT, _REF})
    field = field or ("body" if skip else kind.__name__)
    came = "nothing" if problem["type"] == "missing" else type(problem.get("input")).__name__
    message = problem["msg"].removeprefix("Value error, ")
    text = f"{field}: {message} (got {came})"
    if problem["type"] == "extra_forbidden":
        text = f"{field}: there is no such field"
        if isinstance(kind, type) and issubclass(kind, Spec):
            text += f"; allowed here: {', '.join(sorted(_spec_at(kind, path).model_fields))}"
    return BadInputError(text, field=field)


def _spec_at(kind: type[Spec], path: tuple[int | str, ...]) -> type[Spec]:
    """Return the spec that holds the field at the end of `path`."""
    for part in path[:-1]:
        field = kind.model_fields.get(str(part))
        kind = (_spec_in(field.annotation) if field else None) or kind
    return kind


def _spec_in(annotation: Any) -> type[Spec] | None:
    """Return the spec that a field holds, itself or as the items of a tuple."""
    if inner := get_args(annotation):
        return next((found for item in inner if (found := _spec_in(item))), None)
    is_spec = isinstance(annotation, type) and issubclass(annotation, Spec)
    return annotation if is_spec else None


def _check_variables(spec: Spec) -> None:
    """Refuse what no provider takes; not in the fields, so that stored rows stay readable."""
    given: dict[str, Mapping[str, object]] = {}
    if isinstance(spec, RunSpec | EnvironmentSpec):
        given["env"] = spec.env
    if isinstance(spec, RunSpec):
        given |= {f"commands.{at}.env": one.env for at, one in enumerate(spec.commands)}
    for where, env in given.items():
        if (refused := variables.first_refusal(env)) is not None:
            field = f"{where}.{refused[0]}"
            raise BadInputError(f"{field}: {refused[1]}", field=field)


def _check_urls(spec: Spec) -> None:
    """Refuse what would be stored and shown; likewise not in the fields."""
    if not isinstance(spec, RunSpec):
        return
    given = {"workspace": spec.workspace, "tree.git": spec.tree.git if spec.tree else None}
    for field, url in given.items():
        if url is not None and has_credentials(url):
            raise BadInputError(f"{field}: the URL {NO_CREDENTIALS}", field=field)


def _check_sizes(spec: Spec) -> None:
    if not isinstance(spec, RunSpec):
        return
    for index, command in enumerate(spec.commands):
        size = sum(len(part.encode(errors="surrogateescape")) + 1 for part in command.argv)
        if size > MAX_ARGV_BYTES:
            raise BadInputError(
                f"commands.{index}.argv: {size} bytes in all; at most {MAX_ARGV_BYTES}",
                field=f"commands.{index}.argv",
            )
        if not command.argv[0]:
            raise BadInputError(
                f"commands.{index}.argv.0: the command's name is empty",
                field=f"commands.{index}.argv.0",
            )
