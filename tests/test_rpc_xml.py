"""XML-RPC: calls are read as clients write them, and strictly; replies are read as clients read them."""

from __future__ import annotations

import xmlrpc.client

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskd.errors import InvalidRequest, ParseError, WireError, XenApiError
from taskd.model import DateTime
from taskd.rpc import xml

Json = object

texts = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))
values = st.recursive(
    st.booleans() | texts | st.integers(-(2**31), 2**31 - 1) | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=10,
)


def call(params: str, method: str = "task.x") -> bytes:
    return f"<methodCall><methodName>{method}</methodName><params>{params}</params></methodCall>".encode()


def param(value: str) -> bytes:
    return call(f"<param><value>{value}</value></param>")


def read(body: bytes, max_depth: int = 100) -> xml.Call:
    return xml.read(body, max_depth)


def got(body: bytes) -> Json:
    """What Python's client has of a reply."""
    return xmlrpc.client.loads(body)[0][0]


@settings(deadline=None)
@given(st.lists(values, max_size=3))
def test_a_call_of_pythons_client_is_read_as_it_was_meant(args: list[Json]) -> None:
    body = xmlrpc.client.dumps(tuple(args), "task.create").encode()  # type: ignore[arg-type]  # a list is one

    assert read(body) == xml.Call("task.create", tuple(args))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("untagged", "untagged"),
        ("<string/>", ""),
        ("", ""),
        ("<i4>-7</i4>", -7),
        ("<i8>9223372036854775807</i8>", 2**63 - 1),
        ("<boolean>1</boolean>", True),
        ("<double>0.5</double>", 0.5),
        ("<nil/>", None),
        ("<array><data/></array>", []),
        ("<struct/>", {}),
        ("&lt;&#13;&amp;", "<\r&"),
        ("<dateTime.iso8601>20260101T12:00:00Z</dateTime.iso8601>", "20260101T12:00:00Z"),
    ],
)
def test_each_type_is_read_as_json_has_it(text: str, value: Json) -> None:
    (arg,) = read(param(text)).args

    assert (type(arg) is DateTime) == ("dateTime" in text)
    assert arg == value


def test_a_call_without_params_is_one() -> None:
    assert read(b"<methodCall><methodName>m</methodName></methodCall>") == xml.Call("m", ())
    assert read(b'<?xml version="1.0" encoding="iso-8859-1"?>' + call("")) == xml.Call("task.x", ())


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize(
    "start", [BOMB, OUTSIDE, '<!DOCTYPE x SYSTEM "http://x/x.dtd">', "<!DOCTYPE methodCall>"], ids=range(4)
)
def test_a_document_type_and_entities_are_refused(start: str) -> None:
    with pytest.raises(ParseError, match="a document type and entities are not read"):
        read(start.encode() + param("&b;"))


@pytest.mark.parametrize(
    "body",
    [b"", b"hunter2", b"<methodCall>", b"<a></b>", b"\x1f\x8b\x08\x00hunter2", param("\x00"), param("&hunter2;")],
)
def test_what_is_no_xml_is_refused_by_place_and_never_quoted(body: bytes) -> None:
    with pytest.raises(ParseError, match=r"no XML: .*line \d+, column \d+") as refused:
        read(body)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "body",
    [
        b"<html/>",
        b"<methodCall/>",
        b"<methodCall><params/></methodCall>",
        b"<methodResponse><methodName>m</methodName><params/></methodResponse>",
        b"<methodResponse><fault><value>x</value></fault></methodResponse>",
        b"<methodCall><methodName>m</methodName><fault><value><struct/></value></fault></methodCall>",
        param("<struct><member><name>a</name></member></struct>"),
        param("<array>"),
        param("<hunter2/>"),
        param("<i4>hunter2</i4>"),
        param("<i4>" + "9" * 5000 + "</i4>"),
        param("<double>hunter2</double>"),
        param("<boolean>2</boolean>"),
    ],
)
def test_xml_that_is_no_call_is_refused_and_never_quoted(body: bytes) -> None:
    with pytest.raises(WireError) as refused:
        read(body)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("<i8>9223372036854775808</i8>", "params[0]: an integer must have at most 64 bits"),
        ("<double>nan</double>", "params[0]: a double must be finite"),
        ("<double>1e999</double>", "params[0]: a double must be finite"),
        ("<base64>aGk=</base64>", "params[0]: XenAPI has no type for this"),
        ("<bigdecimal>1.5</bigdecimal>", "params[0]: XenAPI has no type for this"),
        (
            "<struct><member><name>a</name><value><array><data><value><base64/></value></data></array></value>"
            "</member></struct>",
            "params[0].a[0]: XenAPI has no type for this",
        ),
    ],
)
def test_a_value_that_xenapi_has_no_type_for_is_refused_with_its_place(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        read(param(text))
    assert str(refused.value) == reason


def test_nesting_to_the_limit_is_read_and_one_deeper_is_not() -> None:
    def nested(depth: int) -> bytes:
        return param("<array><data><value>" * depth + "</value></data></array>" * depth)

    assert read(nested(5), 5).args != ()
    for depth in (6, 10_000):
        with pytest.raises(InvalidRequest, match="nested deeper than 5"):
            read(nested(depth), 5)


def test_a_success_and_a_failure_are_structs_and_a_bare_value_is_itself() -> None:
    assert got(xml.success("")) == {"Status": "Success", "Value": ""}
    assert got(xml.failure(XenApiError("HANDLE_INVALID", ("task", "x")))) == {
        "Status": "Failure",
        "ErrorDescription": ["HANDLE_INVALID", "task", "x"],
    }
    assert got(xml.bare(["task.create"])) == ["task.create"]


def test_a_fault_has_the_number_and_the_sentence() -> None:
    with pytest.raises(xmlrpc.client.Fault) as fault:
        got(xml.fault(ParseError("no XML: at <all>")))
    assert (fault.value.faultCode, fault.value.faultString) == (-32700, "no XML: at <all>")


def test_a_date_is_a_date_and_integers_are_digits_but_for_counts() -> None:
    value = {"created": DateTime("20260101T12:00:00Z"), "size": 2**40, "valid_ref_counts": {"task": 3}, "p": 0.5}
    body = xml.bare(value)

    assert b"<dateTime.iso8601>20260101T12:00:00Z</dateTime.iso8601>" in body
    assert got(body) == {
        "created": xmlrpc.client.DateTime("20260101T12:00:00Z"),
        "size": "1099511627776",
        "valid_ref_counts": {"task": 3},
        "p": 0.5,
    }


@settings(deadline=None)
@given(st.text(alphabet=st.characters()))
def test_any_text_can_be_said_and_what_xml_cannot_carry_is_replaced(text: str) -> None:
    heard = got(xml.bare({text: [text]}))

    assert isinstance(heard, dict)
    ((name, (value,)),) = heard.items()
    assert name == value
    assert len(value) == len(text)
    assert all(b in {a, "\ufffd"} for a, b in zip(text, value, strict=True))
    if text.isprintable() or text in "\r\n\t":
        assert value == text


def test_what_is_no_json_cannot_be_said() -> None:
    with pytest.raises(TypeError):
        xml.success({"path": b"x"})
