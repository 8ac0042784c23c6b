#!/bin/sh
# All that is to be measured on a GPU, in one call; what was done in an earlier call is not done again where it can be known.
#
#   sh scripts/measure_gpu.sh F16.png OUT [SECONDS]     # F16 at 512×512 in colour; seconds for the last part, 240
#
# Where the command is cut off, call it again with the same folder.
set -eu
image=$1 out=$2 seconds=${3:-240}
# for a try on a small machine
device=${DEVICE:-cuda} python=${PYTHON:-python}
here=$(dirname "$0")
mkdir -p "$out"

if [ "$device" = cuda ]; then
    # do graphs and streams work at all?
    $python -m pytest "$here"/../tests/engine/test_graphs.py "$here"/../tests/model/signals/unet/test_streams.py "$here"/../tests/engine/optim/test_muon.py > "$out/tests.txt" 2>&1 || true
    tail -5 "$out/tests.txt"
fi
# an iteration, its memory, and batches
[ -e "$out/rows.done" ] || $python "$here"/benchmark_images.py --device "$device" --out "$out" ${BENCHMARK:---batch 16} || true
# iterations and seconds to where the paper's method is after as many as there is time for
$python "$here"/compare_iterations.py --device "$device" --out "$out/curves.csv" --images "$image" --candidates default reference \
    --against reference ${CURVES:---size 512 --width 128 --every 100} || true
# the published curve, and the preset best
$python "$here"/reproduce_f16.py --image "$image" --out "$out/f16" --seconds "$seconds" ${F16:-}
