"""A service that lacks what its codec processes need to start."""

import os
import resource

import pytest

from tests.isolation.scenes import poisoned_pool
from webpd.errors import UnfitError


# Not among the tests of the pool, which look for what it leaves: Python before 3.11.4 leaves two descriptors of its own
# where it can't have more to start a process.
def test_a_service_out_of_descriptors_says_so() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 1, hard))
    try:
        with poisoned_pool() as pool, pytest.raises(UnfitError, match="Too many open files"):
            pool.ready()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
