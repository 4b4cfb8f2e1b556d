"""A booted Debian container with systemd, made of a tree that stays as it is: what is written is lost with the container."""

import os
import pathlib
import signal
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
TREE = REPOSITORY / "target/systemd/bookworm"
PACKAGES = REPOSITORY / "target/systemd/packages"
INSIDE = pathlib.Path(__file__).resolve().parent / "inside"
LANDLOCK = "landlock_create_ruleset landlock_add_rule landlock_restrict_self seccomp"
BOOT_SECONDS = 60
COMMAND_SECONDS = 120
STOP_SECONDS = 30


class Container:
    """systemd-nspawn on the tree. Commands run inside of it by nsenter."""

    def __init__(self):
        self._nspawn = subprocess.Popen(
            [
                # It must not outlive the tests, however they end.
                *("setpriv", "--pdeathsig", "KILL"),
                *("systemd-nspawn", "--quiet", "--boot", "--register=no", "--keep-unit", "--volatile=overlay"),
                # What vaultd takes Landlock by, which the list of systemd 252 has not.
                f"--system-call-filter={LANDLOCK}",
                *("--private-network", "--link-journal=no", "--console=pipe", f"--directory={TREE}"),
                *(f"--bind-ro={PACKAGES}:/packages", f"--bind-ro={INSIDE}:/inside"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            self._wait_until_booted()
        except BaseException:
            self.stop()
            raise

    def popen(self, *command, user=None, **more):
        """Starts `command` inside, as `user` or as root."""
        as_user = ("runuser", "-u", user, "--") if user else ()
        enter = ("nsenter", f"--target={self._init()}", "--all", "--")
        return subprocess.Popen([*enter, *as_user, *command], text=True, **more)

    def run(self, *command, user=None, text="", status=0):
        """Runs `command` inside to its end; gives what it printed. It must end with `status`, unless that is None."""
        process = self.popen(
            *command, user=user, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        try:
            output, _ = process.communicate(text, timeout=COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AssertionError(f"{' '.join(command)} does not end in {COMMAND_SECONDS} s\n{self.log()}")
        if status is not None and process.returncode != status:
            what = f"{' '.join(command)} ended with {process.returncode}:\n{output}"
            raise AssertionError(f"{what}\n{self.log()}")
        return output.strip()

    def write(self, path, text, mode="0644"):
        """Makes the file `path` with its directories."""
        self.run("mkdir", "-p", str(pathlib.PurePath(path).parent))
        self.run("dd", f"of={path}", "status=none", text=text)
        self.run("chmod", mode, path)

    def show(self, unit, name):
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", f"--property={name}", unit)

    def log(self):
        """The end of the journal."""
        try:
            enter = ("nsenter", f"--target={self._init()}", "--all", "--")
            journal = (*enter, "journalctl", "--no-pager", "-n", "40", "-o", "short-monotonic", "-u", "vaultd*")
            return subprocess.run(journal, capture_output=True, text=True, timeout=30, check=False).stdout
        except (OSError, subprocess.TimeoutExpired):
            return "(no journal)"

    def stop(self):
        """Ends it, without ceremony."""
        try:
            # With its init goes everything in it; nspawn's end alone leaves it running.
            os.kill(int(self._init()), signal.SIGKILL)
        except OSError:
            pass
        self._nspawn.kill()
        # Not communicate(), which waits for all that hold its output, too.
        self._nspawn.wait(STOP_SECONDS)
        self._nspawn.stdout.close()

    def _init(self):
        """The process id of its init, seen from outside."""
        nspawn = self._nspawn.pid
        children = pathlib.Path(f"/proc/{nspawn}/task/{nspawn}/children").read_text().split()
        if not children:
            raise OSError("the container has no init")
        return children[-1]

    def _wait_until_booted(self):
        deadline = time.monotonic() + BOOT_SECONDS
        state = ""
        while time.monotonic() < deadline:
            if self._nspawn.poll() is not None:
                # No end of its output is waited for: its init may hold the pipe as well.
                os.set_blocking(self._nspawn.stdout.fileno(), False)
                said = (self._nspawn.stdout.read() or b"").decode(errors="replace")
                raise AssertionError(f"systemd-nspawn ended:\n{said}")
            try:
                state = self.run("systemctl", "is-system-running", status=None)
            except OSError:
                state = "no init"
            if state in ("running", "degraded"):
                return
            time.sleep(0.2)
        raise AssertionError(f"the container is not up after {BOOT_SECONDS} s: {state}\n{self.log()}")
