#!/usr/bin/env bash
# Trains on a Cloud TPU slice: creates it, installs this checkout on every worker, runs one process
# a worker, copies the results here, and deletes the slice.
#
#   experiments/tpu.sh --name demo --zone us-central2-b --type v4-16 --bucket my-bucket -- --steps 2000
#   experiments/tpu.sh ... --dry-run -- --steps 2000      # prints what it would do, and does nothing
#   experiments/tpu.sh ... --keep -- --resume --name run  # goes on; the slice stays
#
# What stands after -- goes to `python -m experiments.train`, the same on all workers. The folder of
# runs lies in the bucket, which every worker mounts: checkpoints need a folder that all can see.
set -euo pipefail
cd "$(dirname "$0")/.."

name="" zone="" type="" bucket="" project="" version="tpu-ubuntu2204-base" results="runs"
dry="" keep="" spot=""

usage() {
  sed -n '2,10s/^# \{0,1\}//p' experiments/tpu.sh
  echo
  echo "  --name NAME      of the slice; one that exists is used as it is"
  echo "  --zone ZONE      such as us-central2-b"
  echo "  --type TYPE      accelerator type, such as v4-16"
  echo "  --bucket BUCKET  Cloud Storage bucket for the runs"
  echo "  --project ID     Google Cloud project (that of gcloud)"
  echo "  --version NAME   runtime version ($version)"
  echo "  --results DIR    where the runs are copied to here ($results)"
  echo "  --spot           a slice that may be taken away, cheaper"
  echo "  --keep           does not delete the slice in the end"
  echo "  --dry-run        prints the commands and runs none"
}

fail() {
  echo "experiments/tpu.sh: $1" >&2
  exit 2
}

while [[ $# -gt 0 ]]; do
  case "$1" in
    --name | --zone | --type | --bucket | --project | --version | --results)
      [[ $# -gt 1 ]] || fail "${1#--}: got nothing, expected a value"
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    --spot) spot=yes && shift ;;
    --keep) keep=yes && shift ;;
    --dry-run) dry=yes && shift ;;
    --help | -h) usage && exit 0 ;;
    --) shift && break ;;
    *) fail "unknown argument $1; --help lists all" ;;
  esac
done
for needed in name zone type bucket; do
  [[ -n "${!needed}" ]] || fail "$needed: got nothing, expected --$needed VALUE"
done

# Runs a command, or shows it.
run() {
  if [[ -n "$dry" ]]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}

place=(--zone "$zone")
[[ -z "$project" ]] || place+=(--project "$project")
tpu=(gcloud compute tpus tpu-vm)

on_all_workers() {
  run "${tpu[@]}" ssh "$name" "${place[@]}" --worker=all --command "$1"
}

# Printed commands must not depend on what is there, so a dry run always shows the creation.
if [[ -n "$dry" ]] || ! "${tpu[@]}" describe "$name" "${place[@]}" >/dev/null 2>&1; then
  create=("${tpu[@]}" create "$name" "${place[@]}" --accelerator-type "$type" --version "$version")
  [[ -z "$spot" ]] || create+=(--spot)
  run "${create[@]}"
fi
[[ -n "$keep" ]] || trap 'run "${tpu[@]}" delete "$name" "${place[@]}" --quiet' EXIT

archive="${TMPDIR:-/tmp}/jdml-$name.tar.gz"
run git archive --format=tar.gz --prefix=jdml/ --output "$archive" HEAD
run "${tpu[@]}" scp "$archive" "$name:jdml.tar.gz" "${place[@]}" --worker=all
# The Python of the image may be older than what JAX wants: uv brings its own.
on_all_workers "python3 -m pip install -q --user uv && tar xzf jdml.tar.gz && \
~/.local/bin/uv venv -q --clear --python 3.12 venv && \
~/.local/bin/uv pip install -q --python venv/bin/python 'jax[tpu]' './jdml[experiments]'"
on_all_workers "mkdir -p runs && (mountpoint -q runs || gcsfuse --implicit-dirs '$bucket' runs)"

# JAX asks the platform for the other workers. The data of a run are prepared on each of them.
arguments=(--coordinator auto --run-dir "../runs" "$@")
on_all_workers "cd jdml && ../venv/bin/python -m experiments.train$(printf ' %q' "${arguments[@]}")"

run mkdir -p "$results"
run gcloud storage rsync --recursive "gs://$bucket" "$results"
