"""The parts of the page that are made anew for each answer, as HTML. Everything that a user wrote is escaped."""

from __future__ import annotations

from html import escape
from pathlib import Path
from urllib.parse import quote

from flowsep.web.results import Panel, Result

# How a message begins, which tells its kind also where colours are not told apart.
KINDS = {"error": "Not possible: ", "info": "", "done": "Done: "}


def notice(kind: str, text: str) -> str:
    """A line about what happened: an error, some information, or that something is done."""
    role = "alert" if kind == "error" else "status"
    return f'<p class="notice {kind}" role="{role}"><b>{KINDS[kind]}</b>{escape(text)}</p>'


def result_html(result: Result) -> str:
    """All panels side by side, what was understood, what to know, and the download."""
    lines = [notice("info", note) for note in result.notes]
    if result.understood:
        lines.insert(0, notice("info", f"Understood: {'; '.join(result.understood)}"))
    panels = "".join(panel_html(panel) for panel in result.panels)
    sum_error = result.document["scores"]["sum_error_db"]
    return f"""
<section class="result" aria-label="Result">
  <header>
    <h2>Result</h2>
    <a class="download" id="download" href="{url(result.archive)}" download="{escape(result.archive.name)}">
      Download all (zip)</a>
  </header>
  {"".join(lines)}
  <div class="panels">{panels}</div>
  <p class="small">The players are equally loud, so that you compare sound and not level; files that you download keep
  the level they have in your recording. The sounds and everything else add up to the recording again
  (to {sum_error:.0f} dB). The zip holds all files in full quality and a JSON file with every setting.</p>
</section>"""


def panel_html(panel: Panel) -> str:
    """A recording with its picture, its player and the file to keep."""
    gain = f"player {panel.player_gain_db:+.1f} dB" if panel.player_gain_db else "player at its own level"
    return f"""
<article class="panel {panel.role}">
  <p class="role">{panel.role}</p>
  <h3 title="{escape(panel.title)}">{escape(panel.title)}</h3>
  <p class="note">{escape(panel.note)}</p>
  <img src="{url(panel.picture)}" alt="Spectrogram of {escape(panel.title)}">
  <audio controls preload="metadata" src="{url(panel.player)}" aria-label="{escape(panel.title)}"></audio>
  <p class="foot"><span>{gain}</span>
    <a href="{url(panel.audio)}" download="{escape(panel.audio.name)}"
      aria-label="Download {escape(panel.title)}">Download</a></p>
</article>"""


def url(path: Path) -> str:
    """Where the server gives a file away, below the address of the page."""
    return f"gradio_api/file={quote(path.as_posix())}"
