#!/usr/bin/env python3
"""Compiles shaders in headless Chromium: .ci/chromium_shaders.py DUMP

DUMP is what the runtime's tests write with HANDMILL_SHADER_DUMP: all shaders in native/, and in browser/ those of them
that browsers know. Tint, Chromium's compiler, is the one that rejects barriers in non-uniform control flow; naga takes
them. One page gets all files from a server on this machine, makes a shader module of each, and sends back what the
compiler says. Where the browser's adapter has no f16 (SwiftShader has none), f32 stands in for it: types and uniformity
are checked all the same. Only cooperative matrices, which no browser has, may be left out.
"""

import http.server
import json
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

PATIENCE = 120  # seconds without a word from the page
SHOWN = 20

PAGE = """<!doctype html><meta charset="utf-8"><title>shaders</title><script>
const tell = (what) => fetch('/tell', { method: 'POST', body: JSON.stringify(what) });
const main = async () => {
  const adapter = await navigator.gpu?.requestAdapter();
  if (!adapter) throw new Error('no WebGPU adapter');
  const wanted = ['shader-f16', 'subgroups'].filter((f) => adapter.features.has(f));
  const device = await adapter.requestDevice({ requiredFeatures: wanted });
  device.lost.then((info) => tell({ fatal: `device lost: ${info.message}` }));
  const { vendor, architecture } = adapter.info;
  await tell({ adapter: `${vendor} ${architecture} with ${wanted.join(', ') || 'no features'}` });
  const files = await (await fetch('/files')).json();
  let done = [];
  for (const [name, given] of files) {
    const halves = /^enable f16;/m.test(given) && !device.features.has('shader-f16');
    const text = halves ? given.replace(/^enable f16;/m, '').replace(/\\bf16\\b/g, 'f32') : given;
    const lacks = /^enable subgroups;/m.test(text) && !device.features.has('subgroups') && 'subgroups';
    if (lacks) {
      done.push({ name, lacks });
    } else {
      device.pushErrorScope('validation');
      const info = await device.createShaderModule({ code: text }).getCompilationInfo();
      const error = await device.popErrorScope();
      const messages = info.messages.map((m) => ({ type: m.type, text: `${m.lineNum}:${m.linePos} ${m.message}` }));
      if (error && !messages.some((m) => m.type === 'error')) messages.push({ type: 'error', text: error.message });
      done.push({ name, messages, halves });
    }
    if (done.length === 100) {
      await tell({ done });
      done = [];
    }
  }
  await tell({ done, end: true });
};
main().catch((e) => tell({ fatal: String(e) }));
</script>"""


def serve(files, told):
    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self, kind, body):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            if self.path == "/files":
                self.answer("application/json", json.dumps(files).encode())
            else:
                self.answer("text/html", PAGE.encode())

        def do_POST(self):
            told.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.answer("text/plain", b"")

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/"


def main():
    dump = pathlib.Path(sys.argv[1])
    files = [(path.name, path.read_text()) for path in sorted((dump / "browser").glob("*.wgsl"))]
    every = [path.stem for path in (dump / "native").glob("*.wgsl")]
    if not files or not every:
        sys.exit(f"no shaders in {dump}")
    browser = shutil.which("chromium") or sys.exit("chromium is not installed")
    told = queue.Queue()
    url = serve(files, told)
    profile = tempfile.mkdtemp(prefix="chromium-")
    flags = ["--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-component-update", "--disable-sync", "--enable-unsafe-webgpu", "--remote-debugging-port=0"]
    start = time.monotonic()
    process = subprocess.Popen(
        [browser, *flags, f"--user-data-dir={profile}", url], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    noise = []
    threading.Thread(target=lambda: noise.extend(process.stderr), daemon=True).start()
    results, fatal = [], None
    try:
        while True:
            word = told.get(timeout=PATIENCE)
            if "adapter" in word:
                print(f"Chromium: {word['adapter']}", flush=True)
            results += word.get("done", [])
            fatal = word.get("fatal")
            if fatal or word.get("end"):
                break
    except queue.Empty:
        fatal = f"no word from the page for {PATIENCE} s after {len(results)} shaders"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
        shutil.rmtree(profile, ignore_errors=True)

    lacking, compiled, halves, failed, warnings = {}, 0, 0, [], {}
    for result in results:
        if "lacks" in result:
            lacking[result["lacks"]] = lacking.get(result["lacks"], 0) + 1
            continue
        compiled += 1
        halves += result["halves"]
        if any(message["type"] == "error" for message in result["messages"]):
            failed.append(result)
        for message in result["messages"]:
            if message["type"] == "warning":
                warnings.setdefault(message["text"].split(" ", 1)[1], result["name"])
    for result in failed[:SHOWN]:
        print("\n".join(f"{result['name']}:{m['text']} [{m['type']}]" for m in result["messages"]))
    for text, name in list(warnings.items())[:SHOWN]:
        print(f"warning: {text} (as in {name})")
    seconds = time.monotonic() - start
    print(f"{compiled} of {len(every)} shaders compiled in {seconds:.0f} s, {len(failed)} with errors")
    if halves:
        print(f"{halves} of them with f32 for f16, which the browser's adapter lacks")
    cooperative = sum(name.endswith("-cooperative") for name in every)
    print(f"{len(every) - compiled} left out; {cooperative} have cooperative matrices")
    for feature, count in lacking.items():
        print(f"NOT COMPILED: {count} shaders, because the browser's adapter lacks {feature}")
    if fatal:
        print(fatal)
        sys.stdout.write(b"".join(noise[-10:]).decode(errors="replace"))
    # Whatever else is left out may be what is worth checking.
    if fatal or failed or len(every) - compiled != cooperative:
        sys.exit(1)


main()
