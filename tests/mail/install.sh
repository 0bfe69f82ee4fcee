#!/usr/bin/env bash
# Installs what check.py needs beside Python: Chromium, Java, a font, and the npm packages of the lock.
# The browser suite needs all of it but Java: --without-java.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

have() { command -v "$1" >/dev/null 2>&1; }
# fontconfig's fc-list may be absent where its fonts are not, so look for the files.
have_font() { [[ -n "$(find -L /usr/share/fonts /usr/local/share/fonts "${HOME:-/root}/.fonts" \
  \( -name '*.ttf' -o -name '*.otf' -o -name '*.ttc' \) -print -quit 2>/dev/null || true)" ]]; }

missing=()
have chromium || [[ -x "${CHROMIUM:-}" ]] || missing+=(chromium)
[[ "${1:-}" == --without-java ]] || have java || missing+=(default-jre-headless)
have_font || missing+=(fonts-dejavu-core)
have node || missing+=(nodejs)
have npm || missing+=(npm)

if ((${#missing[@]})); then
  if ! have apt-get; then
    echo "install.sh: no apt-get here; install what these packages of Debian hold: ${missing[*]}" >&2
    exit 1
  fi
  if ((EUID != 0)); then
    echo "install.sh: not root; run this first:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

# A copy of the lock is kept with what was installed from it: equal copies mean nothing to do.
stamp=node_modules/.installed-from.json
if [[ ! -f node_modules/axe-core/axe.min.js || ! -f node_modules/vnu-jar/build/dist/vnu.jar ]] \
  || ! cmp -s package-lock.json "$stamp"; then
  # No scripts: vnu-jar's would download a Java of its own.
  npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
  cp package-lock.json "$stamp"
fi

version() { node -p "require('./node_modules/$1/package.json').version"; }
java_version() { if have java; then java -version 2>&1 | head -n 1 | tr -d '"'; else echo "no Java"; fi; }
echo "checks use: $("${CHROMIUM:-chromium}" --version 2>/dev/null | head -n 1 | xargs)," \
  "$(java_version), vnu-jar $(version vnu-jar)," \
  "axe-core $(version axe-core), node $(node --version)"
