"""What vaultctl asks for on a terminal is not shown, and the terminal is as before whatever ends it."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios

import pytest

from support import REPOSITORY

PATIENCE_S = 30


def echoes(terminal):
    return bool(termios.tcgetattr(terminal)[3] & termios.ECHO)


@pytest.mark.parametrize("name", ["SIGHUP", "SIGINT", "SIGTERM"])
def test_a_signal_at_a_question_brings_the_echo_back(name, tmp_path):
    jwt = tmp_path / "jwt"
    jwt.write_text("a.b.c")
    screen, terminal = pty.openpty()
    asking = subprocess.Popen(
        [REPOSITORY / "target/debug/vaultctl", "--token-file", jwt, "tokenize"],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
        # Its own, as a shell's children have it.
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    shown = b""

    def look(patience):
        nonlocal shown
        ready = select.select([screen], [], [], patience)[0]
        if ready:
            shown += os.read(screen, 1024)
        return ready

    try:
        while b":" not in shown:
            assert look(PATIENCE_S), shown
        assert not echoes(terminal), shown
        os.write(screen, b"411111")
        asking.send_signal(getattr(signal, name))
        assert asking.wait(PATIENCE_S) == -getattr(signal, name)
        assert echoes(terminal)
        while look(0.1):
            pass
        assert b"411111" not in shown, shown
    finally:
        asking.kill()
        os.close(screen)
        os.close(terminal)
