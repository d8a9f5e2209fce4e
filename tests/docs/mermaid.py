"""Renders Mermaid pictures as GitHub does: Mermaid itself, in a headless Chromium.

Mermaid comes from the npm registry, once, in one version, checked by its hash, into pytest's cache folder.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path

VERSION = "11.17.2"
INTEGRITY = "sha512-V6K3C8EBdEsPFZXSKMJe6ppQOENxuHARr9GvHX4hh47lAbhMRD9qf4oEK7LoaRQxULMa80/qt5gHO73aCleBBg=="
_FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    # The page's own clock runs on until all pictures are drawn, however slow the machine is.
    "--virtual-time-budget=30000",
)
_SECONDS = 120
_PAGE = """<!doctype html><meta charset="utf-8"><body style="margin:16px;background:white">
<div id="drawn"></div><pre id="report" hidden></pre>
<script src="mermaid.min.js"></script>
<script>
(async () => {
  const report = [];
  const textOf = (frame) => {
    const copy = frame.cloneNode(true);
    copy.querySelectorAll("style").forEach((style) => style.remove());
    return copy.textContent;
  };
  mermaid.initialize({ startOnLoad: false, securityLevel: "strict" });
  for (const [number, source] of SOURCES.entries()) {
    try {
      const { svg, diagramType } = await mermaid.render("picture" + number, source);
      const frame = document.createElement("div");
      frame.innerHTML = svg;
      document.getElementById("drawn").append(frame);
      const box = frame.querySelector("svg").getBoundingClientRect();
      report.push({ type: diagramType, text: textOf(frame), width: box.width, height: box.height });
    } catch (error) {
      report.push({ error: String(error.message ?? error) });
    }
  }
  const element = document.getElementById("report");
  element.textContent = JSON.stringify(report);
  element.dataset.done = "yes";
})();
</script>"""


def what_is_missing() -> str | None:
    """What this machine lacks for rendering; None if nothing."""
    missing = [name for name in ("chromium", "npm") if shutil.which(name) is None]
    return f"not on this machine: {', '.join(missing)}" if missing else None


def fetched(cache: Path) -> Path:
    """Mermaid's one script, fetched by npm unless it was before."""
    script = cache / f"mermaid-{VERSION}.min.js"
    if not script.exists():
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            command = ["npm", "pack", f"mermaid@{VERSION}", "--silent", "--pack-destination", folder]
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=_SECONDS)
            (archive,) = Path(folder).glob("*.tgz")
            found = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
            if found != INTEGRITY:
                raise RuntimeError(f"mermaid {VERSION} is not the one that is known: {found}")
            with tarfile.open(archive) as tar:
                content = tar.extractfile("package/dist/mermaid.min.js")
                assert content is not None
                part = Path(folder) / "mermaid.min.js"
                part.write_bytes(content.read())
            part.replace(script)
    return script


def rendered(sources: Iterable[str], script: Path) -> list[dict[str, object]]:
    """Render each picture. Return its type, texts and size, or the error."""
    with tempfile.TemporaryDirectory() as folder:
        output = _page_after_drawing(Path(folder), list(sources), script)
    report = re.search(r'<pre id="report" hidden="" data-done="yes">(.*?)</pre>', output, re.DOTALL)
    if report is None:
        raise RuntimeError(f"the page did not come to its end:\n{output[-2000:]}")
    pictures: list[dict[str, object]] = json.loads(html.unescape(report[1]))
    return pictures


def _page_after_drawing(folder: Path, sources: list[str], script: Path) -> str:
    shutil.copy(script, folder / "mermaid.min.js")
    # Inside of a script element only this sequence would be read as HTML.
    data = json.dumps(sources).replace("</", "<\\/")
    (folder / "page.html").write_text(_PAGE.replace("SOURCES", data), encoding="utf-8")
    command = ["chromium", *_FLAGS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder}/page.html"]
    done = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=_SECONDS)
    return done.stdout
