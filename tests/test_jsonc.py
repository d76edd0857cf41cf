"""JSON with comments, changed in one place: everything else stays, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from tokenops import jsonc, setup_texts

OURS = {"command": "/b/tok-mcp"}
PLACE = ("mcpServers", "tokenops")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", '{\n  "a": {\n    "b": 1\n  }\n}\n'),
        ("\r\n", '{\r\n  "a": {\r\n    "b": 1\r\n  }\r\n}\r\n'),
        ("{}", '{\n  "a": {\n    "b": 1\n  }\n}'),
        ('{"x":1}', '{"x":1, "a": {"b": 1}}'),
        ('{"a":{}}', '{"a":{"b": 1}}'),
        ('{"a":{"c":2}}', '{"a":{"c":2, "b": 1}}'),
        ('{\n\t"x": 1\n}\n', '{\n\t"x": 1,\n\t"a": {\n\t\t"b": 1\n\t}\n}\n'),
        ('{\r\n    "x": 1\r\n}', '{\r\n    "x": 1,\r\n    "a": {\r\n        "b": 1\r\n    }\r\n}'),
        ('{\n  "x": 1 // one, two\n}', '{\n  "x": 1, // one, two\n  "a": {\n    "b": 1\n  }\n}'),
        ('{\n  "x": 1, /* , */\n  // end\n}', '{\n  "x": 1, /* , */\n  // end\n  "a": {\n    "b": 1\n  }\n}'),
        ('{ // nothing\n}', '{ // nothing\n  "a": {\n    "b": 1\n  }\n}'),
        ('{\n  "a": {},\n  "z": 0\n}', '{\n  "a": {\n    "b": 1\n  },\n  "z": 0\n}'),
        ('{\n  "a": {"c": 2},\n  "z": 0\n}', '{\n  "a": {"c": 2, "b": 1},\n  "z": 0\n}'),
        ('{\n  "a": {"b": "old" /* why */}\n}', '{\n  "a": {"b": 1 /* why */}\n}'),
        ('// first\n{"a": {"b": 2}} // last', '// first\n{"a": {"b": 1}} // last'),
    ],
)  # fmt: skip
def test_an_entry_goes_where_a_person_would_put_it(text: str, made: str) -> None:
    assert jsonc.set_value(text, ("a", "b"), 1) == made


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("{", "line 1, column 2: expected a key"),
        ('{\n "a": 1\n "b": 2}', "line 3, column 2: expected a comma or }"),
        ("{'a': 1}", "line 1, column 2: expected a key in double quotes"),
        ('{"a" 1}', "line 1, column 6: expected a colon"),
        ('{"a": }', "line 1, column 7: expected a value"),
        ('{"a":', "line 1, column 6: the text ends"),
        ('{"a": 01}', "line 1, column 8: expected a comma"),
        ('{"a": "\\x"}', "line 1, column 7: a string with an escape"),
        ('{"\\q": 1}', "line 1, column 2: a string with an escape"),
        ("{} {}", "line 1, column 4: text follows"),
        ("{/* }", "line 1, column 2"),
        ('{"a": NaN}', "line 1, column 7: expected a value"),
        ("[" * 500, "nested more than 200 deep"),
    ],
)
def test_what_is_no_json_is_told_by_its_place(text: str, where: str) -> None:
    with pytest.raises(jsonc.Malformed, match=where.replace("}", "\\}")):
        jsonc.set_value(text, ("a", "b"), 1)


@pytest.mark.parametrize("text", ['{"a": null}', '{"a": [1]}', "[1]", '"x"', '{"a": 1, "a": {}}', '{"a": {"b": 1, "b": 2}}'])
def test_what_cannot_hold_an_entry_is_refused(text: str) -> None:
    with pytest.raises(jsonc.Unchangeable):
        jsonc.set_value(text, ("a", "b"), 1)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ('{"x": 1, "a": {"b": 1}}', '{"x": 1}'),
        ('{"a": {"b": 1}, "x": 1}', '{"x": 1}'),
        ('{"a": {"b": 1, "c": 2}}', '{"a": {"c": 2}}'),
        ('{"a": {"c": 2, "b": 1}}', '{"a": {"c": 2}}'),
        ('{\n  "x": 1, // note\n  "a": {\n    "b": 1\n  }\n}\n', '{\n  "x": 1 // note\n}\n'),
        ('{\n  "a": {"b": 1}, // ours\n  "x": 1\n}', '{\n  // ours\n  "x": 1\n}'),
        ('{\n  // before\n  "a": {"b": 1},\n}', "{\n  // before\n}"),
        ('{"a": {"b": 1}}', "{}"),
        ('{"y": 0}', '{"y": 0}'),
    ],
)
def test_an_entry_is_cut_out(text: str, left: str) -> None:
    assert jsonc.remove_value(text, ("a", "b"), 0) == left
    assert (
        setup_texts.parse("json", left)
        == {key: value for key, value in setup_texts.parse("json", text).items() if key != "a"}
        or "c" in left
    )


def test_what_held_only_the_entry_stays_where_it_was_there_before() -> None:
    assert jsonc.remove_value('{"a": {"b": 1}}', ("a", "b"), 1) == '{"a": {}}'


def test_only_our_own_place_is_shown() -> None:
    text = '{"k": "SENTINEL", /* SENTINEL */ "l": ["SENTINEL", 1], // SENTINEL\n "a": {"b": "shown \\" too"}}'
    shown = jsonc.mask_strings(text, ("a", "b"))
    assert "SENTINEL" not in shown and '"b": "shown \\" too"' in shown and '"k": "***"' in shown
    assert json.loads(jsonc.mask_strings('{"a": {"b": "SENTINEL"}}', ("a", "c"))) == {"a": {"b": "***"}}


KEYS = st.sampled_from(["mcpServers", "tokenops", "a", "b c", "\u00e9", "//", "/*", ""])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
BLANKS = st.sampled_from(["", " ", "\n", "\t", "\r\n  ", "// c, }\n", "/* c: { */", '\n  // "x": 1,\n  '])


@st.composite
def documents(draw: st.DrawFn) -> str:
    """JSON of an object, with blanks and comments between all tokens, and commas at the end where they may be."""

    def text(value: object) -> str:
        blank = draw(BLANKS)
        if isinstance(value, dict):
            inner = ",".join(f"{draw(BLANKS)}{json.dumps(key)}{draw(BLANKS)}:{text(one)}" for key, one in value.items())
            return f"{blank}{{{inner}{',' if inner and draw(st.booleans()) else ''}{draw(BLANKS)}}}{draw(BLANKS)}"
        if isinstance(value, list):
            inner = ",".join(map(text, value))
            return f"{blank}[{inner}{',' if inner and draw(st.booleans()) else ''}{draw(BLANKS)}]{draw(BLANKS)}"
        return blank + json.dumps(value) + draw(BLANKS)

    return text(draw(st.dictionaries(KEYS, VALUES, max_size=4)))


def is_within(short: str, long: str) -> bool:
    """Whether all of one text stands in another, in its order."""
    rest = iter(long)
    return all(char in rest for char in short)


@examples(120)
@given(documents())
def test_nothing_else_ever_changes(text: str) -> None:
    before = jsonc.document(text).data
    try:
        made = jsonc.set_value(text, PLACE, OURS)
    except jsonc.Unchangeable:
        assert "mcpServers" in before and not isinstance(before["mcpServers"], dict)
        return
    after = jsonc.document(made).data
    assert after["mcpServers"].pop("tokenops") == OURS
    there = before.get("mcpServers") or {}
    was = there.pop("tokenops", "none")
    assert after == before | {"mcpServers": there}
    if was == "none":  # nothing was replaced: every character but blanks before a bracket is still there, in its order
        assert is_within("".join(text.split()), made)
        try:
            gone = jsonc.remove_value(made, PLACE, 1 if "mcpServers" in before else 0)
        except jsonc.Unchangeable:  # a comment of a line would swallow what follows
            return
        assert jsonc.document(gone).data == before
    assert jsonc.set_value(made, PLACE, OURS) == made


@examples(120)
@given(st.text(alphabet='{}[]",:/*1\\ \nax', max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = jsonc.document(text).data
    except jsonc.Malformed:
        with pytest.raises(ValueError):
            json.loads(text)  # what is JSON is never refused
        return
    if (
        "/" not in text
        and ",]" not in text.replace(" ", "").replace("\n", "")
        and ",}" not in text.replace(" ", "").replace("\n", "")
    ):
        assert json.loads(text) == found
