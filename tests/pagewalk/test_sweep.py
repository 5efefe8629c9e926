"""`pagewalk sweep`: three judges agree, and where one is broken, it is reported."""

import json
import threading

import pytest
from support.cli import run_cli

from pagewalk.sweep import judging, oracle
from pagewalk.sweep.cluster import Unfit, do_unit_as
from pagewalk.sweep.families import families
from pagewalk.sweep.identity import identity
from pagewalk.sweep.judging import do_unit, judge
from pagewalk.sweep.tally import Unit, sample

SOME = ["--jobs", "1", "--sample", "1500"]


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    """Journals go where nobody keeps any, and no machine has seen another's broken rules."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr(judging, "_of_thread", threading.local())


def sweep(*arguments):
    """Run it on one core, and return status and document."""
    status, document, _ = run_cli("sweep", *SOME, "--json", *arguments)
    return status, document


# -- what is judged


@pytest.mark.parametrize("levels", ["4", "5"])
@pytest.mark.parametrize("family", list(families(5)))
def test_a_sample_of_each_family_differs_in_known_ways_alone(family, levels):
    size = str(min(1500, families(int(levels))[family].size))

    status, document = sweep("--family", family, "--levels", levels, "--sample", size)

    names = {deviation["name"] for deviation in document["deviations"]}
    assert (status, names - {"refused-gigabyte", "refused-update"}) == (0, set())
    assert document["families"] == [{"name": family, "levels": int(levels), "cases": int(size)}]


@pytest.mark.slow
def test_all_cases_differ_in_known_ways_alone():
    status, document, _ = run_cli("sweep", "--json", "--fresh")

    names = {deviation["name"] for deviation in document["deviations"]}
    assert (status, names) == (0, {"refused-gigabyte", "refused-update"})
    assert document["cases"] == sum(f.size for n in (4, 5) for f in families(n).values())


def test_the_matrix_of_access_c_shows_no_deviation_at_all():
    status, document = sweep("--family", "access")

    assert (status, document["deviations"], document["agreed"]) == (0, [], 1500)


def test_a_sample_is_many_ways_to_be_refused():
    units = sample([families(4)["keys"]], 4000, 1)

    judged = judge(families(4)["keys"].cases(units[0].numbers), 4)

    codes = {(j.case.access.kind, j.prediction.error_code) for j in judged}
    assert len(codes) >= 25


def test_what_differs_in_a_known_way_is_shown_by_name_with_an_example():
    status, document = sweep("--family", "gigabyte")

    shown = {deviation["name"]: deviation for deviation in document["deviations"]}
    gigabyte = shown["refused-gigabyte"]
    example = gigabyte["example"]
    assert status == 0
    assert gigabyte["count"] > 10
    assert example["entries"] == "PDPTE gets A"
    assert example["cpu"] == example["walk"] == example["oracle"]
    assert "refused-gigabyte" not in document["not_shown"]["not corrected"]
    assert "torn-store" in document["not_shown"]["not corrected"]


def test_the_text_names_what_it_shows_and_what_it_cannot():
    status, text, _ = run_cli("sweep", *SOME, "--family", "gigabyte", "--levels", "4", parse=False)

    assert status == 0
    assert "known deviation: refused-gigabyte" in text
    assert '  for instance --levels 4 --case "' in text
    assert "early-fetch" in text


# -- what is broken


@pytest.mark.parametrize(
    ("family", "constant", "of_rights"),
    [
        ("smap", "CR4_SMAP", 0),
        ("smap", "CR0_WP", 0),
        ("smap", "CR4_SMEP", 0),
        ("smap", "XD", 0),
        ("access", "US", 0),
        ("keys", "CR4_PKE", 0),
        ("keys", "KEY_SHIFT", 60),
    ],
)
def test_a_broken_right_is_not_explained(monkeypatch, family, constant, of_rights):
    monkeypatch.setattr(f"emu.rights.{constant}", of_rights)

    status, document = sweep("--family", family, "--sample", "6000")

    assert status == 1
    assert [each for each in document["deviations"] if not each["known"]] != []


def test_a_broken_oracle_is_not_explained(monkeypatch):
    monkeypatch.setattr(oracle, "USER", 0)

    status, document = sweep("--family", "access")

    names = [deviation["name"] for deviation in document["deviations"]]
    assert status == 1
    assert "CPU #PF 0x4; walk #PF 0x4; oracle #PF 0x0" in names


def test_an_oracle_that_expects_no_d_is_not_explained(monkeypatch):
    monkeypatch.setattr(oracle, "DIRTIED", oracle.ACCESSED)

    status, document = sweep("--family", "access")

    names = [deviation["name"] for deviation in document["deviations"]]
    assert status == 1
    assert names == [
        f"CPU goes through; walk goes through; oracle goes through; {entry} gets D"
        for entry in ("PDE", "PTE")
    ]


def test_what_is_not_explained_is_said_so_in_the_text(monkeypatch):
    monkeypatch.setattr(oracle, "USER", 0)

    status, text, _ = run_cli("sweep", *SOME, parse=False)

    assert status == 1
    assert "NOT EXPLAINED: CPU #PF 0x4; walk #PF 0x4; oracle #PF 0x0" in text


def test_the_first_case_of_a_class_is_the_example(monkeypatch):
    monkeypatch.setattr(oracle, "PRESENT", 0)
    family = families(4)["access"]

    tally = do_unit(Unit("access", 4, range(100_000, 101_000)))

    found = next(iter(tally.values()))
    judged = [not j.agrees() for j in judge(family.cases(range(100_000, 101_000)), 4)]
    assert found.number == 100_000 + judged.index(True)
    assert sum(each.cases for each in tally.values()) == sum(judged)


# -- one case


def test_one_case_is_rerun_with_its_walk():
    status, text, _ = run_cli(
        *("sweep", "--case", "pte.p pte.rw write user cr0.wp", "--levels", "4"), parse=False
    )

    assert status == 0
    assert "PTE   pte     [392]" in text
    assert "CPU:    #PF 0x7\nwalk:   #PF 0x7, by the rule us\noracle: #PF 0x7\n" in text
    assert text.endswith("they agree\n")


def test_one_case_as_json():
    status, document, _ = run_cli("sweep", "--case", "pde.p pde.pse write", "--json")

    four, five = document["cases"]
    assert (status, four["levels"], five["levels"]) == (0, 4, 5)
    assert four["case"] == "pde.p pde.pse write"
    assert (four["cpu"], four["rule"], four["agree"]) == ("goes through", None, True)
    assert int(four["entries_after"][2], 16) & 0x60 == 0x60


def test_a_case_of_a_known_deviation_says_which():
    status, text, _ = run_cli("sweep", "--case", "pdpte.p pdpte.pse user", parse=False)

    assert status == 0
    assert "known deviation: refused-gigabyte" in text


def test_a_case_that_names_a_pml5e_has_5_levels():
    status, document, _ = run_cli("sweep", "--case", "pml5e.p pml5e.user write cr0.wp", "--json")

    (case,) = document["cases"]
    assert (status, case["levels"], case["case"]) == (0, 5, "pml5e.ro write cr0.wp")
    assert case["rule"] == "wp"


def test_the_example_of_a_class_can_be_rerun():
    _, document = sweep("--family", "smap")
    example = document["deviations"][0]["example"]

    status, again, _ = run_cli(
        *("sweep", "--case", example["case"], "--levels", str(example["levels"]), "--json")
    )

    assert status == 0
    assert again["cases"][0]["deviation"] == document["deviations"][0]["name"]


def test_a_worker_with_other_sources_is_unfit():
    unit = Unit("access", 4, range(10))

    with pytest.raises(Unfit, match="expected"):
        do_unit_as(unit, {"sources": "others"})

    assert do_unit_as(unit, identity()) == {}


# -- bad input


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--case", "pte.p pte.usr"], ["--case", "'pte.usr'", "did you mean pte.user?"]),
        (["--case", "write fetch"], ["--case", "one kind"]),
        (["--case", "pml5e.p", "--levels", "4"], ["--case", "PML5E"]),
        (["--case", "write", "--family", "smap"], ["--family", "--case"]),
        (["--levels", "3"], ["--levels", "'3'", "4 or 5"]),
        (["--family", "key"], ["--family", "'key'", "did you mean keys?"]),
        (["--sample", "0"], ["--sample", "'0'"]),
        (["--sample", "99999999999"], ["--sample", "99999999999"]),
        (["--seed", "1"], ["--seed", "--sample"]),
        (["--sample", "10", "--jobs", "0"], ["--jobs", "'0'"]),
        (["--sample", "10", "--jobs", "x"], ["--jobs", "'x'"]),
        (["--scheduler", "a:1", "--jobs", "2"], ["--jobs", "--scheduler"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, words):
    status, output, errors = run_cli("sweep", *arguments, parse=False)

    assert (status, output) == (2, "")
    assert errors.count("\n") == 1
    assert [word for word in words if word not in errors] == []


def test_the_same_seed_draws_the_same_sample():
    first, second = sweep("--seed", "7"), sweep("--seed", "7")

    assert first == second
    assert first[1] != sweep("--seed", "8")[1]


def test_the_help_lists_every_kind_of_condition():
    with pytest.raises(SystemExit) as exit_:
        run_cli("sweep", "--help", parse=False)

    assert exit_.value.code == 0


def test_json_is_one_document():
    _, text, _ = run_cli("sweep", *SOME, "--json", parse=False)

    assert json.loads(text)["cases"] == 1500
