#!/usr/bin/env bash
# Installs what the checks here need beside Python: Postfix, an IMAP server, and OpenDKIM, which judges our signatures.
set -euo pipefail

have() { command -v "$1" >/dev/null 2>&1 || [[ -x "/usr/sbin/$1" ]]; }

missing=()
have postfix || missing+=(postfix)
have dovecot && [[ -x /usr/lib/dovecot/imap ]] || missing+=(dovecot-imapd)
have opendkim || missing+=(opendkim)
have opendkim-genkey || missing+=(opendkim-tools)
have openssl || missing+=(openssl)

if ((${#missing[@]})); then
  if ((EUID != 0)); then
    echo "install.sh: not root; run this first:" >&2
    echo "  sudo apt-get update && sudo apt-get install -y --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  export DEBIAN_FRONTEND=noninteractive
  # The checks bring a configuration of their own and start each server themselves; none is to run by itself.
  guard=/usr/sbin/policy-rc.d
  if [[ ! -e "$guard" ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod +x "$guard"
    trap 'rm -f "$guard"' EXIT
  fi
  if have debconf-set-selections; then
    echo "postfix postfix/main_mailer_type select No configuration" | debconf-set-selections
  fi
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

echo "mail servers: Postfix $(/usr/sbin/postconf -dh mail_version), Dovecot $(/usr/sbin/dovecot --version | cut -d' ' -f1)," \
  "$(/usr/sbin/opendkim -V | head -n 1)"
