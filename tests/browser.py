"""A real headless Chromium for tests of pages, spoken to over the pipe of its DevTools protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

TEXT = """
(function text(node) {
  if (node.nodeType === Node.TEXT_NODE) return node.textContent;
  if (["SCRIPT", "STYLE", "TEMPLATE"].includes(node.nodeName)) return "";
  const below = [...(node.shadowRoot ? node.shadowRoot.childNodes : []), ...node.childNodes];
  return below.map(text).join(" ");
})(document.body)
"""
"""All text of a page, that of its custom elements too."""


class Browser:
    """One page in a browser.

    Args:
        url: What it opens.
        profile: An empty folder for what the browser keeps.
    """

    def __init__(self, url: str, profile: Path) -> None:
        assert CHROMIUM is not None
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        flags = (
            "--headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1500,1100 --remote-debugging-pipe"
        )
        # Chromium reads commands from its file 3 and writes answers to its file 4; dash knows no files past 9
        shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out}'
        command = ["bash", "-c", shell, CHROMIUM, *flags.split(), f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._number = 0
        self._session: dict[str, str] = {}
        [page] = [t for t in self._call("Target.getTargets")["targetInfos"] if t["type"] == "page"]
        attached = self._call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        self.go(url)

    def go(self, url: str) -> None:
        """Open another page."""
        self._call("Page.navigate", url=url)

    def run(self, script: str) -> Any:
        """Return what a script gives in the page."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def wait_for(self, *words: str, seconds: float = 90) -> str:
        """Wait until the page shows all these words; return its text."""
        deadline = time.monotonic() + seconds
        while True:
            text = str(self.run(TEXT))
            missing = [word for word in words if word not in text]
            if not missing:
                return text
            assert time.monotonic() < deadline, f"the page does not show {missing}, but: {text}"
            time.sleep(0.5)

    def screenshot(self, file: Path) -> None:
        """Write a picture of the page."""
        file.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def _call(self, method: str, **parameters: Any) -> Any:
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self._buffer:
                data = os.read(self._in, 1 << 20)
                assert data, "the browser has gone"
                self._buffer += data
            line, _, self._buffer = self._buffer.partition(b"\0")
            answer = json.loads(line)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._in)
        os.close(self._out)
