#!/bin/busybox sh
# The first program of the guest, in memory: loads the disk's driver, and continues from the disk.
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t sysfs sysfs /sys
$busybox mount -t devtmpfs devtmpfs /dev
while read -r module; do
    $busybox insmod "/modules/$module"
done </modules/order
tries=0
while [ ! -b /dev/vda1 ] && [ $tries -lt 200 ]; do
    $busybox usleep 50000
    tries=$((tries + 1))
done
$busybox mount -t ext4 /dev/vda1 /root || {
    echo "bootvol guest: there is no root file system"
    $busybox poweroff -f
}
for folder in proc sys dev; do
    $busybox mount --move /$folder /root/$folder
done
exec $busybox switch_root /root /sbin/init
