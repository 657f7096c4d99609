import os
import pty
import termios

from tightloop.agent.terminal.raw_mode import RawMode


def test_raw_and_as_before() -> None:
    """Each byte as it is, no echo, no signals; output processing stays. Leaving twice is harmless."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    mode = RawMode(slave)
    mode.leave()
    mode.enter()
    raw = termios.tcgetattr(slave)
    assert not raw[3] & (termios.ECHO | termios.ICANON | termios.ISIG | termios.IEXTEN)
    assert not raw[0] & (termios.ICRNL | termios.IXON)
    assert raw[1] == before[1]
    os.write(master, b"\r\x03\x13")
    assert os.read(slave, 10) == b"\r\x03\x13"
    mode.leave()
    mode.leave()
    assert before == termios.tcgetattr(slave)
    os.close(slave)
    os.close(master)
