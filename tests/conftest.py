"""What every test shares: one thread for math libraries, a kept cache of compiled programs, repeatable properties."""

import os
from collections.abc import Iterator

for _name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

from .kafka_secure import Secure, secure_broker  # noqa: E402

# Derandomised: the same graphs in every run, so the kept cache holds their compiled programs. To search for more,
# run with `--hypothesis-profile=explore`.
_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile(
    "undertow", derandomize=True, deadline=None, database=None, max_examples=20, suppress_health_check=_SLOW
)
settings.register_profile("explore", deadline=None, max_examples=200, print_blob=True, suppress_health_check=_SLOW)
settings.load_profile("undertow")


def pytest_configure(config: pytest.Config) -> None:
    """A second run of the tests finds the programs of the first."""
    os.environ.setdefault("UNDERTOW_CACHE_DIR", str(config.rootpath / ".pytest_cache" / "undertow"))


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """A real broker with every kind of listener."""
    with secure_broker(tmp_path_factory.mktemp("secure")) as started:
        yield started
