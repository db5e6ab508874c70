"""Variables that would act on the programs between us and the command are refused, with why."""

from typing import Any

import pytest

from leasehold.domain.specs import EnvironmentSpec, RunSpec, parse
from leasehold.domain.variables import RULES, first_refusal, refusal
from leasehold.errors import BadInputError, ConfigRejectedError
from leasehold.provider import Command
from leasehold.provider.supervisor import Place, check_command, start_input

LOADER = ["LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "LD_DEBUG", "LD_ANYTHING_NEW"]
LIBRARY = ["GCONV_PATH", "GLIBC_TUNABLES", "LOCPATH", "MALLOC_TRACE"]
SHELL = ["BASH_ENV", "ENV", "PS4", "BASH_FUNC_ls", "IFS", "SHELLOPTS", "BASHOPTS", "UID"]
TAKEN = [
    "PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ", "LDFLAGS", "LD", "ENVIRONMENT", "APP_ENV",
    "PYTHONPATH", "PYTHONSTARTUP", "NODE_OPTIONS", "PERL5OPT", "PERL5LIB", "RUBYOPT",
    "JAVA_TOOL_OPTIONS", "MALLOC_ARENA_MAX", "BASH", "PS1", "ld_preload",
]  # fmt: skip


@pytest.mark.parametrize("name", [*LOADER, *LIBRARY, *SHELL])
def test_a_refusal_names_the_variable_the_reason_and_the_way_out(name: str) -> None:
    why = refusal(name)
    assert why is not None
    assert f"variable {name} is refused: " in why
    assert any(rule.reason in why for rule in RULES)
    assert f"env {name}=... COMMAND" in why


@pytest.mark.parametrize("name", TAKEN)
def test_what_concerns_the_command_alone_is_taken(name: str) -> None:
    assert refusal(name) is None


def test_the_first_that_is_refused_is_told() -> None:
    assert first_refusal({"A": "1", "B": "2"}) is None
    found = first_refusal({"A": "1", "LD_AUDIT": "x", "ENV": "y"})
    assert found is not None
    assert found[0] == "LD_AUDIT"


@pytest.mark.parametrize("name", ["LD_PRELOAD", "BASH_ENV", "IFS"])
@pytest.mark.parametrize(
    ("kind", "where"), [(RunSpec, "env"), (RunSpec, "commands.1.env"), (EnvironmentSpec, "env")]
)
def test_the_border_refuses_it_wherever_it_stands(kind: Any, where: str, name: str) -> None:
    given = {"PLAIN": "1", name: "the-value"}
    body: dict[str, Any] = {"name": "e", "provider": "local"}
    if kind is RunSpec:
        body = {"commands": [{"argv": ["true"]}, {"argv": ["true"]}]}
    inside = body["commands"][1] if where.startswith("commands") else body
    inside["env"] = given
    with pytest.raises(BadInputError) as caught:
        parse(kind, body)
    assert caught.value.field == f"{where}.{name}"
    assert str(caught.value) == f"{where}.{name}: {refusal(name)}"
    assert "the-value" not in str(caught.value)


def test_a_row_that_was_stored_before_can_still_be_read() -> None:
    stored = {"commands": [{"argv": ["true"]}], "env": {"LD_PRELOAD": "x"}}
    assert RunSpec.model_validate(stored).env == {"LD_PRELOAD": "x"}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "BASH_FUNC_ls%%", "ENV", "PPID"])
def test_the_supervisor_refuses_it_too(name: str) -> None:
    command = Command(argv=("true",), env={"A": "1", name: "the-value"})
    with pytest.raises(ConfigRejectedError, match=f"variable {name} is refused") as caught:
        check_command(command)
    assert "the-value" not in str(caught.value)
    with pytest.raises(ConfigRejectedError):
        start_input(command, Place(control="/c", cwd="/w"), execution_id="x", fence=1)
