"""Starts one real vault for all tests."""

import shutil
import tempfile

import pytest

from support import SEED, Vault


def pytest_report_header():
    return f"VAULT_TEST_SEED={SEED}"


@pytest.fixture(scope="session")
def vault():
    # Short on purpose: the path of a Unix socket has at most 107 bytes, and pytest's own directories are long.
    directory = tempfile.mkdtemp(prefix="vd-", dir="/tmp")
    try:
        vault = Vault(directory)
        try:
            yield vault
        finally:
            vault.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
