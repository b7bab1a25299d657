"""The recipes of docs/deploy promise what the program keeps: flags, statuses, paths, a read-only root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tests import ROOT
from vmkla import errors
from vmkla.cli.main import app
from vmkla.video.live import priority, service

VMKLA = Path(sys.executable).with_name("vmkla")
DEPLOY = ROOT / "docs" / "deploy"
USER = 10001
"""The user of the container, by number."""

READ_ONLY = r"""
set -eu
locked='^(nosuid|nodev|noexec|noatime|nodiratime|relatime)$'
mount --bind "$1" "$1"
cd "$1"
while read -r _ place _ options _; do
  place=$(printf '%b' "$place")
  kept=$(printf '%s' "$options" | tr , '\n' | grep -E "$locked" | tr '\n' ,)
  case $place in
    "$1" | /proc | /proc/*) ;;
    *) mount -o "remount,bind,${kept}ro" "$place" ;;
  esac
done < /proc/self/mounts
shift
exec unshare --user --map-user="$USER_ID" --map-group="$USER_ID" "$@"
"""
"""Makes every file system read-only but the folder given first; runs the rest as a user without rights."""


def settings() -> dict[str, list[str]]:
    """Every setting of the unit's [Service], with all of its values in order."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "vmkla-live.service").read_text(encoding="utf-8").splitlines():
        if line[:1].isalpha():
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def container() -> str:
    return (DEPLOY / "Containerfile").read_text(encoding="utf-8")


def infer_flags() -> set[str]:
    command = typer.main.get_command(app).commands["infer"]  # type: ignore[attr-defined]
    return {flag for parameter in command.params for flag in parameter.opts}


def variables() -> dict[str, str]:
    lines = (DEPLOY / "vmkla-live.env").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_service_calls_the_program_with_flags_that_it_has() -> None:
    (start,) = settings()["ExecStart"]
    assert start.split()[1] == "infer" and {"VMKLA_SOURCE", "VMKLA_FLAGS"} == variables().keys()
    used = re.findall(r"--[a-z-]+", f"{start} {variables()['VMKLA_FLAGS']}")
    assert {"--live", "--source", "--model"} <= set(used) <= infer_flags()


def test_the_service_restarts_what_a_restart_can_cure() -> None:
    (refused,) = settings()["RestartPreventExitStatus"]
    final = {
        errors.UsageError,
        errors.BadInputError,
        errors.MissingDependencyError,
        errors.GateError,
        errors.ArtefactMismatchError,
    }
    assert {int(status) for status in refused.split()} == {error.exit_status for error in final}
    assert str(errors.DegradedError.exit_status) not in refused.split()
    assert settings()["SuccessExitStatus"] == [str(errors.StoppedError(15, "").exit_status)]


def test_the_service_grants_the_priority_that_live_mode_takes() -> None:
    assert settings()["LimitNICE"] == [str(priority._NICE)]


def test_the_watchdog_waits_for_several_reports() -> None:
    assert settings()["Type"] == ["notify"]
    assert float(settings()["WatchdogSec"][0]) >= 10 * service._EVERY_S


def test_the_service_ends_the_display_process_first() -> None:
    """Else systemd ends the recorder before the last frames reached it."""
    assert settings()["KillMode"] == ["mixed"]


@pytest.mark.hardware
def test_systemd_accepts_the_service(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "vmkla-live.service"
    text = (DEPLOY / unit.name).read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/vmkla/bin/vmkla", str(VMKLA)), encoding="utf-8")
    verified = subprocess.run([analyze, "verify", unit], capture_output=True, text=True, check=False)
    assert verified.returncode == 0 and unit.name not in verified.stderr, verified.stderr
    command = [analyze, "security", "--offline=yes", "--threshold=20", "--no-pager", unit]
    rated = subprocess.run(command, capture_output=True, text=True, check=False)
    assert rated.returncode == 0, rated.stdout


def test_the_container_runs_the_program_as_a_user_without_rights() -> None:
    text = container()
    assert re.findall(r"^USER (.+)$", text, re.MULTILINE) == [f"{USER}:{USER}"]
    assert json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0]) == ["vmkla"]
    assert 'vmkla = "vmkla.cli.main:run"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_container_replaces_the_opencv_that_the_package_asks_for() -> None:
    asked = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert '"opencv-python>=' in asked
    assert "uninstall --yes opencv-python " in container() and "opencv-python-headless" in container()


def test_the_container_is_built_and_fetches_nothing() -> None:
    steps = container()
    assert len(re.findall(r"\binstall (?!--no-index )", steps)) == 0
    assert not re.search(r"\b(apt-get|apt|curl|wget|ADD)\b", steps)


def read_only(command: list[object], out: Path) -> list[str]:
    """The command line that runs ``command`` without a network, and with only ``out`` to write to."""
    namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--net", "--ipc"]
    variables = ["env", "-i", f"PATH={os.environ['PATH']}", f"USER_ID={USER}"]
    return [*variables, *namespaces, "sh", "-c", READ_ONLY, "sh", str(out), *map(str, command)]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """The only folder that can be written to in the namespace."""
    folder = tmp_path / "out"
    folder.mkdir()
    probe = "import os, sys; print(os.getuid(), *(path for path in sys.argv[1:] if os.access(path, os.W_OK)))"
    places = ["/", "/tmp", "/var/tmp", "/dev/shm", sys.prefix, tmp_path, folder]
    tried = run(read_only([sys.executable, "-I", "-c", probe, *places], folder), folder)
    if tried.returncode:
        pytest.skip(f"no namespace with a read-only root here: {tried.stderr.strip()}")
    assert tried.stdout.split() == [str(USER), str(folder)]
    return folder


@pytest.mark.hardware
def test_files_are_segmented_with_nothing_but_the_output_folder(out: Path) -> None:
    clip = run(read_only([VMKLA, "sample", "clip.mp4", "--frames", 4, "--size", 64], out), out)
    assert clip.returncode == 0, clip.stderr
    done = run(read_only([VMKLA, "infer", "--video", "clip.mp4", "--out", "run"], out), out)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (out / "run").iterdir()} == {
        "overlay.mp4",
        "frames.jsonl",
        "lesions.jsonl",
        "procedure.html",
        "report.json",
    }
    assert {path.name for path in out.iterdir()} == {"clip.mp4", "run"}


@pytest.mark.hardware
def test_live_mode_runs_with_nothing_but_the_output_folder(out: Path) -> None:
    flags = ["--record", "--threads", 1, "--duration-s", 3, "--out", "run"]
    flags += ["--max-staleness-ms", 1000]  # one slow core keeps that
    done = run(read_only([VMKLA, "infer", "--source", "sample://?size=64x64", "--live", *flags], out), out)
    assert done.returncode in (0, 7), done.stderr  # 7 where others leave the machine too little
    report = json.loads((out / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["ai_s"]["on"] > 0
    recorded = {path.name for path in (out / "run" / "recording").glob("*.mp4")}
    assert recorded == {"raw-000001.mp4", "overlay-000001.mp4"}
    assert sorted(path.name for path in out.iterdir()) == ["run"]
