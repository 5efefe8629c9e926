"""What a sweep remembers: it goes on from what is finished, and from nothing that is torn."""

import errno
import json
import os

import pytest
from support.cli import run_cli

from pagewalk.sweep import judging
from pagewalk.sweep.journal import Journal, NotOurs, default_path

KEY = {"what": "everything"}
RESULT = {"refused-gigabyte": [3, "smap", 4, 17, ["a", "b", "c", "d"]]}


@pytest.fixture
def path(tmp_path):
    """Where a journal may lie, in a folder that is not there yet."""
    return tmp_path / "state" / "sweep.jsonl"


@pytest.fixture
def one(path):
    """A journal with one finished unit, left behind."""
    journal = Journal(path, KEY)
    journal.add(5, RESULT)
    journal.close()
    return path


def test_what_is_finished_is_read_again(one):
    with Journal(one, KEY) as journal:
        assert journal.finished == {5: RESULT}


def test_a_complete_sweep_leaves_nothing(one):
    Journal(one, KEY).remove()

    assert not one.exists()


def test_to_begin_afresh_forgets(one):
    assert Journal(one, KEY, fresh=True).finished == {}


@pytest.mark.parametrize("kept", range(1, 40, 6))
def test_a_torn_line_was_never_written(one, kept):
    whole = one.read_text()
    one.write_text(whole + json.dumps([6, RESULT])[:kept])

    journal = Journal(one, KEY)
    journal.add(7, RESULT)
    journal.close()

    assert Journal(one, KEY).finished.keys() == {5, 7}


def test_lines_that_are_no_units_are_passed_over(one):
    one.write_text(one.read_text() + '{"x": 1}\n[1]\nnull\n\xff\n[8, {}]\n')

    assert Journal(one, KEY).finished == {5: RESULT, 8: {}}


def test_the_journal_of_another_sweep_is_left_alone(one):
    before = one.read_text()

    with pytest.raises(NotOurs):
        Journal(one, {"what": "something else"})

    assert one.read_text() == before


def test_a_fresh_sweep_takes_the_place_of_another(one):
    Journal(one, {"what": "something else"}, fresh=True)

    assert not one.exists()


def test_a_full_disk_is_told_once_and_the_sweep_goes_on(path, capsys, monkeypatch):
    journal = Journal(path, KEY)

    def full(line):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(journal, "_write", full)
    journal.add(1, RESULT)
    journal.add(2, RESULT)
    journal.close()

    assert journal.finished == {1: RESULT, 2: RESULT}
    assert capsys.readouterr().err.count("No space left on device") == 1


def test_a_place_that_cannot_be_written_is_told(tmp_path, capsys):
    (tmp_path / "file").write_text("")

    journal = Journal(tmp_path / "file" / "sweep.jsonl", KEY)

    journal.add(1, RESULT)
    assert journal.finished == {1: RESULT}
    assert "cannot be resumed" in capsys.readouterr().err


def test_it_lies_in_the_users_state_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    at_home = default_path("x")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "elsewhere"))

    assert at_home == tmp_path / ".local/state/pagewalk/x"
    assert default_path("x") == tmp_path / "elsewhere/pagewalk/x"


# -- a sweep that ends in the middle


DO_UNIT = judging.do_unit


class Interrupted(Exception):
    """Stands for whatever ends a sweep."""


@pytest.fixture
def stop_after_two(monkeypatch):
    """The third unit ends the sweep."""
    done = []

    def do_unit(unit):
        if len(done) == 2:
            raise Interrupted
        done.append(unit)
        return DO_UNIT(unit)

    monkeypatch.setattr(judging, "do_unit", do_unit)
    return done


SWEEP = ["sweep", "--jobs", "1", "--family", "reserved", "--family", "non-canonical", "--json"]


def test_an_interrupted_sweep_goes_on_and_comes_to_the_same(path, stop_after_two, monkeypatch):
    state = [*SWEEP, "--state", str(path)]
    with pytest.raises(Interrupted):
        run_cli(*state)
    monkeypatch.undo()

    _, resumed, told = run_cli(*state)
    _, plain, _ = run_cli(*SWEEP, "--state", str(path), "--fresh")

    assert "2 of 6 units are finished" in told
    assert resumed == plain
    assert not path.exists()


def test_other_arguments_are_another_sweep(path, stop_after_two, monkeypatch):
    with pytest.raises(Interrupted):
        run_cli(*SWEEP, "--state", str(path))
    monkeypatch.undo()

    status, _, errors = run_cli(*SWEEP, "--levels", "4", "--state", str(path), parse=False)

    assert status == 2
    assert "--state" in errors
    assert path.exists()


@pytest.mark.parametrize("fresh", [[], ["--fresh"]])
def test_a_file_that_is_no_journal_is_left_alone(path, fresh):
    path.parent.mkdir()
    path.write_text("a letter\n")

    status, _, errors = run_cli(*SWEEP, "--state", str(path), *fresh, parse=False)

    assert (status, path.read_text()) == (2, "a letter\n")
    assert "--state" in errors


def test_other_sources_are_another_sweep(path, stop_after_two, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(Interrupted):
        run_cli(*SWEEP)
    (left,) = (tmp_path / "pagewalk").iterdir()
    key, _, units = left.read_text().partition("\n")
    left.write_text(key.replace('"sources": "', '"sources": "0') + "\n" + units)
    monkeypatch.setattr(judging, "do_unit", DO_UNIT)

    status, _, errors = run_cli(*SWEEP)

    assert (status, errors) == (0, "")


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.mkdir()], ids=["fifo", "folder"])
def test_what_is_no_regular_file_is_no_journal_and_stays(tmp_path, make):
    path = tmp_path / "it"
    make(path)

    with pytest.raises(NotOurs):
        Journal(path, KEY)

    assert path.exists()
