#!/bin/sh
# Measure everything that is claimed about a GPU: sh scripts/measure_gpu.sh F16.png OUT   (see measure_gpu.py)
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "${PYTHON:-python3}" "$root/scripts/measure_gpu.py" "$@"
