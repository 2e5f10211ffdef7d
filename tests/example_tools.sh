#!/usr/bin/env bash
# Get what the tests of examples/cpp and examples/web need, from the registries that this machine is set up for.
# What cannot be had is said in one line, and its tests are skipped: this never fails. Takes about 20 seconds.
cd "$(dirname "$0")/.."
headers=.tools/onnxruntime/include
LIMIT=60 # seconds for each step
missing() { echo "$1: the tests of examples/$2 are skipped" >&2; }

get_packages() {
  [ "$(id -u)" = 0 ] && command -v apt-get || return 1
  timeout "$LIMIT" apt-get -qq update
  DEBIAN_FRONTEND=noninteractive timeout "$LIMIT" apt-get -qq install -y --no-install-recommends \
    cmake g++ make nlohmann-json3-dev
}

# ONNX Runtime's library is in its Python package, but the headers are not. They are in Debian 13's libonnxruntime-dev;
# an older Debian takes them from there without installing the package. Older headers work with a newer library.
get_headers() {
  local folder mirror status debian=('Created-By: Packages' 'Origin: Debian' 'Label: Debian')
  mirror=$(apt-get indextargets --format '$(REPO_URI)' "${debian[@]}" | head -1)
  [ -n "$mirror" ] || return 1
  folder=$(mktemp -d)
  mkdir -p "$folder"/{lists,cache/archives}/partial
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$folder/sources.list"
  apt() {
    timeout "$LIMIT" apt-get -qq -o APT::Sandbox::User=root -o Acquire::Languages=none -o Dir::Etc::SourceParts=- \
      -o Dir::Etc::SourceList="$folder/sources.list" -o Dir::State::Lists="$folder/lists" \
      -o Dir::Cache="$folder/cache" "$@"
  }
  apt update && (cd "$folder" && apt download libonnxruntime-dev) &&
    dpkg -x "$folder"/libonnxruntime-dev_*.deb "$folder" &&
    mkdir -p "$headers" && cp "$folder"/usr/include/onnxruntime/*.h "$headers"
  status=$?
  rm -rf "$folder"
  return $status
}

{ command -v cmake && command -v g++ && [ -e /usr/include/nlohmann/json.hpp ]; } >/dev/null ||
  get_packages >/dev/null 2>&1 || missing "no cmake, g++ or nlohmann-json3-dev" cpp
[ -e /usr/include/onnxruntime/onnxruntime_cxx_api.h ] || [ -e "$headers/onnxruntime_cxx_api.h" ] ||
  get_headers >/dev/null 2>&1 || missing "no headers of ONNX Runtime" cpp
[ -d examples/web/node_modules/onnxruntime-web ] ||
  (cd examples/web && timeout "$LIMIT" npm install --no-audit --no-fund) >/dev/null 2>&1 ||
  missing "no onnxruntime-web" web
exit 0
