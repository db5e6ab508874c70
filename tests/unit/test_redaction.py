"""Values of secrets in output, whatever way it is cut into pieces."""

import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold.domain.redaction import NOTHING, Redactor, needles_of

VALUE = "s3cr3t/+ value&=é"


def through(redactor: Redactor, data: bytes, cuts: list[int]) -> bytes:
    """Store `data` as looks do that each see it up to one more cut, from the stored offset."""
    kept = b""
    for end in [*sorted(cuts), len(data)]:
        at = max(0, len(kept) - redactor.context)
        seen = data[at:end]
        kept += redactor.stored(seen, skip=len(kept) - at, final=end == len(data))
    return kept


@given(
    values=st.lists(st.text("ab", min_size=4, max_size=9), min_size=1, max_size=3),
    text=st.text("ab", max_size=60),
    cuts=st.lists(st.integers(0, 60), max_size=6),
)
def test_however_output_is_cut_it_is_hidden_as_if_it_came_whole(
    values: list[str], text: str, cuts: list[int]
) -> None:
    redactor, data = Redactor.of(values), text.encode()
    whole = redactor.hide(data)
    assert through(redactor, data, [min(cut, len(data)) for cut in cuts]) == whole
    assert len(whole) == len(data)
    for value in values:
        assert value.encode() not in whole


@given(text=st.text("ab", min_size=100, max_size=200), step=st.integers(1, 20))
def test_a_value_that_overlaps_itself_for_ever_does_not_stop_the_output(
    text: str, step: int
) -> None:
    redactor, data = Redactor.of(["aaaa"]), text.encode().replace(b"b", b"a")
    at, kept = 0, b""
    while at < len(data):
        at = min(at + step + redactor.context, len(data))
        begin = max(0, len(kept) - redactor.context)
        new = redactor.stored(data[begin:at], skip=len(kept) - begin, final=False)
        assert new or at - len(kept) <= redactor.context
        kept += new
    assert len(data) - len(kept) <= redactor.context
    assert set(kept) == {ord("*")}


@pytest.mark.parametrize("lead", ["", "a", "ab", "abc", "abcd"])
@pytest.mark.parametrize("safe", [True, False])
def test_base64_is_hidden_wherever_the_value_begins_in_it(lead: str, *, safe: bool) -> None:
    encode = base64.urlsafe_b64encode if safe else base64.b64encode
    text = encode(f"{lead}{VALUE}tail".encode())
    hidden = Redactor.of([VALUE]).hide(text)
    # At most the two groups at the borders may tell of the value's own first and last bytes.
    assert hidden.count(b"*") >= len(VALUE.encode()) * 4 // 3 - 4
    assert len(hidden) == len(text)


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        quote(VALUE, safe=""),
        quote(VALUE),
        quote_plus(VALUE),
        quote(VALUE, safe="").lower().replace("S3CR3T", "s3cr3t"),
        json.dumps(VALUE)[1:-1],
        json.dumps(VALUE, ensure_ascii=False)[1:-1],
    ],
)
def test_every_usual_form_is_hidden(text: str) -> None:
    assert Redactor.of([VALUE]).hide_text(f"<{text}>") == "<***>"
    data = f"<{text}>".encode()
    assert Redactor.of([VALUE]).hide(data) == b"<" + b"*" * (len(data) - 2) + b">"


def test_the_lines_of_a_key_are_hidden_by_themselves() -> None:
    lines = ["-----BEGIN KEY-----", "c29tZXRoaW5nIGxvbmc=", "short", "-----END KEY-----"]
    hidden = Redactor.of(["\n".join(lines) + "\n"]).hide_text(f"2: {lines[1]} 3: {lines[2]}")
    assert hidden == "2: *** 3: short"


def test_what_is_too_short_is_not_looked_for() -> None:
    assert needles_of("abc") == needles_of(" abc \n") == set()
    assert Redactor.of(["abc"]).hide(b"abc") == b"abc"


def test_names_and_values_of_json_are_hidden() -> None:
    redactor = Redactor.of(["hunter2!"])
    value = {"a hunter2!": ["x hunter2!", 1, None, {"b": "hunter2!"}]}
    assert redactor.hide_json(value) == {"a ***": ["x ***", 1, None, {"b": "***"}]}


def test_nothing_to_hide_costs_and_changes_nothing() -> None:
    assert NOTHING.context == 0
    assert NOTHING.stored(b"plain", skip=0, final=False) == b"plain"
    assert NOTHING.hide_text("plain") == "plain"
