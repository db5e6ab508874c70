"""
How a plugin says that a field of its config is a secret.

What is stored in SQL is a reference, ``{"secret": "NAME"}``; the worker puts the value in its
place before `acquire` and every later call. `validate` may see either: the reference where the
config is submitted, the value where it is used.
"""

from typing import Final

from leasehold.provider.shapes import Json

SECRET_KEYWORD: Final = "x-leasehold-secret"  # noqa: S105  a keyword
"""The schema keyword whose value is true where the field is a secret."""


def secret_field(description: str) -> Json:
    """Return the schema of a field that holds a secret's value, or a reference to it."""
    return {
        "description": description,
        SECRET_KEYWORD: True,
        "anyOf": [
            {
                "type": "object",
                "properties": {
                    "secret": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$"}
                },
                "required": ["secret"],
                "additionalProperties": False,
            },
            {"type": "string", "minLength": 1},
        ],
    }
