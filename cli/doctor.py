"""``vmkla doctor``: list what works on this machine, and how to install what is missing."""

from __future__ import annotations

from vmkla.cli.console import print_json, print_line
from vmkla.cli.options import Json


def doctor(json: Json = False) -> None:
    """Show what works on this machine, and the command that installs what is missing."""
    from vmkla.engines.doctor import diagnose

    diagnosis = diagnose()
    if json:
        print_json(diagnosis.to_dict())
        return
    print_line(f"vmkla {diagnosis.vmkla}, Python {diagnosis.python}, {diagnosis.platform}")
    quota = "" if diagnosis.quota is None else f" (quota {diagnosis.quota:g})"
    print_line(f"{diagnosis.cpu}, {diagnosis.cores} cores{quota}")
    group = ""
    for finding in diagnosis.findings:
        if finding.group != group:
            group = finding.group
            print_line()
            print_line(group)
        print_line(f"  {'ok' if finding.works else '--':2}  {finding.name:20} {finding.detail}")
        if finding.fix:
            print_line(f"      {'':20} for {finding.needed_for}: {finding.fix}")
    missing = ", ".join(finding.name for finding in diagnosis.missing)
    print_line()
    print_line(f"CPU inference: {f'not ready, without {missing}' if missing else 'ready'}")
