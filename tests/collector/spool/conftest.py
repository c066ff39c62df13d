"""Spools for tests: on memory under virtual time."""

import pytest

from collector.config import Config
from tests.collector.spool.rows import config_of


@pytest.fixture
def memory() -> Config:
    return config_of(":memory:")
