# The Windows build, linked, and what of it runs on Debian. `.ci/run` reads this file and has the helpers.
#
#   windows       without GPUs: the command and its tests, the CPU's tests and a few families, under wine
#   windows-gpu   as released: all of the CPU's tests, every family, Vulkan
#   hlsl          the shaders of Direct3D 12, by both of Microsoft's compilers
#   dx12          Direct3D 12 itself: logits, an answer, GPU tests
#
# .ci/run runs the first, .ci/full all. Wine 8 of Debian 12 does for all but the last, which enters .ci/windows/wine10.

windows_packages=(gcc-mingw-w64-x86-64-win32 wine64)
if [[ ${HANDMILL_TEST_FULL-} == 1 ]]; then
  windows_packages+=(xvfb libx11-6 libxext6 libxrandr2 libxi6 libxcursor1 libxcomposite1 libxfixes3 libxrender1)
  command -v npm >/dev/null || windows_packages+=(npm)
fi
windows_command=target/windows/x86_64-pc-windows-gnu/release/handmill.exe
models=${HANDMILL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/handmill}

windows_binary() { # NAME [CARGO ARGUMENTS]: as test_binary; the command is built with any test of the root crate
  # The standard library is built from its source, as in `cross`.
  RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc-win32 \
    test_binary "$@" --locked --target x86_64-pc-windows-gnu -Z build-std=std,panic_abort
}

windows_release() { # NAME: as windows_binary, of the build that `windows-gpu` and `dx12` share
  windows_binary "$1" --workspace --lib --test families --target-dir target/windows
}

display_begins() { # an X server for the rest of a step: wine finds Vulkan through a display only
  local display
  # It says its number once it answers.
  read -r display < <(exec Xvfb -displayfd 3 -screen 0 640x480x24 -nolisten tcp 3>&1 >/dev/null 2>&1) ||
    { echo "no X server"; return 1; }
  xvfb=$!
  export DISPLAY=:$display VK_DRIVER_FILES=$lavapipe
}

wine_begins() { # makes wine ready for the rest of a step
  # In the C locale wine has no names of files beyond ASCII.
  export WINEPREFIX=$PWD/target/wine8 WINEDEBUG=-all LC_ALL=C.UTF-8
  # Without .NET, a browser engine and a start menu; and without its Direct3D 12, which computes garbage.
  export WINEDLLOVERRIDES='mscoree,mshtml,winemenubuilder.exe,d3d12='
  # One server for all programs: each would take a second to start its own. A step is a shell of its own.
  trap '/usr/lib/wine/wineserver64 -k; ${xvfb:+kill $xvfb}' EXIT
  mkdir -p "$WINEPREFIX"
  /usr/lib/wine/wineserver64 -p >/dev/null 2>&1 && timeout 300 /usr/lib/wine/wine64 wineboot --init >/dev/null 2>&1 &&
    x86_64-w64-mingw32-gcc-win32 -O2 -Wall -Wextra -Werror -s -shared .ci/windows/bcryptprimitives.c -ladvapi32 \
      -o "$WINEPREFIX/drive_c/windows/system32/bcryptprimitives.dll" || { echo "wine is not ready"; return 1; }
}

wine() { # SECONDS PROGRAM [ARGUMENTS]
  local limit=$1; shift
  echo "+ wine $(basename "$1") ${*:2}" >&2
  HANDMILL_CACHE=Z:$models timeout -k 5 "$limit" /usr/lib/wine/wine64 "$@"
}

wine10() { # SECONDS PROGRAM [ARGUMENTS]
  local limit=$1; shift
  echo "+ wine10 $(basename "$1") ${*:2}" >&2
  timeout -k 5 "$limit" .ci/windows/wine10 "$@"
}

same_answer() { # BACKEND COMMAND [ARGUMENTS]: whether it continues a text as this machine's own build does there
  local question=(run smollm2 --raw -p 'The capital of France is' -n 32 --temp 0 --backend "$1") native answer
  shift
  native=$(cargo run --release --quiet -- "${question[@]}") && answer=$("$@" "${question[@]}") || return 1
  echo "$answer"
  [[ $answer == "$native" ]] || { printf 'where the answer is\n%s\n' "$native"; return 1; }
}

windows() {
  local cheap root kernels families units paths
  # Optimised only as far as vectors need it to stay vectors: the compiler is most of this step.
  cheap=(--no-default-features --target-dir target/windows-cpu --config 'profile.release.package."*".opt-level=0'
    --config profile.release.opt-level=1)
  root=("${cheap[@]}" --bin handmill --test families --test cli_paths)
  families=$(windows_binary families "${root[@]}") && units=$(windows_binary handmill "${root[@]}") &&
    paths=$(windows_binary cli_paths "${root[@]}") &&
    kernels=$(windows_binary handmill_runtime -p handmill-runtime --lib "${cheap[@]}") &&
    [[ -n $kernels && -n $families && -n $units && -n $paths ]] || { cat "$logs/build.log"; return 1; }
  wine_begins || return 1
  same_answer cpu wine 60 target/windows-cpu/x86_64-pc-windows-gnu/release/handmill.exe &&
    wine 300 "$units" && wine 300 "$paths" && wine 600 "$kernels" && wine 600 "$families" "${few_families[@]}" &&
    no_skips "$logs/windows.log"
}

windows_gpu() {
  local kernels engine families
  kernels=$(windows_release handmill_runtime) && engine=$(windows_release handmill_models) &&
    families=$(windows_release families) && [[ -n $kernels && -n $engine && -n $families ]] ||
    { cat "$logs/build.log"; return 1; }
  display_begins && wine_begins || return 1
  wine 60 "$windows_command" devices
  same_answer cpu wine 60 "$windows_command" && same_answer gpu wine 120 "$windows_command" &&
    wine 1800 "$kernels" --skip gpu:: && wine 600 "$engine" && wine 1800 "$families" && no_skips "$logs/windows-gpu.log"
}

hlsl() { # one variant of each kernel and define set
  [[ -d target/shaders/hlsl ]] || { echo "the step \`shaders\` writes the files that this one compiles"; return 1; }
  timeout 3600 .ci/hlsl_compilers.py target/shaders
}

dx12() {
  local kernels device model logits
  kernels=$(windows_release handmill_runtime) && [[ -n $kernels ]] || { cat "$logs/build.log"; return 1; }
  wine10 300 "$windows_command" devices --json >"$logs/dx12-devices.json" && device=$(python3 -c '
import json, sys
print(next(gpu["index"] for gpu in json.load(sys.stdin)["gpus"] if gpu["api"] == "dx12"))' <"$logs/dx12-devices.json") ||
    { echo "no adapter of Direct3D 12"; return 1; }
  for model in smollm2 gemma3 qwen05; do
    logits=(logits "$model" --tokens "$(seq -s , 100 140)")
    cargo run --release --quiet -- "${logits[@]}" --backend cpu --out "$logs/cpu.npy" &&
      wine10 600 "$windows_command" "${logits[@]}" --backend gpu --device "$device" --out "$logs/dx12.npy" &&
      .ci/windows/npy_difference.py "$logs/cpu.npy" "$logs/dx12.npy" 1e-3 || return 1
  done
  # Near ties of logits are another driver's to break: its text need not be that of Vulkan.
  wine10 600 "$windows_command" run smollm2 --raw -p 'The capital of France is' -n 32 --temp 0 --backend gpu \
    --device "$device" | tee "$logs/dx12-answer.log" && grep -q Paris "$logs/dx12-answer.log" &&
    wine10 1800 "$kernels" gpu:: --skip every_kernel_is_valid_and_translates
}
