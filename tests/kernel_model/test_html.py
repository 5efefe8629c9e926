"""What a notebook shows of a scenario's run."""

from support.html import page

from emu import PageFault
from kernel_model.auditing import why
from kernel_model.scenarios import run_scenario


def test_a_run_has_its_end_both_walks_by_both_names_and_the_oops() -> None:
    run = run_scenario("vmemmap-devdax")

    shown = page(run)

    assert isinstance(run.ending.stop, PageFault)
    assert "vmemmap-devdax on 6.8, 4 levels: oops, #PF at 0xffffe70000000034" in shown.text
    assert "BUG: unable to handle page fault for address: ffffe70000000034" in shown.text
    assert f"under {run.ending.task.mm.name}'s table" in shown.text
    assert "under init_mm's table" in shown.text
    assert ["→ not present: the walk stops here"] in shown.rows
    assert "PML4E pgd=p4d" in [row[0] for row in shown.rows]
    run.kernel.close()


def test_a_run_whose_kernel_is_closed_still_has_what_it_keeps() -> None:
    run = run_scenario("vmemmap-devdax")
    run.kernel.close()

    shown = page(run)

    assert "→ not present: the walk stops here" in shown.text
    assert "init_mm" not in shown.text


def test_why_has_a_row_for_each_sort_of_tables_with_the_reason():
    run = run_scenario("vmemmap-devdax")
    found = why(run.kernel, run.ending.stop.address)

    shown = page(found)

    ours, theirs = shown.rows[1:3]
    assert "slot 462 of the top tables: unsynced" in shown.text
    assert ours[0] == "init_mm"
    assert ours[3] == found.reference.written[0].by
    assert theirs[1:3] == ["0x0", "-"]
    assert theirs[4:] == [
        "not present: the walk stops here",
        "lacking",
        f"not-synced ({found.others[0].cause.path})",
    ]
    run.kernel.close()
