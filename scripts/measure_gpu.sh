#!/bin/sh
# Verify all claims about GPUs: sh scripts/measure_gpu.sh F16.png OUT   (see measure_gpu.py)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$root/scripts/measure_gpu.py" "$@"
