"""Records from files: what a cell means, and an error that says where."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import canonical
from ledger.errors import LedgerError, MalformedError, Reason, RejectedError
from ledger.records import parse_record
from services.client.tabular import PATHS, Fields, Position, read_csv, read_records, reference_id
from services.demo import curated

REGISTER = "department-for-synthetic-affairs/secretary-of-state"
VECTORS = Path(__file__).parents[2] / "vectors" / "records"
DATA = Path(curated.__file__).parent / "data"
ID = "1168b4da-721e-452a-abad-d256e13d742c"
OTHER_ID = "a8222494-1071-4ad7-8c1e-11fe48df34ed"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where a CSV file of the test goes."""
    return tmp_path / "decisions.csv"


def fields_of(path: Path, content: str | bytes) -> list[Fields]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [fields for _, fields in read_csv(path)]


def records_of(path: Path, content: str | bytes, register: str = REGISTER) -> list[bytes]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [data for _, data in read_records(path, register)]


# Cells


def test_a_column_is_a_path_of_the_record(path: Path) -> None:
    """False if a nested member or a list item lands elsewhere than its header says."""
    header = "title,decision_maker.office,classification.descriptors/0,classification.descriptors/1"
    header += ",evidence/0.kind,evidence/1.kind,relations/0.target.uri"
    assert fields_of(path, f"{header}\nT,o,A,B,email,pdf,x\n") == [
        {
            "title": "T",
            "decision_maker": {"office": "o"},
            "classification": {"descriptors": ["A", "B"]},
            "evidence": [{"kind": "email"}, {"kind": "pdf"}],
            "relations": [{"target": {"uri": "x"}}],
        }
    ]


def test_an_empty_cell_is_an_absent_member(path: Path) -> None:
    """False if an empty cell becomes an empty string, which no record may hold, or an empty object."""
    header = "title,procurement.value.amount,procurement.value.currency,language/0,evidence/0.kind"
    assert fields_of(path, f"{header}\nT,,,,\n") == [{"title": "T"}]


def test_numbers_and_bools_have_the_type_of_their_field(path: Path) -> None:
    """False if a number reaches the record as a string, or a string of digits as a number."""
    header = "reference.number,reference.series,classification.sensitive,participants/0.external"
    assert fields_of(path, f"{header}\n7,2024,TRUE,false\n") == [
        {
            "reference": {"number": 7, "series": "2024"},
            "classification": {"sensitive": True},
            "participants": [{"external": False}],
        }
    ]


def test_a_cell_is_taken_as_it_stands(path: Path) -> None:
    """False if text is trimmed or changed on the way, except for the line ends of the spreadsheet."""
    assert fields_of(path, 'title,rationale\n" a ","one, two\r\n""three"""\n') == [
        {"title": " a ", "rationale": 'one, two\n"three"'}
    ]


def test_blank_rows_are_passed_over_and_counted(path: Path) -> None:
    """False if trailing blank rows are records, or row numbers differ from the spreadsheet's."""
    path.write_text("title,reason\nA,x\n,\n\nB,y\n , \n")
    assert [(position.number, fields["title"]) for position, fields in read_csv(path)] == [(2, "A"), (5, "B")]


def test_a_withheld_path_is_one_member_name(path: Path) -> None:
    """False if the path inside `withheld` is taken apart: its digest would name no field."""
    digest = "0" * 64
    assert fields_of(path, f"withheld.participants/0.name\n{digest}\n") == [
        {"withheld": {"participants/0.name": digest}}
    ]


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Spell a record as header and cells, independently of the reader."""
    if isinstance(value, dict):
        pairs = [flat(inner, f"{path}.{name}" if path else name) for name, inner in value.items()]
    elif isinstance(value, list):
        pairs = [flat(inner, f"{path}/{index}") for index, inner in enumerate(value)]
    else:
        return {path: value}
    return {name: inner for found in pairs for name, inner in found.items()}


CELLS = {
    "text": st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1),
    "uint": st.integers(min_value=0, max_value=2**53 - 1),
    "bool": st.booleans(),
}


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    """Cells by header: some paths, each list filled from item 0."""
    paths = draw(st.lists(st.sampled_from(sorted(PATHS)), min_size=1, max_size=12, unique=True))
    row: dict[str, Any] = {}
    for pattern in paths:
        for index in range(draw(st.integers(1, 3)) if "*" in pattern else 1):
            row[pattern.replace("*", str(index))] = draw(CELLS[PATHS[pattern].value])
    return {header: row[header] for header in draw(st.permutations(list(row)))}


@given(rows())
def test_any_cells_come_back_from_the_record(
    tmp_path_factory: pytest.TempPathFactory, row: dict[str, Any]
) -> None:
    """False if some header or text is read into another place, type or spelling than was written."""
    path = tmp_path_factory.mktemp("csv") / "any.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(row)
        writer.writerow(str(cell).lower() if isinstance(cell, bool) else cell for cell in row.values())
    if not any(str(cell).strip() for cell in row.values()):
        assert list(read_csv(path)) == []
        return
    ((position, fields),) = read_csv(path)
    assert flat(fields) == row
    assert str(position) == "any.csv, row 2"


@given(st.binary(max_size=200), st.sampled_from([".csv", ".json", ".ndjson"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, suffix: str
) -> None:
    """False if some file makes the reader fail with an error that is not the ledger's."""
    path = tmp_path_factory.mktemp("any") / f"any{suffix}"
    path.write_bytes(data)
    try:
        for _, record in read_records(path, REGISTER, reference_id):
            canonical.parse(record)
    except LedgerError as error:
        assert path.name in str(error)  # noqa: PT017


# Errors of a CSV file


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "decisions.csv: empty file"),
        (
            "title,titel\n",
            "decisions.csv, row 1, column 2: 'titel' is no path of a record; did you mean 'title'?",
        ),
        ("decision_maker.name\n", "column 1: 'decision_maker.name' is no path of a record: names of persons"),
        ("title,title\n", "decisions.csv, row 1, column 2: 'title' is column 1 already"),
        ("evidence/00.kind\n", "column 1: 'evidence/00.kind' is no path of a record"),
        ("evidence.kind\n", "column 1: 'evidence.kind' is no path of a record"),
        ("evidence/*.kind\n", "column 1: 'evidence/*.kind' is no path of a record"),
        ("procurement\n", "column 1: 'procurement' is no path of a record"),
        ("decision_maker.name\n", "column 1: 'decision_maker.name' is no path of a record"),
        ("withheld.\n", "column 1: 'withheld.' is no path of a record"),
        (" title\n", "column 1: ' title' is no path of a record"),
        ("title;reason\n", "row 1: separated by semicolons; save the file as CSV with commas"),
        ("title\treason\n", "row 1: separated by tabs; save the file as CSV with commas"),
        ("title,reason\nA,b\nA\n", "decisions.csv, row 3: 1 cells under a header of 2"),
        ("title,reason\nA,b,c\n", "decisions.csv, row 2: 3 cells under a header of 2"),
        ("title,\nA,b\n", "decisions.csv, row 2, column 2: a value in a column without a name"),
        ('title\n"A\n', "decisions.csv, line 2: unexpected end of data"),
        ("title\nA\rB\n", "decisions.csv, line 2: new-line character seen in unquoted field"),
    ],
)
def test_a_malformed_file_is_refused_with_the_place(path: Path, content: str, message: str) -> None:
    """False if a file that is not CSV of records is read all the same, or the error does not say where."""
    with pytest.raises(MalformedError) as caught:
        fields_of(path, content)
    assert message in str(caught.value)


def test_every_bad_cell_of_a_row_is_named_at_once(path: Path) -> None:
    """False if a clerk must run the file again for each mistake of a row."""
    header = "reference.number,classification.sensitive,evidence/0.size,evidence/1.size,language/1"
    with pytest.raises(RejectedError) as caught:
        fields_of(path, f"{header}\n1,true,,,\n01,yes,5.0,2,en\n")
    assert caught.value.reason is Reason.INVALID_FIELD
    assert str(caught.value).startswith("decisions.csv, row 3: ")
    assert {violation.field: violation.description for violation in caught.value.violations} == {
        "reference.number": "'01' is not a whole number",
        "classification.sensitive": "'yes' is neither true nor false",
        "evidence/0.size": "'5.0' is not a whole number",
        "language/0": "empty although item 1 is not; fill a list from item 0",
    }


def test_a_gap_in_a_list_inside_a_list_is_named_by_its_path(path: Path) -> None:
    """False if a list of objects with a gap closes up, so that items change their index."""
    with pytest.raises(RejectedError) as caught:
        fields_of(path, "evidence/0.kind,evidence/2.kind\nemail,pdf\n")
    assert [violation.field for violation in caught.value.violations] == ["evidence/1"]


@pytest.mark.parametrize("suffix", [".csv", ".json", ".ndjson"])
def test_windows_1252_is_refused_by_name(tmp_path: Path, suffix: str) -> None:
    """False if a file of another encoding is read as garbled text, or the error does not help."""
    path = tmp_path / f"decisions{suffix}"
    with pytest.raises(MalformedError, match=r"byte \d+ \(0xa3\) is not UTF-8; .* Windows-1252"):
        records_of(path, b'{"title":"\xa35m"}\n')


def test_the_line_and_byte_of_another_encoding_are_told(path: Path) -> None:
    """False if the place of the first wrong byte in a long file must be searched by hand."""
    with pytest.raises(MalformedError) as caught:
        fields_of(path, b"title\nplain\n\xa35m\n")
    assert str(caught.value).startswith("decisions.csv, line 3: byte 1 (0xa3) is not UTF-8")


def test_utf_16_is_refused_by_name(path: Path) -> None:
    """False if a spreadsheet's 'Unicode text' gives an error about Windows-1252."""
    with pytest.raises(MalformedError, match="line 1: UTF-16; save the file as UTF-8"):
        fields_of(path, "title\nA\n".encode("utf-16"))


@pytest.mark.parametrize("suffix", [".csv", ".json", ".ndjson"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, suffix: str) -> None:
    """False if a file saved by a spreadsheet is refused, or the mark becomes part of the first name."""
    path = tmp_path / f"decisions{suffix}"
    content = f"record_id,title\n{ID},T\n" if suffix == ".csv" else json.dumps({"record_id": ID, "title": "T"})
    (data,) = records_of(path, b"\xef\xbb\xbf" + content.encode())
    assert json.loads(data)["title"] == "T"


# JSON


@pytest.mark.parametrize("suffix", [".json", ".ndjson"])
@pytest.mark.parametrize(
    "name", ["decision.registered", "decision.corrected", "decision.withdrawn", "return.filed"]
)
def test_canonical_bytes_stay_as_they_are(tmp_path: Path, name: str, suffix: str) -> None:
    """False if a record that a department has hashed already is changed on its way to the signature."""
    data = (VECTORS / f"{name}.json").read_bytes()
    assert records_of(tmp_path / f"record{suffix}", data) == [data]


def test_other_spellings_are_formatted_canonically(tmp_path: Path) -> None:
    """False if indented JSON with other escapes does not give the one canonical spelling."""
    data = (VECTORS / "decision.registered.json").read_bytes()
    spelled = json.dumps(dict(reversed(json.loads(data).items())), indent=2, ensure_ascii=True)
    assert records_of(tmp_path / "record.json", spelled.encode() + b"\r\n") == [data]


def test_an_array_and_lines_are_the_same_records(tmp_path: Path) -> None:
    """False if the three JSON forms of a file differ in what they register."""
    records = [(VECTORS / f"decision.registered{suffix}.json").read_bytes() for suffix in ("", "-minimal")]
    assert records_of(tmp_path / "a.json", b"[" + b",\n".join(records) + b"]") == records
    assert records_of(tmp_path / "a.ndjson", b"\n\n".join(records) + b"\n \n") == records
    assert [str(position) for position, _ in read_records(tmp_path / "a.ndjson", REGISTER)] == [
        "a.ndjson, line 1",
        "a.ndjson, line 3",
    ]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.json", "", "a.json: not JSON: Expecting value at column 1"),
        ("a.json", '{"title":\n}', "a.json: not JSON: Expecting value at line 2 column 1"),
        ("a.json", '[{"record_id":"x"},3]', "a.json, record 2: not an object"),
        ("a.json", '"x"', "a.json, record 1: not an object"),
        ("a.json", '{"title":"a","title":"b"}', "a.json: not JSON of a record: member 'title' stands twice"),
        ("a.json", "[" * 100_000, "a.json: not JSON"),
        ("a.ndjson", '\n{"title":}\n', "a.ndjson, line 2: not JSON: Expecting value at column 10"),
        ("a.ndjson", '{"record_id":"x","version":1,"title":1.5}', "a.ndjson, line 1: "),
        ("a.ndjson", '{"record_id":"x","title":null}', "a.ndjson, line 1: "),
        ("a.ndjson", '{"record_id":"x","title":"\\ud800"}', "a.ndjson, line 1: "),
        ("a.ndjson", '{"record_id":"x","count":9007199254740992}', "a.ndjson, line 1: "),
        ("a.txt", "", "a.txt: not .csv, .json or .ndjson"),
    ],
)
def test_what_is_not_a_record_is_refused_with_the_place(
    tmp_path: Path, file: str, content: str, message: str
) -> None:
    """False if something that canonical JSON cannot say is dropped or rounded, or the place is missing."""
    with pytest.raises(MalformedError) as caught:
        records_of(tmp_path / file, content)
    assert str(caught.value).startswith(message)


# Members that a file may leave out


def test_type_version_and_register_are_filled_in(path: Path) -> None:
    """False if the simplest file needs columns that can only hold one value."""
    (data,) = records_of(path, f"record_id,title\n{ID},T\n")
    assert canonical.parse(data) == {
        "record_id": ID,
        "register": REGISTER,
        "title": "T",
        "type": "decision.registered/1",
        "version": 1,
    }


def test_a_record_of_another_register_is_refused(path: Path) -> None:
    """False if a row meant for one office can be signed into another's register."""
    with pytest.raises(RejectedError, match=r"row 2: register: 'a/b' is not") as caught:
        records_of(path, f"record_id,register\n{ID},a/b\n")
    assert caught.value.reason is Reason.WRONG_REGISTER


def test_a_version_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """False if `true` passes for version 1."""
    with pytest.raises(RejectedError, match="line 1: version: not a whole number"):
        records_of(tmp_path / "a.ndjson", f'{{"record_id":"{ID}","version":true}}')


def test_a_missing_record_id_is_refused(path: Path) -> None:
    """False if an id is drawn at random, so that a repeated run registers the decision twice."""
    with pytest.raises(RejectedError, match="row 2: record_id: missing") as caught:
        records_of(path, "title\nT\n")
    assert [violation.field for violation in caught.value.violations] == ["record_id"]


def test_an_id_and_version_stand_once_in_a_file(path: Path) -> None:
    """False if two rows with one id are sent, of which the ledger would keep one."""
    with pytest.raises(RejectedError, match="row 4: record_id: row 2 has this") as caught:
        records_of(path, f"record_id,title\n{ID},A\n{OTHER_ID},B\n{ID},C\n")
    assert caught.value.reason is Reason.DUPLICATE_IN_SUBMISSION


def test_a_correction_may_follow_in_the_same_file(tmp_path: Path) -> None:
    """False if version 2 of a record is taken for a repetition of version 1."""
    names = ("decision.registered", "decision.corrected")
    lines = [(VECTORS / f"{name}.json").read_bytes() for name in names]
    assert records_of(tmp_path / "a.ndjson", b"\n".join(lines)) == lines


def test_an_id_derived_from_the_reference_is_the_same_on_every_run(path: Path) -> None:
    """False if resuming after an interruption gives a decision a second id."""
    path.write_text("reference.series,reference.number,title\nMD/2024,7,T\n")
    first, again = (list(read_records(path, REGISTER, reference_id)) for _ in range(2))
    assert first == again
    preimage = f"daybook.record_id/1\n{REGISTER}\nMD/2024\n7\n".encode()
    expected = bytearray(hashlib.sha256(preimage).digest()[:16])
    expected[6] = expected[6] & 0x0F | 0x80
    expected[8] = expected[8] & 0x3F | 0x80
    assert canonical.parse(first[0][1])["record_id"].replace("-", "") == expected.hex()


def test_derived_ids_differ_by_register_series_and_number() -> None:
    """False if two decisions can meet in one id."""
    base = {"type": "decision.registered/1", "version": 1, "register": REGISTER}
    ids = {
        reference_id({**base, "reference": {"series": series, "number": number}, **register})
        for series in ("MD/2024", "MD/202")
        for number in (7, 47)
        for register in ({}, {"register": "a/b"})
    }
    assert len(ids) == 8


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"type": "return.filed/1"},
        {"reference": {"series": "MD"}},
        {"reference": {"series": "MD", "number": True}},
        {"reference": "MD-7"},
    ],
)
def test_no_id_is_derived_for_what_may_have_another(change: dict[str, Any]) -> None:
    """False if a later version or a return gets an id that its record may not have."""
    base = {"type": "decision.registered/1", "version": 1, "register": REGISTER}
    with pytest.raises(RejectedError, match="only for version 1 of a decision"):
        reference_id({**base, "reference": {"series": "MD", "number": 7}, **change})


def test_a_refused_derivation_names_the_row(path: Path) -> None:
    """False if the row without a reference must be searched by hand."""
    path.write_text("title\nT\n")
    with pytest.raises(RejectedError, match=r"decisions\.csv, row 2: record_id: an id can be derived only"):
        list(read_records(path, REGISTER, reference_id))


# The shipped example


def test_the_shipped_example_is_accepted() -> None:
    """False if the file that the README tells a reader to copy would be refused."""
    found = list(read_records(DATA / "example-decisions.csv", REGISTER))
    assert [position for position, _ in found] == [
        Position("example-decisions.csv", "row", number) for number in (2, 3, 4)
    ]
    for _, data in found:
        parse_record(data)
    minute = (DATA / "example-minute.txt").read_bytes()
    (evidence,) = canonical.parse(found[0][1])["evidence"]
    assert evidence["sha256"] == hashlib.sha256(minute).hexdigest()
    assert evidence["size"] == len(minute)


def test_the_paths_are_those_of_the_record_types() -> None:
    """False if a field of a department's record has no column, or a withheld name has one."""
    assert len(PATHS) == 99
    assert {path for path, kind in PATHS.items() if kind.value == "bool"} == {
        "classification.sensitive",
        "foi.title_closed",
        "nil_return",
        "participants/*.external",
        "significant",
        "taken_back",
    }
    assert {path for path, kind in PATHS.items() if kind.value == "uint"} == {
        "count",
        "evidence/*.size",
        "first",
        "foi.closure_years",
        "last",
        "previous.version",
        "reference.number",
        "relations/*.target.version",
        "stage.scheme_version",
        "version",
    }
    assert not {"participants/*.name", "decision_maker.name", "withheld", "evidence"} & set(PATHS)
