"""The reader of the pages notices what is not so; a page that cannot be wrong proves nothing."""

import pytest
from support.pages import Reader, not_printed


def page(*blocks):
    return "\n\n".join(f"```{language}\n{text}\n```" for language, text in blocks)


PRINTED = ("python", "print('one'); print('two'); print('three')")
JSON = ("python", 'print(\'{"a": 1, "b": [1, 2]}\')')


@pytest.mark.parametrize(
    "blocks",
    [
        [("console", "$ pagewalk list")],
        [("console", "$ pagewalk lisst  # exits with 2\n…")],
        [("console", "$ pagewalk list\nScenarios\n…")],
        [("console", "$ echo one | tr e E\nonE")],
        [PRINTED, ("text", "one\ntwo\nthree")],
        [PRINTED, ("text", "one\n…\nthree")],
        [PRINTED, ("text", "…\ntwo\n…")],
        [("python", "a = 1"), ("python", "assert a == 1")],
        [('asm title="a.S"', "a: ret"), ("console", "$ pagewalk trace a.S")],
        [JSON, ("json", '{"b": ["…"]}')],
    ],
)
def test_a_page_that_is_right_is_followed_without_a_word(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert Reader().complaints(page(*blocks)) == []


@pytest.mark.parametrize(
    "blocks",
    [
        [("console", "$ pagewalk list  # exits with 1")],
        [("console", "$ pagewalk lisst")],
        [("console", "$ pagewalk list\nReleases\n…")],
        [("console", "$ pagewalk list\nScenarios")],
        [("console", "$ false")],
        [("console", "$ echo one >&2")],
        [PRINTED, ("text", "one\nthree")],
        [PRINTED, ("text", "one\ntwo")],
        [PRINTED, ("text", "…\nthree\n…\ntwo\n…")],
        [JSON, ("json", '{"a": 2}')],
        [JSON, ("json", '{"b": [1]}')],
    ],
)
def test_a_page_that_is_wrong_is_complained_of(blocks, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert len(Reader().complaints(page(*blocks))) == 1


def test_what_is_not_printed_is_named_as_it_is_shown():
    assert not_printed(["…", "two", "four", "…"], "one\ntwo\nthree\n") == ["two", "four"]
