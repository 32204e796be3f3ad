#!/usr/bin/env bash
# benches/gpu/run.sh [BIN_DIR] [OUT_DIR] [MODEL...]: everything worth measuring on a GPU, in one go, on a bare machine.
#
# BIN_DIR holds the prebuilt release binaries `handmill` and `gpu_linear_speed`:
#   cargo build --release && cargo build --release -p handmill-runtime --features gpu --example gpu_linear_speed
#   mkdir -p bin && cp target/release/handmill target/release/examples/gpu_linear_speed bin/
# It needs nothing else but a driver and the models (default: smollm2, fetched unless cached). Without arguments it takes
# target/release and writes to benches/results/<date>-<device>/. DEVICE=N chooses a GPU by its number in
# `handmill devices`. LLAMA_BENCH=path/to/llama-bench adds llama.cpp on the same files, in turn (its own backend for the
# GPU; -ngl 99). QUICK=1 takes small sizes, for software devices.
#
# Figures: adapters and limits; copy and read bandwidth; mat-vec and mat-mat of every block format at 4096 x 14336, with
# bytes, halves and floats for activations;
# prompt and generation of every model on GPU and CPU, dispatches, submits and host time a token; the prompt without
# cooperative matrices, where the device has them; the profile by op; every op against the CPU.
set -uo pipefail
here=$(cd "$(dirname "$0")/../.." && pwd)
bin=${1:-$here/target/release}
models=("${@:3}")
[[ ${#models[@]} -gt 0 ]] || models=(smollm2)
handmill=$bin/handmill
speed=$bin/gpu_linear_speed
[[ -x $speed ]] || speed=$bin/examples/gpu_linear_speed
[[ -x $handmill && -x $speed ]] || { echo "no handmill or gpu_linear_speed in $bin: see the head of this file" >&2; exit 2; }
device=(--device "${DEVICE:-0}")
name=$("$handmill" devices --json | sed -n 's/.*"kind": *"\([a-z]*\)".*/\1/p' | head -1)
out=${2:-$here/benches/results/$(date +%F)-${name:-gpu}}
mkdir -p "$out"
prompt=512 generate=64 reps=5 sizes=()
[[ ${QUICK:-} == 1 ]] && { prompt=64 generate=8 reps=2 sizes=(--k 576 --rows 1536 --tokens 1,64); }
failed=0

measure() { # FILE COMMAND...: keeps going whatever fails, so that one bad driver does not cost all the other figures
  local file=$1; shift
  echo "== $*" | tee -a "$out/log.txt"
  "$@" > "$out/$file" 2>> "$out/log.txt" || { echo "   failed: see $out/log.txt"; failed=1; }
}

measure devices.json "$handmill" devices --json
measure linear.jsonl "$speed" "${device[@]}" "${sizes[@]}" --json
measure verify.json "$handmill" verify "${models[0]}" "${device[@]}" --json
for model in "${models[@]}"; do
  tag=$(basename "$model" .gguf)
  common=(bench "$model" -p "$prompt" -n "$generate" --reps "$reps" --json)
  measure "$tag-gpu.json" "$handmill" "${common[@]}" --backend gpu "${device[@]}"
  [[ -z ${LLAMA_BENCH:-} ]] || measure "$tag-llama.json" "$LLAMA_BENCH" -m "$model" -ngl 99 -p "$prompt" -n "$generate" -r "$reps" -o json
  measure "$tag-cpu.json" "$handmill" "${common[@]}" --backend cpu
  measure "$tag-gpu-again.json" "$handmill" "${common[@]}" --backend gpu "${device[@]}"
  measure "$tag-gpu-plain.json" env HANDMILL_GPU_WITHOUT=cooperative "$handmill" "${common[@]}" --backend gpu "${device[@]}"
  # The table of a profile goes to standard error.
  measure "$tag-profile.txt" bash -c '"$@" 2>&1' _ "$handmill" bench "$model" -p "$prompt" -n "$generate" --reps 1 --backend gpu "${device[@]}" --profile "$out/$tag-trace.json"
done
echo "results in $out"
exit $failed
