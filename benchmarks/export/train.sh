#!/usr/bin/env bash
# The four students of this benchmark, in one run folder: one teacher, one set of soft labels, one seed.
# Short trainings: the point is what export does to a student, not how good the student is.
#
#     benchmarks/export/train.sh PHOTOS WEIGHTS RUN      (PHOTOS has {train,test}/{cat,dog,bird}/)
set -euo pipefail
photos=$1 weights=$2 run=$3
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1

distill() {
    "${PYTHON:-python}" -m potstill distill "$photos" --run "$run" --classes cat,dog,bird --seeds 1 \
        --teacher efficientnet_lite0 --teacher.weights package --teacher.size 160 --teacher.probe-views 1 \
        --images.margin 1.0 --views.count 6 --twin.label-smoothing 0.0 --student.lr-factors 1.0 \
        --machine.device cpu --machine.precision float32 --machine.jobs 1 "$@"
}

distill --student.models "mobilenetv1_025@128=$weights/mobilenetv1_025_128.safetensors" --student.epochs 8
distill --student.models efficientnet_lite0@96 --student.weights package --student.epochs 4
distill --student.models mobilenetv3_small_100@64 --student.weights none --student.epochs 40
distill --student.models mobilenetv4_conv_small@64 --student.weights none --student.epochs 25
