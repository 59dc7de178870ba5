"""`trunkline lint`: what is wrong with recorded messages."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from proxy.lint import lint_message
from proxy.recordings import RecordingError, from_text, read_recording
from proxy.settings import SettingsError

__all__ = ["lint_file"]

_STYLES = {"error": "bold red", "warning": "yellow", "trouble": "magenta"}


def lint_file(path: str) -> bool:
    """Lint every message of a recording and show the findings; whether none is an error. Raises SettingsError."""
    console = Console(highlight=False, soft_wrap=True)
    errors = count = 0
    try:
        for recorded in read_recording(path):
            count += 1
            data = recorded.data
            if not recorded.place and b"\r\n" not in data:
                data = from_text(data)  # saved as text: Content-Length can't be right
            findings = lint_message(data)
            line = data.lstrip().partition(b"\n")[0].rstrip().decode("utf-8", "backslashreplace")
            if findings or count == 1:
                place = f"{recorded.place}: " if recorded.place else ""
                console.print(Text(f"{place}{line}", style="bold"))
            for finding in findings:
                errors += finding.level == "error"
                console.print(
                    Text.assemble(
                        (f"  {finding.level:7} ", _STYLES[finding.level]),
                        (finding.where, "cyan"),
                        f" {finding.what} ",
                        (f"[{finding.source}]", "dim"),
                    )
                )
    except RecordingError as error:
        raise SettingsError([str(error)]) from None
    if not count:
        raise SettingsError([f"{path}: holds no SIP message that can be read (what goes over TLS can't)"])
    console.print(Text(f"{count} messages, {errors} errors", style="red" if errors else "green"))
    return not errors
