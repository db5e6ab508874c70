"""Server-Sent Events out of bytes, however they are cut."""

import pytest

from leasehold.client.messages import Message, messages

TEXT = (
    "retry: 1000\n\n"
    ": alive\n\n"
    'id: 1.2.0\ndata: {"text":"a\u2028b\x85c\x1c"}\n\n'
    'event: end\r\nid: 1.2.0:end\r\ndata: {"status":"ö"}\r\n\r\n'
).encode()
FOUND = [
    Message("", None, None),
    Message("", "1.2.0", '{"text":"a\u2028b\x85c\x1c"}'),
    Message("end", "1.2.0:end", '{"status":"ö"}'),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_messages_are_the_same_however_they_come(size: int) -> None:
    pieces = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    assert list(messages(pieces)) == FOUND


def test_what_is_cut_off_is_no_message() -> None:
    for end in range(len(TEXT)):
        assert list(messages([TEXT[:end]])) == FOUND[: len(list(messages([TEXT[:end]])))]
    assert list(messages([b'id: 1\ndata: {"text":"a"}\n'])) == []
