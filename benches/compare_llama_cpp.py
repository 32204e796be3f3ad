#!/usr/bin/env python3
"""Times Handmill and llama.cpp in turn (A B A B ...) on the same files and writes medians and ratios.

usage: compare_llama_cpp.py LLAMA_BIN_DIR MODEL.gguf... [--rounds 5] [--threads 2] [-p 512] [-n 64] [--busy] [--out DIR]
       compare_llama_cpp.py --merge FILE.json... --out DIR

LLAMA_BIN_DIR holds llama-bench, built natively (-DGGML_NATIVE=ON) on the machine at hand. A shared machine drifts by
tens of per cent within minutes: only figures of the same round are divided by each other, and the medians of those
ratios are what counts. Of every round the share of the processors' time that other processes took is kept, for they do
not slow both down alike: rounds above --quiet (5 % by default; Linux only) are left out of the medians as long as any
other is there. --merge puts the rounds of several series together. --busy repeats the generation with another process spinning on one of the cores.
Results go to DIR (default: benches/results/<date>-<machine>/) as compare_llama_cpp.json and .md.
"""
import argparse, datetime, json, os, re, statistics, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def run_json(command, timeout):
    """Runs `command` and returns the JSON that it prints."""
    p = subprocess.run([str(c) for c in command], capture_output=True, text=True, timeout=timeout)
    if p.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {p.returncode}\n{p.stderr[-2000:]}")
    return json.loads(p.stdout)


def busy_seconds():
    """Processor seconds that all processes together have used, and those of this one's ended children."""
    try:
        user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:8])
    except OSError:
        return 0.0, 0.0
    own = os.times()
    total = (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")
    return total, own.user + own.system + own.children_user + own.children_system


def handmill(args, model, prompt, generate):
    """One repetition of `handmill bench`; its whole JSON."""
    out = run_json([args.handmill, "bench", model, "-p", prompt, "-n", generate, "--threads", args.threads,
                    "--reps", 1, "--backend", "cpu", "--json"], args.timeout)
    # Where a model lies is nobody's business but this machine's.
    return {**out, "model": Path(model).name}


def llama_cpp(args, model, prompt, generate):
    """One repetition of llama-bench: tokens/s of prompt and generation, and its build."""
    out = {}
    rows = run_json([args.llama / "llama-bench", "-m", model, "-p", prompt, "-n", generate, "-t", args.threads,
                     "-r", 1, "-o", "json"], args.timeout)
    for row in rows:
        out["prompt" if row["n_prompt"] else "generation"] = row["avg_ts"]
        out["build"] = row.get("build_commit", "unknown")
    return out


def speed(bench, part):
    """Tokens/s of `part` ("prompt" or "generation") in what `handmill bench --json` printed."""
    return bench[part]["tokens_per_second"]


class BusyCore:
    """Another process that spins on the last core that we may use."""

    def __enter__(self):
        core = max(os.sched_getaffinity(0))
        self.child = subprocess.Popen([sys.executable, "-c", "while True: pass"],
                                      preexec_fn=lambda: os.sched_setaffinity(0, {core}))
        time.sleep(0.5)
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()


def measure(args, model):
    rounds = []
    for i in range(args.rounds):
        (all_before, own_before), start = busy_seconds(), time.monotonic()
        ours = handmill(args, model, args.prompt, args.generate)
        theirs = llama_cpp(args, model, args.prompt, args.generate)
        (all_after, own_after), seconds = busy_seconds(), time.monotonic() - start
        others = (all_after - all_before) - (own_after - own_before)
        row = {"handmill": ours, "llama_cpp": theirs, "others": max(0.0, others / (seconds * os.cpu_count()))}
        if args.busy:
            with BusyCore():
                row["busy"] = {"handmill": speed(handmill(args, model, 16, args.generate), "generation"),
                               "llama_cpp": llama_cpp(args, model, 16, args.generate)["generation"]}
        rounds.append(row)
        print(f"{model.name} round {i + 1}: prompt {speed(ours, 'prompt'):.1f} / {theirs['prompt']:.1f}, "
              f"generation {speed(ours, 'generation'):.1f} / {theirs['generation']:.1f}"
              + f", others {row['others']:.0%}" + (f", busy {row['busy']['handmill']:.1f} / {row['busy']['llama_cpp']:.1f}" if args.busy else ""),
              file=sys.stderr, flush=True)
    return summarise(rounds, args.quiet)


def summarise(all_rounds, quiet):
    def median(values):
        return statistics.median(list(values))

    rounds = [r for r in all_rounds if r.get("others", 0) <= quiet] or all_rounds
    out = {"quiet_rounds": len(rounds)}
    for part, share in (("prompt", "share_of_fma_peak"), ("generation", "share_of_read_bandwidth")):
        out[part] = {"handmill": median(speed(r["handmill"], part) for r in rounds),
                     "llama_cpp": median(r["llama_cpp"][part] for r in rounds),
                     "ratio": median(speed(r["handmill"], part) / r["llama_cpp"][part] for r in rounds),
                     # Each share is of what the command measured in that very run.
                     share: median(r["handmill"][part][share] for r in rounds)}
    for key in ("read_bandwidth", "fma_peak", "bytes_per_token", "peak_memory_bytes"):
        out[key] = median(r["handmill"][key] for r in rounds)
    if "busy" in rounds[0]:
        out["busy"] = {"handmill": median(r["busy"]["handmill"] for r in rounds),
                       "llama_cpp": median(r["busy"]["llama_cpp"] for r in rounds),
                       "kept": median(r["busy"]["handmill"] / speed(r["handmill"], "generation") for r in rounds),
                       "kept_llama_cpp": median(r["busy"]["llama_cpp"] / r["llama_cpp"]["generation"] for r in rounds)}
    out["rounds"] = all_rounds
    return out


def machine():
    info = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", info)
    flags = re.search(r"flags\s*: (.*)", info)
    known = ("avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_vnni", "avx_vnni", "amx_int8")
    cpu = name.group(1).strip() if name else os.uname().machine
    return {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "kernel": os.uname().release,
            "isa": [f for f in known if flags and f in flags.group(1).split()]}


def git_commit():
    p = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return p.stdout.strip() or "unknown"


def markdown(result, command):
    m = result["machine"]
    lines = [f"# Handmill {result['handmill_commit']} beside llama.cpp {result['llama_cpp_commit']}", "",
             f"{result['date']}, {m['cores']} × {m['cpu']} ({' '.join(m['isa'])}), {result['threads']} threads. Tokens/s, "
             f"medians of {result['rounds']} rounds in turn; ratios and shares are medians of the rounds' own. Rounds in which "
             f"other processes took more than {result['quiet']:.0%} of the processors are left out where there are others.", "",
             f"    {command}", "",
             f"| model | pp{result['prompt']} | llama.cpp | ratio | of FMA peak | tg{result['generate']} | llama.cpp | ratio "
             "| of read bandwidth | peak memory |",
             "|---|---|---|---|---|---|---|---|---|---|"]
    for name, r in result["models"].items():
        p, g = r["prompt"], r["generation"]
        lines.append(f"| {name} | {p['handmill']:.1f} | {p['llama_cpp']:.1f} | {p['ratio']:.2f}× | {p['share_of_fma_peak']:.0%} "
                     f"| {g['handmill']:.1f} | {g['llama_cpp']:.1f} | {g['ratio']:.2f}× "
                     f"| {g['share_of_read_bandwidth']:.0%} | {r['peak_memory_bytes'] / 2**20:.0f} MiB |")
    lines += ["", "Measured in the same runs:", ""]
    for name, r in result["models"].items():
        lines.append(f"- {name}: read bandwidth {r['read_bandwidth'] / 1e9:.1f} GB/s, FMA peak {r['fma_peak'] / 1e9:.0f} GFLOP/s; "
                     f"{r['bytes_per_token'] / 1e6:.1f} MB a token; {r['quiet_rounds']} of {len(r['rounds'])} rounds counted")
    if any("busy" in r for r in result["models"].values()):
        lines += ["", "With another process spinning on one core (generation; share kept of the quiet figure):", "",
                  "| model | busy | kept | llama.cpp busy | kept |", "|---|---|---|---|---|"]
        for name, r in result["models"].items():
            b = r["busy"]
            lines.append(f"| {name} | {b['handmill']:.1f} | {b['kept']:.0%} | {b['llama_cpp']:.1f} | {b['kept_llama_cpp']:.0%} |")
    return "\n".join(lines) + "\n"


def merge(args):
    """One result out of several: all rounds of each model."""
    parts = [json.loads(path.read_text()) for path in args.merge]
    rounds = {}
    for part in parts:
        for name, model in part["models"].items():
            rounds.setdefault(name, []).extend(model["rounds"])
    models = {name: summarise(r, args.quiet) for name, r in rounds.items()}
    most = max(len(r) for r in rounds.values())
    return {**parts[-1], "rounds": most, "quiet": args.quiet, "models": models}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama", type=Path, nargs="?")
    parser.add_argument("models", type=Path, nargs="*")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="FILE.json")
    parser.add_argument("--quiet", type=float, default=0.05, help="most that other processes may take in a round that counts")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-p", "--prompt", type=int, default=512)
    parser.add_argument("-n", "--generate", type=int, default=64)
    parser.add_argument("--busy", action="store_true")
    parser.add_argument("--handmill", type=Path, default=ROOT / "target/release/handmill")
    parser.add_argument("--timeout", type=float, default=600, help="seconds that one run may take")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if not args.merge and not args.models:
        parser.error("LLAMA_BIN_DIR and a model, or --merge")
    host = machine()
    date = datetime.date.today().isoformat()
    slug = re.sub(r"\(r\)|\(tm\)|cpu|processor|@.*", "", host["cpu"].lower())
    slug = re.sub(r"[^a-z0-9]+", "-", slug).strip("-")
    out = args.out or ROOT / "benches/results" / f"{date}-{host['cores']}x-{slug}"
    models = {m.name: measure(args, m) for m in args.models}
    result = merge(args) if args.merge else {
              "date": date, "machine": host, "threads": args.threads, "prompt": args.prompt, "generate": args.generate,
              "rounds": args.rounds, "quiet": args.quiet, "handmill_commit": git_commit(),
              "llama_cpp_commit": next(iter(models.values()))["rounds"][0]["llama_cpp"]["build"], "models": models}
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare_llama_cpp.json").write_text(json.dumps(result, indent=1) + "\n")
    command = "benches/compare_llama_cpp.py LLAMA_BIN_DIR " + " ".join(result["models"])
    command += f" --rounds {result['rounds']} --threads {result['threads']}" + (" --busy" if args.busy else "")
    text = markdown(result, command)
    (out / "compare_llama_cpp.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
