#!/bin/sh
# Ensures that the Debian packages named as arguments are installed. As root, installs missing
# packages; otherwise names them and fails.
set -eu
missing=
for package; do
    dpkg-query --show --showformat='${Status}' "$package" 2>/dev/null | grep -q ' installed$' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null; then
    echo "This needs what Debian and Ubuntu call$missing; install it, then try again." >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "These packages are missing: sudo apt-get install$missing" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086 - a list of words
apt-get install -y -qq --no-install-recommends $missing >/dev/null
