#!/usr/bin/env python3
"""Compiles shaders with Direct3D's two compilers under wine: .ci/hlsl_compilers.py DUMP [--all]

DUMP is what the runtime's tests write with HANDMILL_SHADER_DUMP: HLSL as wgpu makes it, in hlsl/ for DXC (dxcompiler.dll)
and in hlsl51/ for FXC (d3dcompiler_47.dll), which wgpu takes on Windows where there is no DXC. Both come from
.ci/windows/compilers. DXC compiles one variant of each kernel and define set, FXC, which takes five times as long, enough
to have each define of a kernel once; with --all both compile every variant.
Fails where a compiler does, or where it takes so long that a user would think it hangs.

Needs wine64 (8 of Debian 12 will do), gcc-mingw-w64-x86-64-win32 and npm.
"""

import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import time

SOURCES = pathlib.Path(__file__).resolve().parent / "windows"
CACHE = SOURCES.parent.parent / "target" / "windows-compilers"
# Name, driver, library, files, and whether there is time for each set of defines.
COMPILERS = [("DXC", "dxc", "dxcompiler.dll", "hlsl", True), ("FXC", "fxc", "d3dcompiler_47.dll", "hlsl51", False)]
SLOWEST = 20  # seconds of the processor for one shader
SHOWN = 20


def fetch():
    """The compilers, in CACHE."""
    subprocess.run([SOURCES / "compilers"], check=True, stdout=subprocess.DEVNULL)


def build():
    """The programs that call them, in CACHE."""
    for _, driver, _, _, _ in COMPILERS:
        command = ["x86_64-w64-mingw32-gcc-win32", "-O1", "-Wall", "-Wextra", "-Werror"]
        subprocess.run([*command, "-o", CACHE / f"{driver}.exe", SOURCES / f"{driver}.c"], check=True)


def parts(path):
    """The kernel of a file, the names of its defines, and the values that are no numbers."""
    with path.open() as file:
        title = [next(file) for _ in range(2)][1]
    kernel = title.removeprefix("// ").split(" ", 1)[0]
    defines = re.findall(r'"(\w+)": "([^"]*)"', title)
    return kernel, tuple(name for name, _ in defines), [d for d in defines if not d[1].isdigit()]


def chosen(files, by_set):
    """Files in which every kernel has each of its defines and their values, and with `by_set` each set of defines."""
    seen, few = set(), []
    for path in files:
        kernel, names, values = parts(path)
        new = {kernel, *((kernel, value) for value in values)}
        new |= {(kernel, names)} if by_set else {(kernel, name) for name in names}
        if not new <= seen:
            few.append(path)
        seen |= new
    return few


def compile_all(driver, library, files):
    """Results by file: seconds and, where it failed, why."""
    wine = shutil.which("wine64") or "/usr/lib/wine/wine64"
    environment = {**os.environ, "WINEPREFIX": str(CACHE / "wine"), "WINEARCH": "win64", "WINEDEBUG": "-all"}
    # wine has a library of FXC's name, and would ask for .NET and a browser engine in a new folder.
    environment["WINEDLLOVERRIDES"] = "d3dcompiler_47=n;mscoree,mshtml="
    subprocess.run([wine, "wineboot", "-i"], env=environment, check=True, capture_output=True, timeout=300)
    processes = []
    share = os.cpu_count() or 1
    for i in range(share):
        own = files[i::share]
        names, log = CACHE / f"{driver}.{i}", CACHE / f"{driver}.{i}.log"
        names.write_text("".join(f"Z:{path}\n" for path in own))
        command = [wine, CACHE / f"{driver}.exe", CACHE / library, f"Z:{names}"]
        with log.open("w") as out:
            processes.append((own, log, subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)))
    results = {}
    for own, log, process in processes:
        process.wait()
        out = log.read_text(errors="replace")
        last = None
        for line in out.splitlines():
            if done := re.fullmatch(r"(ok|FAILED) ([\d.]+) Z:(.*)", line):
                last = done[3]
                results[last] = [float(done[2]), "" if done[1] == "FAILED" else None]
            elif last:
                results[last][1] = f"{results[last][1] or ''}{line}\n"
        for path in [path for path in own if str(path) not in results][:1]:
            results[str(path)] = [0.0, f"the compiler ended with status {process.returncode} here: {out[-300:]}"]
    return results


def main():
    arguments = [a for a in sys.argv[1:] if a != "--all"]
    if len(arguments) != 1:
        sys.exit(__doc__)
    dump = pathlib.Path(arguments[0]).resolve()
    fetch()
    build()
    bad, rows = [], []
    for name, driver, library, form, by_set in COMPILERS:
        every = sorted((dump / form).glob("*.hlsl"))
        files = every if "--all" in sys.argv else chosen(every, by_set)
        if not files:
            sys.exit(f"no shaders in {dump / form}")
        start = time.monotonic()
        results = compile_all(driver, library, files)
        for path, (seconds, why) in results.items():
            if why is not None or seconds > SLOWEST:
                bad.append(f"{name}: {path}: {why if why is not None else f'{seconds:.1f} s'}")
        times = sorted(seconds for seconds, _ in results.values())
        failed = sum(why is not None for _, why in results.values()) + len(files) - len(results)
        slowest = max(results, key=lambda path: results[path][0])
        rows.append(
            f"{name:8}{len(files):8}{len(every):8}{failed:8}{time.monotonic() - start:8.0f}"
            f"{statistics.median(times):10.2f}{times[len(times) * 9 // 10]:8.2f}{times[-1]:8.2f}  {pathlib.Path(slowest).stem}"
        )
    print("\n".join(bad[:SHOWN]))
    print("compiler   files      of  failed seconds    median  9 of 10  longest, in seconds of the processor")
    print("\n".join(rows))
    if bad:
        sys.exit(f"{len(bad)} shaders failed")


main()
