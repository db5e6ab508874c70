"""
A run as fields of a form, both ways; pure.

What a run may be, its spec decides where it is submitted; here only texts become values.
"""

import shlex
from collections.abc import Mapping
from typing import Any, Final

from leasehold.errors import BadInputError
from leasehold.web.inputs import pairs

SCRIPT: Final = "script"
PROGRAM: Final = "program"
_DIGITS: Final = 9
_SHELL: Final = ("sh", "-c")
_LINES: Final = {
    "labels": "K=V",
    "env": "NAME=VALUE",
    "secrets": "NAME=SECRET",
    "requires": "K=V",
}
_NUMBERS: Final = ("retries", "priority")
_TEXTS: Final = ("workspace", "timeout_s")
_OF_SPEC: Final = {"commands": "command", "tree": "git"}
"""What fields of a spec are called in the form, where that is something else."""

Form = Mapping[str, list[str]]


def text_of(form: Form, name: str) -> str:
    return "".join(form.get(name, [])[:1]).replace("\r\n", "\n").strip()


def field_of(field: str | None) -> str | None:
    """Return the form's field for one that a spec refuses."""
    if field is None:
        return None
    head = field.partition(".")[0]
    return {"tree.ref": "ref", "tree.credential": "credential"}.get(
        ".".join(field.split(".")[:2]), _OF_SPEC.get(head, head)
    )


def body(form: Form) -> dict[str, Any]:
    """
    Return the run that a form says; a field that is left empty is not in it.

    Raises:
        BadInputError: A text is not what its field is for.
    """
    found: dict[str, Any] = {"commands": _commands(form), **_values(form)}
    named = {name: _named(form, name, shape) for name, shape in _LINES.items()}
    references = {name: {"secret": one.strip()} for name, one in named.pop("secrets").items()}
    named["env"] |= references
    found |= {name: values for name, values in named.items() if values}
    if tree := _tree(form):
        found["tree"] = tree
    if "git" in tree:
        # Runs of one tree may reuse what it left: it is called as its repository.
        found.setdefault("workspace", tree["git"])
    return found


def _values(form: Form) -> dict[str, Any]:
    texts = {name: text for name in _TEXTS if (text := text_of(form, name))}
    numbers = {
        name: int(text) if text.isdecimal() and len(text) < _DIGITS else text
        for name in _NUMBERS
        if (text := text_of(form, name))
    }
    return {**texts, **numbers, **({"idempotent": True} if text_of(form, "idempotent") else {})}


def _named(form: Form, name: str, shape: str) -> dict[str, Any]:
    try:
        return dict(pairs(text_of(form, name)))
    except ValueError as error:
        raise BadInputError(
            f"{name}: must be lines of {shape}, got {str(error)[:80]!r}", field=name
        ) from None


def _tree(form: Form) -> dict[str, Any]:
    tree: dict[str, Any] = {
        name: text for name in ("git", "ref") if (text := text_of(form, name))
    }
    if secret := text_of(form, "credential"):
        tree["credential"] = {"secret": secret}
    return tree


def _commands(form: Form) -> list[dict[str, Any]]:
    text = text_of(form, "command")
    if not text:
        raise BadInputError("command: is required", field="command")
    if text_of(form, "kind") == SCRIPT:
        return [{"argv": [*_SHELL, text]}]
    found = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            found.append({"argv": shlex.split(line)})
        except ValueError as error:
            why = str(error).lower()
            raise BadInputError(f"command: line {number}: {why}", field="command") from None
    return [one for one in found if one["argv"]] or _nothing()


def _nothing() -> list[dict[str, Any]]:
    raise BadInputError("command: must name a program", field="command")


def fields(spec: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return the fields that would make a run like this one, without its variables' values."""
    argvs = [list(one["argv"]) for one in spec["commands"]]
    first = argvs[0]
    is_script = len(argvs) == 1 and tuple(first[:-1]) == _SHELL
    tree = spec.get("tree") or {}
    found = {
        "kind": SCRIPT if is_script else PROGRAM,
        "command": first[-1] if is_script else "\n".join(map(shlex.join, argvs)),
        "workspace": "" if tree.get("git") else spec.get("workspace") or "",
        "git": tree.get("git") or "",
        "ref": tree.get("ref") or "",
        "credential": (tree.get("credential") or {}).get("secret", ""),
        "labels": _as_lines(spec.get("labels")),
        "requires": _as_lines(spec.get("requires")),
        "secrets": _as_lines(
            {
                name: value["secret"]
                for name, value in (spec.get("env") or {}).items()
                if isinstance(value, Mapping)
            }
        ),
        "timeout_s": f"{spec['timeout_s']:g}" if spec.get("timeout_s") else "",
        "retries": str(spec.get("retries") or ""),
        "priority": str(spec.get("priority", "")),
        "idempotent": "yes" if spec.get("idempotent") else "",
    }
    return {name: [text] for name, text in found.items()}


def _as_lines(named: Mapping[str, str] | None) -> str:
    return "\n".join(f"{name}={value}" for name, value in (named or {}).items())
