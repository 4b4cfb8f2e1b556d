"""The script of vaultd-backup.service, with a vaultd that makes empty backups."""

import os
import subprocess

import pytest

from support import REPOSITORY

OLDER = ["vaultd-20260101T000000Z.backup", "vaultd-20260102T000000Z.backup", "vaultd-20260103T000000Z.backup"]


@pytest.fixture
def kept(tmp_path):
    """Runs the script with `KEEP` beside three backups: its exit status, and what is left of those."""
    stub = tmp_path / "vaultd"
    stub.write_text('#!/bin/sh\nfor out; do :; done\n: > "$out"\n')
    stub.chmod(0o755)
    backups = tmp_path / "backups"
    backups.mkdir()
    for name in OLDER:
        (backups / name).touch()

    def run(keep):
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "KEEP": keep}
        ran = subprocess.run([REPOSITORY / "systemd/vaultd-backup", backups], env=environment, check=False)
        left = sorted(path.name for path in backups.iterdir())
        return ran.returncode, [name for name in left if name in OLDER], len(left)

    return run


def test_the_newest_are_kept(kept):
    assert kept("3") == (0, OLDER[1:], 3)


@pytest.mark.parametrize("keep", ["0", "-1", "many"])
def test_a_number_that_would_keep_none_makes_and_deletes_nothing(kept, keep):
    assert kept(keep) == (2, OLDER, 3)
