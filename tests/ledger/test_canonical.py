from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ledger import canonical
from ledger.canonical import MAX_INTEGER, parse, scan
from ledger.errors import MalformedError
from tests.support.vectors import VECTORS, load

CASES = load("canonical-json.json")

# Characters that strings may have, some that they may not, and some that compose with each other.
letters = st.sampled_from('abz"\\/ \n~0é—ŷ😀·가\U0001f600\ue000')
doubtful = st.sampled_from(
    "e\u0301\u0327\u0338=\u1100\u1161\x00\x1f\x7f\x85\t\r\u2028\u202e\ufeff\uffff\u0378\U0001df25"
)
texts = st.text(letters, min_size=1, max_size=12) | st.text(
    st.characters(codec="utf-8"), min_size=1, max_size=6
)
names = st.from_regex(r"[a-z][a-z0-9_]{0,10}", fullmatch=True)
scalars = texts | st.booleans() | st.integers(0, MAX_INTEGER) | st.sampled_from([0, 1, MAX_INTEGER])


def nested(of: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(of, min_size=1, max_size=3) | st.dictionaries(names, of, min_size=1, max_size=3)


objects = st.dictionaries(names, st.recursive(scalars, nested, max_leaves=8), min_size=1, max_size=5)

wrong_scalars: st.SearchStrategy[Any] = st.sampled_from(
    [None, -1, 1.5, 1.0, 2**53, 2**64, 10**30, "", [], {}]
) | st.text(letters | doubtful, max_size=8)
wrong_names = names | st.sampled_from(["", "A", "é", "1a", "a-b", "a" * 64, "a" * 65, "withheld", "a\n"])
doubtful_objects = st.dictionaries(
    wrong_names,
    st.recursive(
        scalars | wrong_scalars,
        lambda of: st.lists(of, max_size=3) | st.dictionaries(wrong_names, of, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


pieces = st.sampled_from(
    [
        *rb"""\n \t \ " , : { } [ ] 0 - .0 e1 null true "a":1,""".split(),
        *(b"", b" ", b"\n", b"\t", b"\x00", b"\x7f", b"\xcc\x81", b"\xff", b"\xef\xbb\xbf"),
    ]
)


def outcome(read: Any, data: bytes) -> tuple[str, Any]:
    try:
        return "accepted", read(data)
    except MalformedError as error:
        return "refused", (str(error), error.offset)


@pytest.mark.parametrize("case", CASES["accept"], ids=lambda case: case["name"])
def test_what_the_vectors_accept_is_accepted(case: dict[str, str]) -> None:
    """If false, a lawful record cannot be registered (formats.md, section 1)."""
    data = bytes.fromhex(case["hex"])
    assert parse(data) == scan(data) == json.loads(data)
    assert canonical.format(parse(data)) == data


@pytest.mark.parametrize("case", CASES["refuse"], ids=lambda case: case["name"])
def test_what_the_vectors_refuse_is_refused_at_a_byte(case: dict[str, str]) -> None:
    """If false, one meaning has two spellings, or a reader is misled (formats.md, section 1)."""
    data = bytes.fromhex(case["hex"])
    for read in (parse, scan):
        with pytest.raises(MalformedError) as caught:
            read(data)
        assert caught.value.offset is not None
        assert str(caught.value).startswith(f"byte {caught.value.offset}: ")


@pytest.mark.parametrize("path", sorted((VECTORS / "records").glob("*.json")), ids=lambda path: path.stem)
def test_every_example_record_is_canonical(path: Path) -> None:
    """If false, the records of formats.md cannot be registered."""
    data = path.read_bytes()
    assert parse(data) == scan(data) == json.loads(data)
    assert canonical.format(parse(data)) == data


@pytest.mark.parametrize(
    ("data", "offset", "message"),
    [
        (b'{"a":1,"b":2,"a":3}', 13, 'member "a" stands twice'),
        (b'{"a":1,"c":2,"b":3}', 13, 'member "b" must stand before "c"'),
        (b'{"a":{"b":[1,null]}}', 13, "a.b[1]: null is not allowed"),
        (b'{"a":1.5}', 5, "a: a number with a fraction or an exponent"),
        (b'{"a":1E5}', 5, "a: a number with a fraction or an exponent"),
        (b'{"a":1.}', 5, "a: a number with a fraction or an exponent"),
        (b'{"a":-1}', 5, "a: a negative number"),
        (b'{"a":9007199254740992}', 5, "a: an integer is at least 0 and at most 9007199254740991"),
        (b'{"a":' + b"9" * 5000 + b"}", 5, "a: an integer is at least 0"),
        (b'{"a":007}', 5, "a: a number has no leading zero"),
        (b'{"a": 1}', 5, "white space is not allowed"),
        (b' {"a":1}', 0, "an object was expected; white space"),
        (b'{"a":1}\n', 7, "something follows the object; white space"),
        (b'{"a":1}x', 7, "something follows the object; found 'x'"),
        (b'{"a":1', 0, "no '}' closes what starts here"),
        (b'{"a":[1', 5, "a: no ']' closes what starts here"),
        (b'{"a":"x', 5, "a: no quotation mark ends the string"),
        (b'{"a', 1, "no quotation mark ends the string"),
        (b'{"a"', 4, "':' was expected; the text ends here"),
        (b'{"a":', 5, "a: a value was expected; the text ends here"),
        (b'{"a":NaN}', 5, "a: a value was expected; found 'N'"),
        (b'{"a":1;"b":2}', 6, "',' or '}' was expected; found ';'"),
        (b'{"a":truely}', 9, "',' or '}' was expected; found 'l'"),
        (b"{a:1}", 1, "a member name was expected; found 'a'"),
        (b'{"a":1,}', 7, "a member name was expected; found '}'"),
        (b'{"":1}', 1, '"" is not a member name'),
        (b'{"a":{"A":1}}', 6, 'a: "A" is not a member name'),
        (b'{"' + b"a" * 65 + b'":1}', 1, "is not a member name"),
        (b'{"a":""}', 5, "a: an empty string is not allowed"),
        (b'{"a":[]}', 5, "a: an empty array is not allowed"),
        (b'{"a":{}}', 5, "a: an empty object is not allowed"),
        (b"{}", 0, "an empty object is not allowed"),
        (b"", 0, "an object was expected; the text ends here"),
        (b"null", 0, "an object was expected; found 'n'"),
        ('{"a":"é\u202eb"}'.encode(), 8, "a: misleading character U+202E is not allowed"),
        ('{"a":"😀\u0378"}'.encode(), 10, "a: U+0378 is not an assigned character of Unicode 14.0"),
        ('{"é":1,"a":"x"}'.encode(), 1, '"\\xe9" is not a member name'),
        ('{"a":"éx e\u0301"}'.encode(), 10, "a: text must be in Unicode normalization form C"),
        ('{"a":"a\u0301\u0323"}'.encode(), 6, "a: text must be in Unicode normalization form C"),
        (b'{"a":"x\x7f"}', 7, "a: control character U+007F is not allowed"),
        (b'{"a":"x\ty"}', 7, "a: control character U+0009 is not allowed"),
        (b'{"a":"\\u00e9"}', 6, r"a: escape \u00e9 is not allowed; only \n, \" and \\ are"),
        (b'{"a":"\\\\\\t"}', 8, r"a: escape \t is not allowed"),
        (b'{"a":"\\', 5, "a: no quotation mark ends the string"),
        (b'{"a":"\xc3\xa9\xff"}', 8, "not UTF-8"),
        (b'{"a":"\xc3"}', 6, "not UTF-8"),
        (b"\xff\xfe", 0, "not UTF-8"),
        (b'{"a":' + b"[" * 16 + b"1" + b"]" * 16 + b"}", 20, "nest at most 16 deep"),
        (b'{"a":' * 60_000, 80, "nest at most 16 deep"),
        (b'{"a":' + b"[" * 60_000, 20, "nest at most 16 deep"),
        (b'{"withheld":{"Title":"x"}}', 13, 'withheld: "Title" is not the path of a withheld field'),
        (b'{"withheld":{"a":{"b/0":"x"}}}', 18, 'withheld.a: "b/0" is not a member name'),
        (b'{"a":{"withheld":{"b/0":"x"}}}', 18, 'a.withheld: "b/0" is not a member name'),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(data: bytes, offset: int, message: str) -> None:
    """If false, a department's programmer has to guess which byte broke which rule."""
    with pytest.raises(MalformedError) as caught:
        parse(data)
    assert caught.value.offset == offset
    assert str(caught.value).startswith(f"byte {offset}: ")
    assert message in str(caught.value)


def test_marks_out_of_order_are_refused_without_being_put_in_order() -> None:
    """To order them takes quadratic time in one call of C: seconds for these, and nothing else runs."""

    def seconds(marks: int) -> float:
        text = "a" + "\u0301" * marks + "\u0323" * marks
        began = time.process_time()
        with pytest.raises(MalformedError, match="normalization form C") as caught:
            canonical.parse(f'{{"a":"{text}"}}'.encode())
        assert caught.value.offset == 6
        return time.process_time() - began

    # Eight times the marks: 64 times the time if they were ordered, some eight times if they are only read.
    assert min(seconds(24_000) for _ in range(3)) < 30 * min(seconds(3_000) for _ in range(5))


def test_a_refusal_is_printable_and_short_whatever_was_sent() -> None:
    """If false, a record can write control characters or kilobytes into logs and terminals."""
    name = "\u202e\u001b[31m".encode() + b"x" * 60_000
    with pytest.raises(MalformedError) as caught:
        parse(b'{"a":{"' + b"b" * 64 + b'":{"' + name + b'":1}}}')
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300
    with pytest.raises(MalformedError) as caught:
        parse(b'{"' + b"x" * 60_000 + b'":1}')
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "path", ["title", "participants/0", "participants/10.name", "procurement.supplier", "a/0.b/1.c", "w" * 64]
)
def test_the_paths_of_withheld_fields_are_names_there(path: str) -> None:
    """If false, a withheld field cannot be registered (formats.md, section 4)."""
    data = b'{"withheld":{"%s":"x"}}' % path.encode()
    assert parse(data) == scan(data) == {"withheld": {path: "x"}}


@pytest.mark.parametrize(
    "path",
    ["", ".", "a.", ".a", "a..b", "a/", "a/01", "a/-1", "a/0/1", "a/x", "A", "a.B", "w" * 65, "a/0b", "é"],
)
def test_anything_else_is_not_a_path(path: str) -> None:
    """If false, a withheld digest stands under a name that no disclosure can match."""
    data = b'{"withheld":{"%s":"x"}}' % path.encode()
    for read in (parse, scan):
        with pytest.raises(MalformedError):
            read(data)


@given(objects)
def test_what_is_formatted_parses_back(value: dict[str, Any]) -> None:
    """If false, a record that our own client writes is refused, or read as something else."""
    try:
        data = canonical.format(value)
    except MalformedError:
        assume(False)
        raise
    assert parse(data) == value
    assert scan(data) == value
    assert data == json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@settings(max_examples=300)
@given(doubtful_objects)
def test_both_readings_agree_about_any_json(value: dict[str, Any]) -> None:
    """If false, the fast reading accepts what the rules refuse, or refuses without saying why."""
    data = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assert outcome(parse, data) == outcome(scan, data)
    try:
        formatted = canonical.format(value)
    except MalformedError:
        assert outcome(parse, data)[0] == "refused"
    else:
        assert outcome(parse, formatted) == ("accepted", value)


@settings(max_examples=300)
@given(objects, st.data())
def test_both_readings_agree_about_any_damage(value: dict[str, Any], data: st.DataObject) -> None:
    """If false, some spelling gets past the fast reading: a second record with one meaning."""
    whole = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    at = data.draw(st.integers(0, len(whole)))
    until = data.draw(st.integers(at, min(len(whole), at + 3)))
    damaged = whole[:at] + data.draw(pieces | st.binary(max_size=2)) + whole[until:]
    assert outcome(parse, damaged) == outcome(scan, damaged)


@settings(max_examples=300)
@given(st.text(st.characters(codec="utf-8") | letters | doubtful, min_size=1, max_size=20))
@example("\u0338")  # composes with "=" and "<" but with no quotation mark
@example("\u0301e")
def test_both_readings_agree_about_any_text(text: str) -> None:
    """If false, looking at all strings at once differs from looking at each."""
    data = b'{"a":%s,"b":%s}' % (json.dumps(text, ensure_ascii=False).encode(), json.dumps(text).encode())
    assert outcome(parse, data) == outcome(scan, data)
    data = b'{"a":%s}' % json.dumps(text, ensure_ascii=False).encode()
    assert outcome(parse, data) == outcome(scan, data)


@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_any_bytes_are_refused_or_round_trip(data: bytes) -> None:
    """If false, some input raises another error than MalformedError, or has two spellings."""
    kind, value = outcome(parse, data)
    assert (kind, value) == outcome(scan, data)
    if kind == "accepted":
        assert canonical.format(value) == data


@given(objects, st.data())
def test_any_flipped_bit_changes_the_meaning_or_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    """If false, two byte strings mean one record, and one of them was never signed."""
    whole = json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()
    assume(outcome(parse, whole)[0] == "accepted")
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    kind, result = outcome(parse, bytes(flipped))
    assert kind == "refused" or result != value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "an empty object"),
        ({"a": {"b": [1, None]}}, r"a\.b\[1\]: null is not allowed"),
        ({"a": 1.0}, "a: a number with a fraction"),
        ({"a": -1}, "a: an integer is at least 0"),
        ({"a": 2**53}, "a: an integer is at least 0"),
        ({"a": [""]}, r"a\[0\]: an empty string"),
        ({"a": [[]]}, r"a\[0\]: an empty array"),
        ({"a": [{}]}, r"a\[0\]: an empty object"),
        ({"a": [-1]}, r"a\[0\]: an integer"),
        ({"a": (1, 2)}, "a: a tuple has no canonical JSON"),
        ({"a": b"x"}, "a: a bytes has no canonical JSON"),
        ({1: "x"}, '"1" is not a member name'),
        ({"A": "x"}, '"A" is not a member name'),
        ({"withheld": {1: "x"}}, 'withheld: "1" is not the path'),
        ({"a": "\ud800"}, r"surrogate U\+D800 is not allowed"),
        ({"a": "\t"}, r"escape \\t is not allowed"),
        ({"a": "\x7f"}, r"control character U\+007F"),
        ({"a": "e\u0301"}, "normalization form C"),
        ({"a": "\u2028"}, r"misleading character U\+2028"),
    ],
)
def test_a_value_outside_the_rules_is_not_written(value: dict[str, Any], message: str) -> None:
    """If false, our own client signs bytes that registration refuses."""
    with pytest.raises(MalformedError, match=message):
        canonical.format(value)


def test_depth_is_counted_alike_in_reading_and_writing() -> None:
    """If false, a record can be written that cannot be read, or the reverse."""
    value: dict[str, Any] = {"a": 1}
    for _ in range(15):
        value = {"a": value}
    assert parse(canonical.format(value)) == value
    with pytest.raises(MalformedError, match="nest at most 16 deep"):
        canonical.format({"a": value})
    with pytest.raises(MalformedError, match="nest at most 16 deep"):
        parse(b'{"a":' + canonical.format(value) + b"}")


def test_remembered_names_do_not_pile_up() -> None:
    """If false, a sender of ever new member names fills the memory."""
    for number in range(10_000):
        parse(b'{"n%d":1}' % number)
    assert len(canonical._known_names) <= canonical._MAX_KNOWN_NAMES
