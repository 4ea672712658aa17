"""A thousand damaged pictures of every kind: refused or read, within two seconds and 200 MiB each.

Each kind is read in a child process that the kernel holds to both limits; see `tests.kit.damaged`.
"""

import json
import os
import subprocess
import sys

import pytest

from tests.kit.damaged import KINDS, damaged, originals


def read_in_a_child(kind: str, seed: int, count: int) -> dict[str, int]:
    """Return how many files had which outcome; fails with the child's own words."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.kit.damaged", kind, str(seed), str(count)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, f"{kind}, seed {seed}: status {done.returncode}\n{done.stderr[-3000:]}"
    outcomes: dict[str, int] = json.loads(done.stdout)
    return outcomes


@pytest.mark.parametrize("kind", KINDS)
class TestDamaged:
    def test_a_thousand(self, kind: str) -> None:
        outcomes = read_in_a_child(kind, 1, 1000)
        assert sum(outcomes.values()) == 1000
        assert set(outcomes) <= {"read", "PictureInvalid", "PictureTooLarge", "PictureTooManyPixels"}
        assert all(outcomes[name] > 20 for name in ("read", "PictureInvalid", "PictureTooManyPixels"))

    @pytest.mark.long
    @pytest.mark.parametrize("seed", range(2, 12))
    def test_many_thousands(self, kind: str, seed: int) -> None:
        assert sum(read_in_a_child(kind, seed, 10_000).values()) == 10_000

    def test_the_same_for_the_same_seed(self, kind: str) -> None:
        assert list(damaged(kind, 7, 40)) == list(damaged(kind, 7, 40)) != list(damaged(kind, 8, 40))


def damaged_by(limit: str) -> subprocess.CompletedProcess[str]:
    """Let the child do something that its limits forbid, to see that they hold."""
    broken = {
        "memory": "lambda data, limits: P.Picture(P.Image.new('RGB', (9000, 9000)), '')",
        "time": "lambda data, limits: next(i for i in iter(int, 1) if i)",
        "error": "lambda data, limits: 1 // 0",
    }[limit]
    code = (
        "import sys; import app.kit.pictures as P; import tests.kit.damaged as D; "
        f"read, n = D.read_picture, [0]; broken = {broken}\n"
        "def once(data, limits):\n"
        "    n[0] += 1\n"
        "    return read(data, limits) if n[0] == 1 else broken(data, limits)\n"
        "D.read_picture, D.SECONDS = once, 0.2\n"
        "sys.exit(D.main('BMP', 1, 3))"
    )
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=60, check=False
    )


class TestLimits:
    """A limit that is not enforced would make every test above pass."""

    def test_memory(self) -> None:
        assert "MemoryError" in damaged_by("memory").stderr

    def test_time(self) -> None:
        assert damaged_by("time").returncode == -27, "SIGPROF"

    def test_any_other_error(self) -> None:
        assert "ZeroDivisionError" in damaged_by("error").stderr


@pytest.mark.parametrize("kind", KINDS)
def test_originals_are_whole(kind: str) -> None:
    assert len({len(data) for data in originals(kind)}) >= 3
