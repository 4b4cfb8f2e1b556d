"""Boots one container for all tests of this directory. They are one story, in the order of the file."""

import pytest

from container import Container


@pytest.fixture(scope="session")
def container():
    container = Container()
    try:
        yield container
    finally:
        container.stop()


def pytest_runtest_makereport(item, call):
    """What comes after a failure in a story says nothing new."""
    if call.excinfo is not None and call.when != "teardown":
        item.session.shouldstop = f"{item.name} failed"
