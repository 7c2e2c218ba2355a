#!/bin/sh
# A session with the client `openstack` (PyPI: python-openstackclient): from an image file to
# volumes of two projects, and back to nothing.
#
#   openstack-session.sh IMAGE-FILE [DISK-FORMAT]
#
# OS_AUTH_URL and the other variables of the client name a user of the project OS_PROJECT_NAME. The
# user is also a member of the project OTHER_PROJECT. A source of bootvol takes images
# (`writable = true`).
set -eu
file=$1
format=${2:-raw}
: "${OTHER_PROJECT:?the name of another project of the user}"

say() { printf '\n$ openstack %s\n' "$*"; openstack "$@"; }
other() { OS_PROJECT_NAME=$OTHER_PROJECT say "$@"; }
# Waits until a volume or snapshot has a status.
until_is() {
  status=$1
  shift
  for _ in $(seq 150); do
    found=$(openstack "$@" -f value -c status)
    [ "$found" = error ] && break
    [ "$found" = "$status" ] && return
    sleep 1
  done
  echo "openstack $*: the status is $found" >&2
  exit 1
}
# Waits until a list is empty.
until_none() {
  for _ in $(seq 150); do
    [ -z "$(openstack "$@" -f value)" ] && return
    sleep 1
  done
  echo "openstack $*: something is left" >&2
  exit 1
}

say image create --file "$file" --disk-format "$format" session-image
say volume create --image session-image --size 1 --property purpose=session root
until_is available volume show root
say volume set --name session-root --description "a bootable volume" root
say volume unset --property purpose session-root
say volume snapshot create --volume session-root before-upgrade
until_is available volume snapshot show before-upgrade
say volume create --snapshot before-upgrade copy
until_is available volume show copy
say volume set --size 2 copy
until_is available volume show copy

offer=$(openstack volume transfer request create copy -f shell -c id -c auth_key)
id=$(echo "$offer" | sed -n 's/^id="\(.*\)"$/\1/p')
key=$(echo "$offer" | sed -n 's/^auth_key="\(.*\)"$/\1/p')
other volume transfer request accept --auth-key "$key" "$id"
other volume show copy

other volume delete copy
say volume snapshot delete before-upgrade
until_none volume snapshot list
say volume delete session-root
say image delete session-image
until_none volume list
OS_PROJECT_NAME=$OTHER_PROJECT until_none volume list
