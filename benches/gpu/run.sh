#!/usr/bin/env bash
# benches/gpu/run.sh [BIN_DIR] [OUT_DIR] [MODEL...]: everything worth measuring on a GPU, in one go, on a bare machine.
#
# BIN_DIR holds the prebuilt release binaries `handmill` and `gpu_linear_speed`:
#   cargo build --release && cargo build --release -p handmill-runtime --features unstable-wgpu --example gpu_linear_speed
#   mkdir -p bin && cp target/release/handmill target/release/examples/gpu_linear_speed bin/
# It needs nothing else but a driver and the models (default: smollm2, fetched unless cached). Without arguments it takes
# target/release and writes to benches/results/<date>-<device>/. DEVICE chooses a GPU by its number in `handmill devices`
# or by a part of its name. LLAMA_BENCH=path/to/llama-bench adds llama.cpp on the same GGUF files, as often as ours and in
# turn (its own backend for the GPU; -ngl 99). QUICK=1 takes small sizes, for software devices.
#
# Figures: adapters and limits; copy bandwidth (the first line of copy.txt) and read bandwidth (`read_bandwidth` in
# *-gpu.json); mat-vec and mat-mat of every block format at 4096 x 14336, with bytes, halves and floats for activations;
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
# The chosen GPU's name, fit for a folder's.
name=$("$handmill" devices | sed -n 's/^gpu \([0-9][0-9]*\) *\(.*\) ([a-z]*, [a-z0-9]*)$/\1 \2/p' |
  case ${DEVICE:-0} in *[!0-9]*) grep -iFm1 -- "$DEVICE" ;; *) grep -m1 "^${DEVICE:-0} " ;; esac |
  cut -d' ' -f2- | tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9\n' - | sed 's/^-//; s/-$//')
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

llama_bench() { # FILE MODEL
  local path
  [[ -n ${LLAMA_BENCH:-} ]] || return 0
  # llama.cpp knows no names of ours.
  path=$("$handmill" inspect "$2" --json 2>> "$out/log.txt" | sed -n 's/.*"path":"\([^"]*\)".*/\1/p')
  [[ $path == *.gguf ]] || { echo "== $2 is no GGUF file: llama.cpp is left out" | tee -a "$out/log.txt"; return 0; }
  measure "$1" "$LLAMA_BENCH" -m "$path" -ngl 99 -p "$prompt" -n "$generate" -r "$reps" -o json
}

measure devices.json "$handmill" devices --json
# A small matrix: only the head is wanted.
measure copy.txt "$speed" "${device[@]}" --k 576 --rows 1536 --tokens 1 q8_0
measure linear.jsonl "$speed" "${device[@]}" "${sizes[@]}" --json
measure verify.json "$handmill" verify "${models[0]}" "${device[@]}" --json

for model in "${models[@]}"; do
  tag=$(basename "$model" .gguf)
  common=(bench "$model" -p "$prompt" -n "$generate" --reps "$reps" --json)
  measure "$tag-gpu.json" "$handmill" "${common[@]}" --backend gpu "${device[@]}"
  llama_bench "$tag-llama.json" "$model"
  measure "$tag-cpu.json" "$handmill" "${common[@]}" --backend cpu
  measure "$tag-gpu-again.json" "$handmill" "${common[@]}" --backend gpu "${device[@]}"
  llama_bench "$tag-llama-again.json" "$model"
  measure "$tag-gpu-plain.json" env HANDMILL_GPU_WITHOUT=cooperative "$handmill" "${common[@]}" --backend gpu "${device[@]}"
  # The table of a profile goes to standard error.
  measure "$tag-profile.txt" bash -c '"$@" 2>&1' _ "$handmill" bench "$model" -p "$prompt" -n "$generate" --reps 1 --backend gpu "${device[@]}" --profile "$out/$tag-trace.json"
done
echo "results in $out"
exit $failed
