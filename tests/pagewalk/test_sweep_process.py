"""A sweep as a process: on several cores, interrupted, killed, and on a cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from pagewalk.sweep.families import families
from pagewalk.sweep.tally import sample

PAGEWALK = [sys.executable, "-m", "pagewalk"]
SWEEP = [*PAGEWALK, "sweep", "--sample", "60000", "--json"]
PATIENCE = 60


@pytest.fixture
def journal(tmp_path):
    """Where the sweep of a test says what it has finished."""
    return tmp_path / "sweep.jsonl"


@contextmanager
def running(command, **options):
    """A process in a group of its own, which is gone afterwards."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(what):
    """Wait until `what()` is true."""
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def units_in(journal):
    """How many units are finished."""
    return journal.read_text().count("\n") - 1 if journal.exists() else 0


def children(pid):
    """The processes that a process has started, which are not dead."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """What the sweep finds that nobody disturbs."""
    state = ["--state", str(tmp_path_factory.mktemp("plain") / "sweep.jsonl")]
    done = subprocess.run([*SWEEP, "--jobs", "2", *state], capture_output=True, check=True)
    assert done.stderr == b""
    return json.loads(done.stdout)


@pytest.mark.parametrize("group", [False, True], ids=["the process alone", "its group"])
def test_ctrl_c_ends_it_at_once_and_it_can_go_on(plain, journal, group):
    command = [*SWEEP, "--jobs", "2", "--state", str(journal)]
    with running(command) as process:
        wait_for(lambda: units_in(journal) > 1)

        (os.killpg if group else os.kill)(process.pid, signal.SIGINT)
        sent = time.monotonic()
        output, errors = process.communicate(timeout=PATIENCE)

        assert time.monotonic() - sent < 1.5
        assert (process.returncode, output, errors) == (130, b"", b"pagewalk: interrupted\n")

    finished = units_in(journal)
    resumed = subprocess.run(command, capture_output=True, check=True)

    assert f"{finished} of ".encode() in resumed.stderr
    assert json.loads(resumed.stdout) == plain


def test_when_it_is_killed_its_workers_end(journal):
    with running([*SWEEP, "--jobs", "2", "--state", str(journal)]) as process:
        wait_for(lambda: units_in(journal) > 1)
        workers = children(process.pid)

        process.kill()

        process.wait(PATIENCE)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
        assert len(workers) >= 2


def test_a_worker_that_dies_is_told_and_loses_no_unit(plain, journal):
    command = [*SWEEP, "--jobs", "2", "--state", str(journal)]
    with running(command) as process:
        wait_for(lambda: units_in(journal) > 1)
        os.kill(max(children(process.pid)), signal.SIGKILL)
        output, errors = process.communicate(timeout=PATIENCE)

    resumed = subprocess.run(command, capture_output=True, check=True)

    assert (process.returncode, output) == (1, b"")
    assert errors.startswith(b"pagewalk: cannot go on: a worker process ended")
    assert json.loads(resumed.stdout) == plain


def test_on_a_terminal_it_shows_how_far_it_is(journal):
    terminal, its_end = os.openpty()

    subprocess.run(
        [*PAGEWALK, "sweep", "--sample", "20000", "--state", str(journal)],
        stdout=subprocess.DEVNULL,
        stderr=its_end,
        check=True,
    )

    os.close(its_end)
    with open(terminal, "rb", buffering=0) as shown:
        assert b"sweeping" in shown.read(4096)


# -- a cluster


@contextmanager
def cluster(folder):
    """A scheduler and two workers, each a process of its own; nobody restarts them."""
    file = folder / "scheduler.json"
    place = ["--host", "127.0.0.1", "--no-dashboard", "--scheduler-file", str(file)]
    worker = [*dask("worker"), *place, "--nworkers", "1", "--nthreads", "1", "--no-nanny"]
    env = os.environ | {"DASK_TEMPORARY_DIRECTORY": str(folder)}
    with (
        running([*dask("scheduler"), *place, "--port", "0"], env=env) as scheduler,
        running(worker, env=env) as first,
        running(worker, env=env) as second,
    ):
        wait_for(file.exists)
        address = json.loads(file.read_text())["address"]
        both = f"Client({address!r}).wait_for_workers(2, timeout={PATIENCE})"
        code = f"from distributed import Client; {both}"
        subprocess.run([sys.executable, "-c", code], check=True)
        yield address, scheduler, (first, second)


def dask(what):
    """The command that starts a scheduler or a worker."""
    return [sys.executable, "-m", f"distributed.cli.dask_{what}"]


def test_a_cluster_that_loses_a_worker_loses_no_case(plain, journal, tmp_path):
    with cluster(tmp_path) as (address, _, workers):
        command = [*SWEEP, "--scheduler", address, "--state", str(journal)]
        with running(command) as process:
            wait_for(lambda: units_in(journal) > 2)

            workers[0].kill()
            finished = units_in(journal)
            output, _ = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0
    assert finished < len(sample([f for n in (4, 5) for f in families(n).values()], 60_000, 0))
    assert json.loads(output) == plain


def test_a_scheduler_that_goes_is_told_and_loses_no_unit(plain, journal, tmp_path):
    soon = os.environ | {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "1s"}
    with cluster(tmp_path) as (address, scheduler, _):
        command = [*SWEEP, "--scheduler", address, "--state", str(journal)]
        with running(command, env=soon) as process:
            wait_for(lambda: units_in(journal) > 2)

            scheduler.kill()
            output, errors = process.communicate(timeout=PATIENCE)

    resumed = subprocess.run([*SWEEP, "--state", str(journal)], capture_output=True, check=True)

    assert (process.returncode, output) == (1, b"")
    assert errors.startswith(b"pagewalk: cannot go on: the scheduler is gone")
    assert json.loads(resumed.stdout) == plain


def test_ctrl_c_leaves_the_cluster_at_once(journal, tmp_path):
    with (
        cluster(tmp_path) as (address, *_),
        running([*SWEEP, "--scheduler", address, "--state", str(journal)]) as process,
    ):
        wait_for(lambda: units_in(journal) > 2)

        process.send_signal(signal.SIGINT)
        sent = time.monotonic()
        output, errors = process.communicate(timeout=PATIENCE)
        took = time.monotonic() - sent

    assert took < 2.5
    assert (process.returncode, output, errors) == (130, b"", b"pagewalk: interrupted\n")


def test_no_scheduler_at_the_address_is_bad_input():
    code = "import sys; from pagewalk.cli import main; from pagewalk.sweep import cluster\n"
    code += "cluster._PATIENCE = 1; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "sweep", "--scheduler", "tcp://127.0.0.1:1"]

    done = subprocess.run(command, capture_output=True, text=True)

    assert (done.returncode, done.stdout) == (2, "")
    assert "--scheduler 'tcp://127.0.0.1:1'" in done.stderr.splitlines()[-1]


def test_without_distributed_it_says_what_to_install():
    code = "import sys; sys.modules['distributed'] = None\n"
    code += "from pagewalk.cli import main; sys.exit(main(sys.argv[1:]))"

    done = subprocess.run(
        [sys.executable, "-c", code, "sweep", "--sample", "10", "--scheduler", "tcp://x:1"],
        capture_output=True,
        text=True,
    )

    assert (done.returncode, done.stdout) == (2, "")
    assert "pip install 'pagewalk[dask]'" in done.stderr
    assert done.stderr.count("\n") == 1
