#!/bin/sh
# Everything about Diptych that needs a GPU. Usage: sh run.sh [STAGE...]; without stages, all of them.
# Needs a driver, and Python with PyTorch for the comparisons; its CUDA libraries (cuBLAS, cuDNN) serve Diptych too.
# Writes out/STAGE.log, out/*.json, out/results.json, and a table at the end. OUT=DIR puts them elsewhere; PYTHON=PATH chooses the Python.
cd "$(dirname "$0")" || exit 1
pack=$(pwd)
out=${OUT:-$pack/out}
python=${PYTHON:-$(command -v python3)}
mkdir -p "$out" || exit 1
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT

all="doctor smoke kernels kernels_tf32 kernels_own golden sanitizer bench_ops bench_losses bench_optim bench_augment bench_step train train_bf16"
stages=${*:-$all}

for name in diptych diptych-bench test-kernels test-golden; do
    gunzip -c "$pack/$name.gz" > "$work/$name" && chmod +x "$work/$name" || exit 1
done
# PyTorch's wheels bring the libraries; a toolkit that is installed is found by the loader itself, and what LD_LIBRARY_PATH says goes first.
site=$("$python" -c 'import nvidia; print(list(nvidia.__path__)[0])' 2> /dev/null)
if [ -n "$site" ]; then
    for folder in "$site"/*/lib; do LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$folder; done
    export LD_LIBRARY_PATH
fi
export DIPTYCH_FIXTURES="$pack/fixtures"
export DIPTYCH_TEST_DEVICE="${DIPTYCH_TEST_DEVICE:-cuda}"

bench() {
    suite=$1
    shift
    "$work/diptych-bench" "$suite" --device cuda --peer torch --python "$python" --json "$out/bench_$suite.json" "$@"
}

stage() {
    case $1 in
    doctor)
        nvidia-smi
        "$work/diptych" doctor && "$work/diptych" doctor | grep -q '^CUDA  *on'
        ;;
    smoke) "$work/test-kernels" --test-threads 1 relu:: ;;
    kernels) "$work/test-kernels" --test-threads 1 ;;
    # The same with products in TF32, to its tolerances; without the tests that ask for more digits than it has.
    kernels_tf32)
        DIPTYCH_TEST_TF32=1 "$work/test-kernels" --test-threads 1 --skip planted --skip small_redundancy --skip over_many \
            --skip hostile_values --skip ranks_that_see --skip tiny_temperature --skip a_zero_row
        ;;
    # The kernels that stand in where cuDNN is not.
    kernels_own) DIPTYCH_CUDNN=off "$work/test-kernels" --test-threads 1 conv2d:: ;;
    golden) "$work/test-golden" --test-threads 1 ;;
    sanitizer)
        command -v compute-sanitizer > /dev/null || { echo "compute-sanitizer is not here"; return 77; }
        for tool in memcheck racecheck initcheck; do
            echo "== $tool"
            DIPTYCH_CUDNN=off compute-sanitizer --tool "$tool" --error-exitcode 9 "$work/test-kernels" --test-threads 1 sanitize || return 1
        done
        ;;
    bench_*) bench "${1#bench_}" ;;
    train) "$work/diptych" train --device cuda --out "$work/train" --quiet && cp "$work/train/metrics.jsonl" "$out/train.jsonl" ;;
    train_bf16)
        "$work/diptych" train --device cuda --precision bf16 --out "$work/train_bf16" --quiet &&
            cp "$work/train_bf16/metrics.jsonl" "$out/train_bf16.jsonl"
        ;;
    *)
        echo "no stage is called $1; there are: $all"
        return 2
        ;;
    esac
}

table=
json=
failures=0
for name in $stages; do
    begun=$(date +%s)
    echo "== $name"
    stage "$name" > "$out/$name.log" 2>&1
    code=$?
    seconds=$(($(date +%s) - begun))
    case $code in
    0) result=ok ;;
    77) result=skipped ;;
    *)
        result="FAILED ($code)"
        failures=$((failures + 1))
        tail -n 15 "$out/$name.log"
        ;;
    esac
    # The test programs' own count, where there is one.
    note=$(grep -E '^test result' "$out/$name.log" | tail -n 1 | cut -d';' -f1-2)
    table="$table$(printf '%-14s %-12s %5s s  %s' "$name" "$result" "$seconds" "$note")
"
    json="$json${json:+,
}  {\"stage\": \"$name\", \"code\": $code, \"seconds\": $seconds, \"note\": \"$note\"}"
done

card=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null | head -n 1)
{
    printf '{\n"commit": "%s",\n"card": "%s",\n"date": "%s",\n"stages": [\n%s\n]\n}\n' "$(cat "$pack/COMMIT")" "$card" "$(date -u +%F)" "$json"
} > "$out/results.json"
printf '\ncommit %s, %s\n%s' "$(cat "$pack/COMMIT")" "${card:-no GPU}" "$table" | tee "$out/results.txt"
[ "$failures" -eq 0 ]
