#!/bin/sh
# Unpacks a Linux kernel and busybox from their Debian packages into var/guest, for the tests' guest.
# Nothing is installed: this machine would boot an installed kernel.
set -eu
cd "$(dirname "$0")/../.."
[ ! -e var/guest/complete ] || exit 0
for kernel in linux-image-cloud-amd64 linux-image-virtual; do # Debian's, Ubuntu's
    real=$(apt-cache depends "$kernel" 2>/dev/null | sed -n 's/ *Depends: \(linux-image-[0-9]\)/\1/p')
    [ -z "$real" ] || break
done
if [ -z "$real" ]; then
    echo "No package of a Linux kernel for virtual machines is known: try apt-get update." >&2
    exit 1
fi
echo "fetching $real busybox-static"
rm -rf var/guest
mkdir -p var/guest
cd var/guest
# Root downloads as root, so the folder need not be open to other users.
apt-get download -qq -o APT::Sandbox::User=root "$real" busybox-static
for package in *.deb; do
    dpkg-deb --extract "$package" .
    rm "$package"
done
touch complete
