"""Run live mode for the faults, in a process of its own: ``python tests/faults/victim.py SETTINGS``.

It is what ``vmkla infer --live`` runs, with a screen that measures in place of a window, and with a network
that fails on command where the settings name a file of orders.
"""

from __future__ import annotations

import json
import shutil
import sys
import zlib
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # behind the installed vmkla

import numpy as np

from tests.faults.saboteur import loader
from vmkla.errors import VmklaError
from vmkla.video.cancellation import stop_on_signals
from vmkla.video.live.conformance.measuring import MeasuringScreen
from vmkla.video.live.monitor.access import MonitorOptions
from vmkla.video.live.options import LiveOptions
from vmkla.video.live.recording.options import RecordOptions
from vmkla.video.live.run import run_live
from vmkla.video.media.address import parse_address
from vmkla.video.media.decoding import VideoSource


def known_pictures(path: Path) -> frozenset[int]:
    """Compute the crc32 of every frame of a file, decoded by file mode's reader."""
    frames = VideoSource(path, deinterlace="no").frames()  # what is shown keeps both fields
    return frozenset(zlib.crc32(np.ascontiguousarray(frame.rgb).data) for frame in frames)


def main() -> int:
    """Run live mode with the settings, and write what was measured beside the report."""
    settings: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    out_dir = Path(settings["out_dir"])
    known = known_pictures(Path(settings["source"])) if settings["known"] else None
    order = settings["order"]
    load = loader(
        settings["model"], threads=settings["threads"], order=None if order is None else Path(order)
    )
    options = dict(settings["options"])
    if options.get("monitor") is not None:
        options["monitor"] = MonitorOptions(*options["monitor"])
    if options.get("recording") is not None:
        options["recording"] = RecordOptions(**options["recording"])
    with open(settings["log"], "w", encoding="utf-8") as log, stop_on_signals() as cancel:
        screen = MeasuringScreen(known=known, log=log)
        status = 0
        try:
            run_live(
                load,
                parse_address(settings["source"]),
                LiveOptions(out_dir=out_dir, **options),
                cancel,
                screen=screen,
            )
        except VmklaError as error:
            print(error, file=sys.stderr)
            status = error.exit_status
        finally:
            measured = {name: phase.to_dict() for name, phase in screen.phases.items()}
            if (out_dir / "report.json").exists():
                shutil.copy(out_dir / "report.json", settings["report"])
            Path(settings["measured"]).write_text(json.dumps(measured, indent=1), encoding="utf-8")
    return status


if __name__ == "__main__":
    sys.exit(main())
