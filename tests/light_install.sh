#!/usr/bin/env bash
# Build the wheel, install it alone in a new environment, and run there what needs no torch on the two demo photos.
set -euo pipefail
cd "$(dirname "$0")/.."
LARGEST=350 # MB

fail() {
  echo "light install: $1" >&2
  exit 1
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/env"
"$folder/env/bin/pip" --disable-pip-version-check --quiet wheel --no-deps --wheel-dir "$folder" .
"$folder/env/bin/pip" --disable-pip-version-check --quiet install "$folder"/fcos_cli-*.whl
cp examples/photos/*.jpg tests/two_photos.json "$folder"
cd "$folder" # not in the source tree: Python must find the installed package
unset PYTHONPATH
PATH="$folder/env/bin:$PATH"

size=$(du -sm env | cut -f1)
[ "$size" -le "$LARGEST" ] || fail "the environment has $size MB, more than $LARGEST"
for package in torch torchvision timm onnx safetensors; do
  python -c "import $package" 2>/dev/null && fail "$package is installed"
done
has() { grep -q "$2" "$1" || fail "no \"$2\" in the output of $1: $(cat "$1")"; }

fcos predict astronaut.jpg cat.jpg --viz 2>predict
has predict "1 person"
has predict "1 cat"
fcos eval default two_photos.json --report report.html --json >eval 2>/dev/null
has eval '"AP50": \(1.0\|0.99\)'
has report.html "person"
fcos eval default two_photos.json --require recall=0.9 2>gate
has gate "met: recall is 1.0000"
fcos bench --rounds 2 --json >bench 2>/dev/null
has bench '"backend": "onnxruntime"'
fcos verify default 2>verify
has verify "the same as PyTorch"
fcos info default --json >info
has info '"verified": true'
fcos doctor two_photos.json 2>doctor
has doctor "few-boxes"
fcos train two_photos.json 2>train && fail "fcos train works without torch"
has train 'pip install "fcos-cli\[train\]"'
echo "light install: $size MB, and all commands that need no torch work"
