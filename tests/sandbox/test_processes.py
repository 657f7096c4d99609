"""What a family of processes costs, and who goes first."""

import os
import subprocess
import sys

from tightloop.sandbox.processes import NICENESS, cpu_s, family, give_way, take_turns

BUSY = "import os, time\nwhile time.process_time() < 0.2: pass\n"
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {BUSY!r}], check=True)
child = subprocess.Popen([sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"])
sys.stdin.read()
"""


def test_a_family_with_its_dead() -> None:
    """Processor time of a child that has ended counts; the living are named and can be made nicer."""
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        members = family(parent.pid)
        assert len(members) == 2
        assert members[0] == parent.pid
        assert cpu_s(parent.pid) >= 0.2
        give_way(parent.pid)
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in members] == [NICENESS] * 2
        take_turns(parent.pid)
        expected = 0 if os.geteuid() == 0 else NICENESS
        assert [os.getpriority(os.PRIO_PROCESS, pid) for pid in members] == [expected] * 2


def test_a_process_that_is_gone_costs_nothing() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    assert cpu_s(gone.pid) == 0.0
    give_way(gone.pid)
