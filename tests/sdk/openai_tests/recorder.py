"""A pytest plugin for other people's tests: gives their client a key, and writes down how every test went."""

import os
import sys

OUTCOMES = os.environ.get("TOLLWAY_TEST_OUTCOMES")
# How each test went so far: a failure of any of its phases is its outcome.
seen = {}


def pytest_collection_finish(session):
    """In the process that runs the tests, before the first: the client is made with this key."""
    conftest = sys.modules.get("tests.conftest")
    if conftest is not None:
        conftest.api_key = os.environ["TOLLWAY_TEST_SECRET"]


def pytest_runtest_logreport(report):
    """In the process that gathers the reports of all."""
    if report.failed:
        seen[report.nodeid] = "failed"
    elif report.skipped:
        seen.setdefault(report.nodeid, "skipped")
    elif report.when == "call":
        seen.setdefault(report.nodeid, "passed")


def pytest_sessionfinish(session):
    """Writes them, a line each."""
    if OUTCOMES and not hasattr(session.config, "workerinput"):
        with open(OUTCOMES, "w", encoding="utf-8") as file:
            file.writelines(f"{name}\t{outcome}\n" for name, outcome in sorted(seen.items()))
