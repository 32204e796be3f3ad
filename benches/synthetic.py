#!/usr/bin/env python3
"""Times layers of published dimensions with random weights, and prints a table for benches/results.

usage: synthetic.py HANDMILL [MODEL...] [-- OPTIONS of handmill bench]

MODEL is one of those below (all by default). Generation is compared with the machine's read bandwidth over the bytes that
a token needs (of a mixture of experts: of the chosen ones), the prompt with its FMA peak, both measured in the same run.
"""
import json, os, subprocess, sys

CONFIGS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "configs")
# Layers of each kind that the model has, and a format that its files come in.
MODELS = {
    "llama-3.1-8b": (4, "q4_k"),
    "gemma-3-4b": (6, "q4_k"),
    "qwen3-30b-a3b": (4, "q4_k"),
    "qwen3-next-80b-a3b": (4, "q4_k"),
    "deepseek-v3": (4, "q4_k"),
    "deepseek-v4-flash": (4, "q4_k"),
    "gpt-oss-20b": (4, "mxfp4"),
}


def main():
    args = sys.argv[1:]
    options = []
    if "--" in args:
        at = args.index("--")
        args, options = args[:at], args[at + 1 :]
    if not args:
        sys.exit(__doc__)
    handmill, names = args[0], args[1:] or list(MODELS)
    print("| model | layers | format | weights | a token reads | generation | GB/s | of bandwidth | prompt | GFLOP/s | of FMA peak |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        layers, kind = MODELS[name]
        command = [handmill, "bench", "--synthetic", os.path.join(CONFIGS, name + ".json")]
        command += ["--layers", str(layers), "--format", kind, "--json", *options]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"| {name} | failed with exit code {done.returncode} |", flush=True)
            continue
        r = json.loads(done.stdout)
        made, generation, prompt = r["synthetic"], r["generation"], r["prompt"]
        percent = lambda share: f"{share:.0%}" if share is not None else "–"
        cells = [
            name,
            f"{made['layers']} of {made['of_layers']}",
            kind,
            f"{sum(made['weight_bytes'].values()) / 1e9:.2f} GB",
            f"{r['bytes_per_token'] / 1e6:.0f} MB",
            f"{generation['tokens_per_second']:.1f} tokens/s",
            f"{generation['bytes_per_second'] / 1e9:.1f}",
            percent(generation.get("share_of_read_bandwidth")),
            f"{prompt['tokens_per_second']:.0f} tokens/s",
            f"{prompt['flops_per_second'] / 1e9:.0f}",
            percent(prompt.get("share_of_fma_peak")),
        ]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
