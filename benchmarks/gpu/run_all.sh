#!/usr/bin/env bash
# All checks and timings of one GPU in under eight minutes, with a table at the end and a CSV:
#
#   python -m benchmarks.gpu.prepare gpu-data        # once, with a network
#   benchmarks/gpu/run_all.sh gpu-data gpu-results   # on the device
#
# Status 1: a result is wrong or a step failed. Status 2: there is no device.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: $0 DATA_FOLDER OUT_FOLDER [OPTIONS of benchmarks.gpu.run_all]" >&2; exit 64; }
data=$(realpath "$1") out=$(realpath -m "$2")
shift 2
cd "$(dirname "$0")/../.."
exec "${PYTHON:-python3}" -m benchmarks.gpu.run_all --data "$data" --out "$out" "$@"
