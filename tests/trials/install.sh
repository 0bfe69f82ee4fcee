#!/usr/bin/env bash
# Installs what the trials need beside Python: strace.
set -euo pipefail

command -v strace >/dev/null 2>&1 && exit 0
if ((EUID != 0)); then
  echo "install.sh: not root; run this first:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends strace" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends strace
