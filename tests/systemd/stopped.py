"""One thread of a process is stopped and the others go on, as if it hung: no signal can do that, a debugger can."""

import ctypes
import os
import pathlib

PTRACE_ATTACH, WALL = 16, 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class StoppedThread:
    """The thread called `name` of the vaultd that has `pid` in its container. It stays stopped until the process ends."""

    def __init__(self, pid, name):
        tasks = [task for task in _tasks(pid) if (task / "comm").read_text().strip() == name]
        assert len(tasks) == 1, f"{len(tasks)} threads are called {name}"
        self._tid = int(tasks[0].name)
        if _libc.ptrace(PTRACE_ATTACH, self._tid, None, None) != 0:
            raise OSError(ctypes.get_errno(), f"cannot attach to {name}")
        os.waitpid(self._tid, WALL)

    def reap(self):
        """A traced thread that has ended keeps its process until somebody has asked for it. To be called again and again."""
        try:
            os.waitpid(self._tid, WALL | os.WNOHANG)
        except ChildProcessError:
            pass


def _tasks(pid):
    """The threads, seen from outside of the container."""
    for status in pathlib.Path("/proc").glob("[0-9]*/status"):
        try:
            lines = status.read_text().splitlines()
        except OSError:
            continue  # It has ended meanwhile.
        ids = next((line.split()[1:] for line in lines if line.startswith("NSpid:")), [])
        if lines[0].split()[1:] == ["vaultd"] and len(ids) > 1 and ids[-1] == str(pid):
            return list((status.parent / "task").iterdir())
    raise AssertionError(f"no vaultd has the process id {pid} in a container")
