#!/usr/bin/env python3
"""Uses the server's page as people do, in headless Chromium: .ci/page.py HANDMILL MODEL [FOLDER FOR PICTURES]

Types, stops, edits, answers again, reloads and changes chats; looks for controls without a name and for a page that is wider than
its window. With a folder it leaves pictures there: light, dark and as narrow as a phone.
"""

import base64
import itertools
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

SECONDS = 60


class Browser:
    """One page of a Chromium that is spoken to through pipes (Chrome DevTools Protocol)."""

    def __init__(self, folder):
        path = shutil.which("chromium") or shutil.which("chromium-browser") or sys.exit("no chromium")
        (its_in, self.to), (self.of, its_out) = os.pipe(), os.pipe()

        def give():
            # Chromium reads from 3 and writes to 4. Copies out of the way first: one may be the other's number.
            a, b = os.dup(its_in), os.dup(its_out)
            os.dup2(a, 3), os.dup2(b, 4)

        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            [path, *arguments, "about:blank"], preexec_fn=give, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(its_in), os.close(its_out)
        self.numbers, self.rest, self.session = itertools.count(1), b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        number = next(self.numbers)
        message = {"id": number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.of, 1 << 16) or sys.exit("Chromium has gone")
            text, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(text)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            if answer.get("method") == "Runtime.exceptionThrown":
                sys.exit(f"the page failed: {answer['params']['exceptionDetails']}")
            if answer.get("method") == "Page.javascriptDialogOpening":
                # Not waited for: the call under way may be what opened it.
                accept = {"id": 0, "method": "Page.handleJavaScriptDialog", "params": {"accept": True}, "sessionId": self.session}
                os.write(self.to, json.dumps(accept).encode() + b"\0")

    def run(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (expression, result["exceptionDetails"])
        return result["result"].get("value")

    def wait(self, what):
        end = time.monotonic() + SECONDS
        while not self.run(f"Boolean({what})"):
            assert time.monotonic() < end, f"waited {SECONDS} s for {what}; the page says {self.run('document.body.innerText')!r}"
            time.sleep(0.05)

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete' && document.querySelector('#model option')")

    def type(self, text):
        self.call("Input.insertText", text=text)

    def press(self, key, modifiers=0):
        code = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38}[key]
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, modifiers=modifiers, **text)

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def window(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def end(self):
        self.process.kill()
        self.process.wait()


DONE = "!document.getElementById('send').hidden && document.querySelector('.message.assistant .figures')"
LAST = "[...document.querySelectorAll('.message.assistant')].at(-1)"


def button(name, within="document"):
    return f"[...{within}.querySelectorAll('button')].filter(b => !b.hidden && b.textContent === {json.dumps(name)}).at(-1)"


def say(page, text):
    page.run("document.getElementById('message').focus()")
    page.type(text)
    page.press("Enter")


def unnamed(page):
    """Roles of controls that a screen reader has no name for."""
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = ("button", "textbox", "combobox", "spinbutton", "link", "log", "complementary")
    value = lambda node, key: node.get(key, {}).get("value", "")
    return [value(n, "role") for n in nodes if not n["ignored"] and value(n, "role") in controls and not value(n, "name")]


def narrow_enough(page):
    wide = page.run("document.documentElement.scrollWidth - window.innerWidth")
    assert wide <= 0, f"the page is {wide} pixels wider than its window"


def use(page, address, pictures):
    page.window(1100, 800, "light")
    page.open(address)
    page.run(f"document.getElementById('settings').elements.max_tokens.value = 40")
    say(page, "What is the capital of France?")
    page.wait(DONE)
    assert page.run(f"{LAST}.querySelector('.content').textContent.trim()"), "no answer"
    assert re.search(r"\d+ tokens.*prompt of \d+.*first token after", page.run(f"{LAST}.querySelector('.figures').textContent"))
    print("a question is answered")

    # An answer without an end is stopped, and what there is of it stays.
    page.run("document.getElementById('settings').elements.max_tokens.value = 2000")
    say(page, "Tell me a very long story about a mill, with many chapters.")
    page.wait(f"document.querySelectorAll('.message.assistant').length === 2 && {LAST}.querySelector('.content')?.textContent.length > 20")
    page.press("Escape")
    page.wait(DONE)
    assert "stopped" in page.run(f"{LAST}.querySelector('.figures').textContent"), "the answer was not stopped"
    print("an answer is stopped")

    # An edited message is answered anew, and what followed it goes.
    page.run("document.getElementById('settings').elements.max_tokens.value = 16")
    first = "document.querySelector('.message.user')"
    page.run(f"{button('Edit', first)}.click()")
    page.run(f"{first}.querySelector('textarea').value = ''; {first}.querySelector('textarea').focus()")
    page.type("Name a river in Germany.")
    page.press("Enter", modifiers=2)
    page.wait(f"document.querySelectorAll('.message').length === 2 && {DONE}")
    assert page.run(f"{first}.querySelector('.content').textContent") == "Name a river in Germany."
    print("a message is edited")

    before = page.run(f"{LAST}.querySelector('.figures').textContent")
    page.run(f"{button('Answer again')}.click()")
    page.wait(f"{DONE} && {LAST}.querySelector('.figures').textContent !== {json.dumps(before)}")
    page.run(f"{button('Edit', LAST)}.click()")
    page.run(f"{LAST}.querySelector('textarea').value = 'The **Rhine**:\\n\\n```\\nline\\n```\\n- <b>one</b>\\n- two'")
    page.run(f"{button('Keep')}.click()")
    shape = page.run(f"[...{LAST}.querySelectorAll('.content *')].map(e => e.tagName).join()")
    assert shape == "P,STRONG,PRE,CODE,UL,LI,LI", shape
    print("an answer is made again, and edited")

    # Nothing is lost by a reload.
    page.open(address)
    assert "Rhine" in page.run("document.getElementById('log').textContent"), "the chat is lost"
    page.run(f"{button('New chat')}.click()")
    assert page.run("document.querySelectorAll('.message').length") == 0
    say(page, "Hello")
    page.wait(DONE)
    page.run("document.getElementById('panel-toggle').click()")
    assert page.run("document.querySelectorAll('#chats li').length") == 2
    page.run("[...document.querySelectorAll('#chats .open')].at(-1).click()")
    assert "Rhine" in page.run("document.getElementById('log').textContent")
    print("chats are kept and changed")

    assert unnamed(page) == [], f"controls without a name: {unnamed(page)}"
    for name, width, height, scheme in [("light", 1100, 800, "light"), ("dark", 1100, 800, "dark"), ("narrow", 360, 720, "dark")]:
        page.window(width, height, scheme)
        for panel in ("open", "closed"):
            narrow_enough(page)
            if pictures:
                page.picture(pictures / f"{name}-{panel}.png")
            page.run("document.getElementById('panel-toggle').click()")
    print("it fits its window, and controls have names")


def main():
    command, model, *rest = sys.argv[1:]
    pictures = pathlib.Path(rest[0]) if rest else None
    server = subprocess.Popen([command, "serve", model, "--port", "0"], stderr=subprocess.PIPE, text=True)
    address = None
    for line in server.stderr:
        if match := re.search(r"listening on (http://\S+)", line):
            address = match[1]
            break
    assert address, "the server did not start"
    with tempfile.TemporaryDirectory() as folder:
        page = Browser(folder)
        try:
            use(page, address + "/", pictures)
        finally:
            page.end()
            server.terminate()
            server.wait(30)


main()
