"""Known vulnerabilities in what is pinned (pip-audit), and suspicious patterns in what we wrote (bandit).

    python .ci/audit.py [--online]

Status 1 for findings alone. Without a network, or behind an index without a list of vulnerabilities, the
first half cannot be done: that is said, and fails with `--online` only.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("app", "workers", "migrations")
SECONDS = 300

ACCEPTED = {
    ("B404", "import subprocess"): "every command that is run is looked at by B603",
    (
        "B615",
        "model = AutoModelForImageTextToText.from_pretrained(where, dtype=kind, use_safetensors=True)",
    ): ("the operator's own choice of model; its fingerprint is compared, and only safetensors load"),
    ("B105", '"return_token_ids": True,'): "a switch of vLLM's, no password",
    ("B105", 'body |= {"prompt_logprobs": 0, "return_token_ids": True}'): "the same",
    ("B615", "processor: Any = AutoProcessor.from_pretrained(where)"): "the same model's",
    ("B615", "alone: CLIPVisionModel = CLIPVisionModel.from_pretrained(source, dtype=torch.float32)"): (
        "a directory that the training of the demo model has just written"
    ),
    ("B615", "whole = AutoModelForImageTextToText.from_pretrained(source, dtype=torch.float32)"): "the same",
}
"""Findings that no `noqa` with a reason stands beside, each line by itself."""


@dataclass(frozen=True)
class Vulnerabilities:
    """What pip-audit found: `{"name version": [ids]}`, how many packages it knew, how many it did not."""

    found: dict[str, list[str]]
    known: int
    unknown: int


def vulnerabilities(report: str) -> Vulnerabilities:
    """Read pip-audit's JSON."""
    listed = json.loads(report)["dependencies"]
    known = [entry for entry in listed if "skip_reason" not in entry]
    found = {
        f"{entry['name']} {entry['version']}": [v["id"] for v in entry["vulns"]]
        for entry in known
        if entry["vulns"]
    }
    return Vulnerabilities(found, len(known), len(listed) - len(known))


def unexplained(report: str, root: Path) -> list[str]:
    """Return bandit's findings without a reason: a `noqa` of the same rule on their line, or `ACCEPTED`.

    Bandit's B603 is ruff's S603; ruff refuses a `noqa` that is not needed.
    """
    lines = []
    for finding in json.loads(report)["results"]:
        rule, at = finding["test_id"], finding["line_number"]
        line = (root / finding["filename"]).read_text(encoding="utf-8").splitlines()[at - 1]
        explained = re.search(rf"# noqa: (\w+, ?)*S{rule[1:]}\b", line) or (rule, line.strip()) in ACCEPTED
        if not explained:
            lines.append(f"{finding['filename']}:{at}: {rule} {finding['issue_text']}")
    return lines


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603  ours
        [sys.executable, "-m", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )


def check_dependencies(*, online: bool) -> bool:
    """Ask pip-audit about every pinned version; say what came of it, return whether that is good enough."""
    try:
        done = _run(
            "pip_audit",
            "-r",
            "constraints.txt",
            "--no-deps",
            "--disable-pip",
            "-f",
            "json",
            "--progress-spinner",
            "off",
        )
        report = vulnerabilities(done.stdout)
    except (ValueError, KeyError, subprocess.TimeoutExpired) as error:
        last = (
            done.stderr.strip().splitlines()[-1:] if not isinstance(error, subprocess.TimeoutExpired) else []
        )
        say(f"NOT CHECKED for known vulnerabilities: no list of them can be reached. {' '.join(last)[:200]}")
        return not online
    if not report.known:
        say(f"NOT CHECKED for known vulnerabilities: the index knows none of {report.unknown} packages.")
        return not online
    for package, ids in report.found.items():
        say(f"{package}: {', '.join(ids)}")
    say(
        f"Checked {report.known} pinned packages: {len(report.found)} with known vulnerabilities; "
        f"{report.unknown} unknown."
    )
    return not report.found


def check_sources() -> bool:
    """Run bandit over our sources; say what it found, return whether that is nothing."""
    done = _run("bandit", "-q", "-f", "json", "-r", *SOURCES)
    if done.returncode not in (0, 1):
        say(f"bandit did not run: {done.stderr.strip()[-500:]}")
        return False
    found = unexplained(done.stdout, ROOT)
    for line in found:
        say(line)
    counted = len(json.loads(done.stdout)["results"])
    say(f"bandit: {counted} findings in {', '.join(SOURCES)}, {len(found)} of them without a reason.")
    return not found


def say(line: str) -> None:
    """Write a line for whoever reads the build's log."""
    sys.stdout.write(line + "\n")


def main(arguments: list[str]) -> int:
    """Check both; 0 if nothing was found."""
    good = [check_sources(), check_dependencies(online="--online" in arguments)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
