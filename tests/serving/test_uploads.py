"""Files of people: which of their columns a model is asked, and what comes back."""

import pytest

from onrecord.errors import BodyTooLarge, InvalidInput
from onrecord.serving.uploads import open_upload

ANSWERS = b"id,prediction\r\na,0\r\nb,1\r\n"


def test_a_file_with_the_models_columns_in_any_order_is_asked_as_it_is() -> None:
    body = b"\xef\xbb\xbf\nb,a\n1,2\n"

    assert open_upload(body, max_rows=10).body_for({"a": "a", "b": "b"}) is body


def test_a_missing_cell_and_an_empty_string_stay_apart() -> None:
    upload = open_upload(b'x,note\n1,\n2,""\n', max_rows=10)

    assert upload.body_for({"text": "note"}) == b'text\r\n\r\n""\r\n'
    assert upload.scored(ANSWERS) == (b'x,note,prediction_id,prediction\r\n1,,a,0\r\n2,"",b,1\r\n')


def test_what_has_quotes_commas_or_line_breaks_is_written_as_one_cell() -> None:
    upload = open_upload(b'x,"a ""b"", c"\r\n1,"two\r\nlines"\r\n2,"say ""no"""\r\n', max_rows=10)

    assert upload.names == ("x", 'a "b", c')
    assert upload.body_for({"y": 'a "b", c'}) == (b'y\r\n"two\r\nlines"\r\n"say ""no"""\r\n')


def test_a_column_that_stands_twice_can_be_kept_and_not_chosen() -> None:
    upload = open_upload(b"a,n,n\n1,2,3\n4,5,6\n", max_rows=10)

    assert upload.body_for({"a": "a"}) == b"a\r\n1\r\n4\r\n"
    assert upload.scored(ANSWERS, header=False) == b"1,2,3,a,0\r\n4,5,6,b,1\r\n"
    with pytest.raises(InvalidInput) as refused:
        upload.body_for({"a": "a", "b": "n", "c": "none"})
    assert [fault.pointer for fault in refused.value.faults] == ["/b", "/c"]


def test_one_column_may_be_two_features() -> None:
    upload = open_upload(b"n\n7\n", max_rows=10)

    assert upload.body_for({"a": "n", "b": "n"}) == b"a,b\r\n7,7\r\n"


@pytest.mark.parametrize("body", [b"", b"\n\n", b'a,"b\n1,2', b"\xff", b"PAR1", b"PAR1" * 9])
def test_what_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises((InvalidInput, BodyTooLarge)):
        open_upload(body, max_rows=10)
