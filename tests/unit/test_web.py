"""Output as coloured text, history as bars, schemas as forms: without a server."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from leasehold.errors import BadInputError
from leasehold.web import ansi, inputs, timeline
from leasehold.web.rendering import duration, output, size, ticks


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("plain", [("", "plain")]),
        ("\x1b[31mred\x1b[0m not", [("c1", "red"), ("", " not")]),
        ("\x1b[1;4;92mx", [("c10 bold underline", "x")]),
        ("\x1b[38;5;9mx\x1b[39my", [("c9", "x"), ("", "y")]),
        ("\x1b[38;5;200mx", [("", "x")]),
        ("\x1b[38;2;1;2;3;1mx", [("bold", "x")]),
        ("\x1b[38:5:1mx", [("c1", "x")]),
        ("\x1b[44mx\x1b[49m", [("b4", "x")]),
        ("\x1b[2J\x1b[Hx\x1b]0;title\x07y", [("", "x"), ("", "y")]),
        ("a\x00\x08b\x7f", [("", "a"), ("", "b")]),
        ("\x1b[999999999999mx", [("", "x")]),
        ("\x1b[38mx", [("", "x")]),
        ("end\x1b[", [("", "end")]),
    ],
)
def test_colours_are_kept_and_all_other_sequences_dropped(
    text: str, spans: list[tuple[str, str]]
) -> None:
    assert list(ansi.spans(text)) == spans


@given(some.text(alphabet="\x1b[]0123456789;:m<>&\"'\r\nax\x07", max_size=300))
def test_no_text_becomes_markup_or_leaves_a_control_character(text: str) -> None:
    shown = str(output(text))
    assert "\x1b" not in shown
    assert "\r" not in shown
    without = shown.replace("</span>", "")
    assert "<" not in without.replace("<span class=", "")


def test_long_lines_are_cut_and_progress_bars_written_over() -> None:
    assert ansi.shortened("10%\r50%\r100%\r\nnext") == "100%\nnext"
    cut = ansi.shortened("x" * (ansi.LINE_CHARS + 5) + "\ny")
    assert "5 more characters in the download" in cut
    assert cut.endswith("\ny")


def event(at: int, name: str, **data: Any) -> dict[str, Any]:
    return {"at": f"2026-01-01T00:00:{at:02}.000000Z", "name": name, "data": data}


def test_a_step_that_begins_again_was_handed_over() -> None:
    events = [
        event(0, "run.queued"),
        event(2, "run.running"),
        event(3, "step.execute.started"),
        event(5, "step.execute.started"),
        event(6, "step.execute.failed", message="no luck"),
        event(6, "step.execute.started"),
        event(8, "step.execute.finished"),
        event(8, "step.heartbeat.started"),
    ]
    bars = timeline.of({"events": events}, now="2026-01-01T00:00:10.000000Z")
    assert [(bar.name, bar.seconds, bar.outcome) for bar in bars] == [
        ("queued", 2, "done"),
        ("waits for a worker", 1, "done"),
        ("execute", 2, "handed over"),
        ("execute", 1, "failed"),
        ("execute", 2, "done"),
        ("heartbeat", 2, "goes on"),
    ]
    assert bars[3].note == "no luck"
    assert (bars[0].x, bars[0].width) == (0, 200)
    assert all(bar.x + bar.width <= timeline.WIDTH for bar in bars)


def test_a_run_without_history_has_no_bars() -> None:
    assert timeline.of({"events": []}, now="2026-01-01T00:00:10Z") == []


SCHEMA: dict[str, Any] = {
    "required": ["host"],
    "properties": {
        "port": {"type": "integer", "default": 22, "minimum": 1},
        "host": {"type": "string"},
        "key": {"x-leasehold-secret": True, "anyOf": []},
        "labels": {"type": "object", "additionalProperties": {"type": "string"}},
        "odd": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "share": {"type": "number"},
    },
}


def test_a_schema_becomes_inputs_with_what_is_required_first() -> None:
    found = {one.name: one.kind for one in inputs.of(SCHEMA)}
    assert found == {"host": "text", "port": "integer", "key": "secret", "labels": "pairs",
                     "odd": "json", "share": "number"}  # fmt: skip
    assert next(iter(found)) == "host"


def test_a_form_becomes_a_config_without_what_is_empty() -> None:
    form = {"config.host": [" h "], "config.port": ["2"], "config.key": ["ssh"],
            "config.labels": ["a=1\r\nb=\r\n"], "config.odd": ["null"], "config.share": [""],
            "config.unknown": ["x"]}  # fmt: skip
    assert inputs.config(SCHEMA, form) == {
        "host": "h",
        "port": 2,
        "key": {"secret": "ssh"},
        "labels": {"a": "1", "b": ""},
        "odd": None,
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [("port", "x"), ("port", "1.5"), ("share", "much"), ("labels", "=1"), ("odd", "{")],
)
def test_a_text_that_its_field_is_not_for_names_the_field(name: str, text: str) -> None:
    with pytest.raises(BadInputError) as refused:
        inputs.config(SCHEMA, {f"config.{name}": [text]})
    assert refused.value.field == f"config.{name}"


def test_numbers_are_shown_for_people() -> None:
    assert [duration(s) for s in (None, 0.25, 1, 90, 7200, 200_000)] == [
        "\N{EN DASH}", "250 ms", "1 s", "1.5 min", "2 h", "2.31 d",
    ]  # fmt: skip
    assert [size(n) for n in (5, 2048, 3 << 20, 5 << 40)] == ["5 B", "2 KiB", "3 MiB", "5 TiB"]
    assert str(ticks("run `a <b>` now")) == "run <code>a &lt;b&gt;</code> now"
