#!/usr/bin/env bash
# Installs what the checks here need beside Python: Chromium, and the axe-core that the checks of mail use as well.
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/../mail/install.sh" --without-java
