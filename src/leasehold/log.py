"""Structured logging: one event name per line, ids bound once, no secret, no output."""

import logging
import sys
from collections.abc import Sequence
from typing import Final, TypeAlias

import structlog

Logger: TypeAlias = structlog.stdlib.BoundLogger
_LEVELS: Final = frozenset({"debug", "info", "warning", "error", "critical"})
_TEXT_MAX: Final = 500
_HIDE_FROM: Final = 4


def get_logger(name: str) -> Logger:
    """Return a logger; the caller's ids come from `structlog.contextvars`."""
    logger: Logger = structlog.get_logger(name)
    return logger


class OneLine(logging.Handler):
    """What libraries say through `logging`, as one line of ours each."""

    def emit(self, record: logging.LogRecord) -> None:
        text = " ".join(record.getMessage().split())
        if record.exc_info and record.exc_info[0] is not None:
            text = f"{text} ({record.exc_info[0].__name__}: {record.exc_info[1]})"
        level = record.levelname.lower()
        say = getattr(structlog.get_logger(), level if level in _LEVELS else "warning")
        say("library.says", library=record.name, text=text[:_TEXT_MAX])


class _Stderr:
    """Standard error as it is now, not as it was when a logger was made."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


_hidden: list[tuple[str, ...]] = [()]
"""Texts that no line shows: the values of secrets that are in this process's memory."""


def hide(values: Sequence[str]) -> None:
    """Let no line show these values from now on; the last call counts."""
    texts = {part for value in values for part in (value, *value.splitlines())}
    _hidden[0] = tuple(
        sorted((t for t in texts if len(t) >= _HIDE_FROM), key=len, reverse=True)
    )


def without_secrets(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    if _hidden[0]:
        for name, value in line.items():
            if not isinstance(value, int | float | None):
                line[name] = _covered(value if isinstance(value, str) else repr(value))
    return line


def _covered(text: str) -> str:
    for value in _hidden[0]:
        text = text.replace(value, "***")
    return text


def configure(*, level: str = "INFO", as_json: bool = False) -> None:
    """Send every log line to stderr; once per process, at its door."""
    root = logging.getLogger()
    if not any(isinstance(handler, OneLine) for handler in root.handlers):
        root.addHandler(OneLine())
    # Celery tells of every message at INFO; our own lines say what matters.
    root.setLevel(logging.INFO if level == "DEBUG" else logging.WARNING)
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if as_json
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            without_secrets,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(file=_Stderr()),  # type: ignore[arg-type]  # all that it needs
        cache_logger_on_first_use=True,
    )


def join() -> None:
    """
    Say what is to be said through `logging`, in a process that is not ours.

    Nothing changes for one that has configured structlog, before this or after.
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            structlog.processors.format_exc_info,
            without_secrets,
            structlog.processors.KeyValueRenderer(key_order=["event"]),
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
