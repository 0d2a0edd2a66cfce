"""The tests on everything gopush runs on: `nox` for all of it, `nox -s debian -- -x tests/comet` for a part."""

import nox

EDITABLE = ("-e", ".[test]", "--config-settings", "editable_mode=compat")
DEBIAN_PACKAGES = (
    "python3-twisted python3-autobahn python3-kazoo python3-msgpack python3-openssl "
    "python3-service-identity python3-prometheus-client python3-jwt python3-cryptography"
)


@nox.session(python=["3.11", "3.12", "3.13"], venv_backend="venv")
def newest(session: nox.Session) -> None:
    """The newest version of every dependency, on each Python that is installed."""
    session.install(*EDITABLE)
    session.run("python", "-m", "pytest", *session.posargs)


@nox.session(python="/usr/bin/python3", venv_backend="venv", venv_params=["--system-site-packages"])
def debian(session: nox.Session) -> None:
    """Debian 12's own versions; from the registry only what it does not have."""
    session.log(f"needs: apt-get install {DEBIAN_PACKAGES}")
    session.install(
        *("pytest", "pytest-xdist", "hypothesis", "selenium", "axe-core-python", "six", "quickjs", "thriftpy2"),
        "httptools",  # of the older release that a test upgrades from
    )
    session.install("--no-deps", "txredisapi")
    # Debian calls its kazoo 2.8.0.dev0, which is less than 2.8 to pip.
    session.install("--no-deps", *EDITABLE)
    session.run("python", "-c", "import twisted; print('Twisted', twisted.__version__)")
    session.run("python", "-m", "pytest", *session.posargs)
