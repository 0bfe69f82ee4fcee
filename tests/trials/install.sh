#!/usr/bin/env bash
# Installs what trials and tests need beside Python: strace, and faketime for servers whose clock is elsewhere.
set -euo pipefail

faketime=(/usr/lib/*/faketime/libfaketime.so.1)
if command -v strace >/dev/null 2>&1 && [ -e "${faketime[0]}" ]; then
  exit 0
fi
if ((EUID != 0)); then
  echo "install.sh: not root; run this first:" >&2
  echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends strace faketime" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends strace faketime
