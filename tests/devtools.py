"""A headless Chromium that is spoken to as its own developer tools do.

The protocol: https://chromedevtools.github.io/devtools-protocol; each message is JSON on a websocket.
"""

import base64
import json
import shutil
import subprocess
import time
from contextlib import closing, contextmanager

import websocket  # comes with jupyter_server

NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0"]
SIZE = (1280, 960)
"""Of the window, in pixels: a small laptop."""


def wait(told, seconds, every=0.3):
    """The first true value of told(); TimeoutError after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = told()
        if found:
            return found
        time.sleep(every)
    raise TimeoutError(f"nothing after {seconds} s")


@contextmanager
def browser(folder):
    """The one Page of a browser that ends with the block; folder: of its own files, new."""
    how = [*OPTIONS, f"--window-size={SIZE[0]},{SIZE[1]}", f"--user-data-dir={folder}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([BROWSER, *how, "about:blank"], **quiet)
    try:
        port = folder / "DevToolsActivePort"
        number, path = wait(lambda: port.is_file() and port.read_text().split(), 60)
        address = f"ws://127.0.0.1:{number}{path}"
        socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        with closing(socket):
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(60)


class Page:
    """The one page of a browser, by the websocket of that browser."""

    def __init__(self, socket):
        self.socket, self.number, self.session, self.events = socket, 0, "", []
        pages = self.send("Target.getTargets")["targetInfos"]
        (target,) = [one["targetId"] for one in pages if one["type"] == "page"]
        joined = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = joined["sessionId"]
        for domain in ("Page", "Runtime", "Log", "DOM"):
            self.send(f"{domain}.enable")
        self.send("Emulation.setFocusEmulationEnabled", enabled=True)  # as if one sat before it

    def send(self, method, **parameters):
        """The answer to one message; what the browser tells meanwhile goes to `events`."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def run(self, script):
        """The value of a JavaScript expression, awaited; AssertionError where it throws."""
        how = {"awaitPromise": True, "returnByValue": True, "userGesture": True}
        answer = self.send("Runtime.evaluate", expression=script, **how)
        assert "exceptionDetails" not in answer, f"{script}\n{answer['exceptionDetails']}"
        return answer["result"].get("value")

    def wait(self, script, seconds):
        """The first true value of an expression; TimeoutError that names it."""
        try:
            return wait(lambda: self.run(script), seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {script}") from None

    def click(self, element):
        """A press of the mouse in the middle of what the expression `element` gives."""
        script = f"(() => {{ const box = ({element}).getBoundingClientRect(); "
        script += "return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        x, y = self.run(script)
        for kind in ("mousePressed", "mouseReleased"):
            where = {"x": x, "y": y, "button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **where)

    def choose_file(self, element, file):
        """Click on a button that asks for a file, and give it this one."""
        self.send("Page.setInterceptFileChooserDialog", enabled=True)
        self.click(element)

        def asked():
            self.run("1")  # reads what the browser has told
            return [one for one in self.events if one["method"] == "Page.fileChooserOpened"]

        node = wait(asked, 30)[-1]["params"]["backendNodeId"]
        self.send("DOM.setFileInputFiles", files=[str(file)], backendNodeId=node)

    def errors(self):
        """What the console of the page has shown as errors so far, as texts."""
        self.run("1")
        found = []
        for one in self.events:
            kind, told = one["method"], one["params"]
            if kind == "Runtime.exceptionThrown":
                thrown = told["exceptionDetails"]
                found.append(thrown.get("exception", {}).get("description", thrown["text"]))
            elif kind == "Runtime.consoleAPICalled" and told["type"] == "error":
                parts = [part.get("value", part.get("description", "")) for part in told["args"]]
                found.append(" ".join(map(str, parts)))
            elif kind == "Log.entryAdded" and told["entry"]["level"] == "error":
                found.append(f"{told['entry']['text']} {told['entry'].get('url', '')}")
        return found

    def height(self, pixels):
        """Make the window so high, whatever the screen; 0: as it was."""
        size = {"width": SIZE[0], "height": pixels, "deviceScaleFactor": 1, "mobile": False}
        if pixels:
            self.send("Emulation.setDeviceMetricsOverride", **size)
        else:
            self.send("Emulation.clearDeviceMetricsOverride")

    def picture(self, file):
        """A PNG of what the window shows."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))
