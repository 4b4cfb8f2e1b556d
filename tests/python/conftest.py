"""Starts one real vault for all tests."""

import shutil
import tempfile

import pytest

from support import SEED, Vault

LOG_LINES = 100


def pytest_report_header():
    return f"VAULT_TEST_SEED={SEED}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A failure is shown with what the vault has said last."""
    report = yield
    if report.failed and "vault" in item.funcargs:
        lines = item.funcargs["vault"].log().splitlines()
        report.sections.append(("vaultd's log", "\n".join(lines[-LOG_LINES:])))
    return report


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
