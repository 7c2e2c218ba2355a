#!/bin/bash
# The first process of the machine of tests/lvm. FOLDER and CONTROL come from the kernel's command
# line.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1
root=/mnt/root
modules=/usr/lib/uml/modules/$(uname -r)
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /mnt

# The host's files, read-only; written data stays in memory.
insmod "$modules/kernel/fs/overlayfs/overlay.ko"
mkdir /mnt/upper /mnt/work $root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work $root
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t devtmpfs dev $root/dev
mkdir -p $root/dev/pts $root/dev/shm $root/lib/modules
mount -t devpts devpts $root/dev/pts
mount -t tmpfs tmpfs $root/dev/shm
mount -t tmpfs tmpfs $root/run
ln -s /proc/self/fd $root/dev/fd
mkdir -p "$root$FOLDER"
mount -t hostfs none -o "$FOLDER" "$root$FOLDER"
mount --bind /usr/lib/uml/modules $root/lib/modules
chroot $root modprobe -a loop dm-mod dm-thin-pool dm-snapshot
chroot $root ip link set lo up

# Without udev, LVM itself has to make the links in /dev.
mkdir -p $root/etc/lvm $root/run/lock $root/run/lvm
cat >$root/etc/lvm/lvm.conf <<'END'
devices { obtain_device_list_from_udev=0 external_device_info_source="none" }
activation { udev_sync=0 udev_rules=0 verify_udev_operations=0 monitoring=0 }
backup { backup=0 archive=0 }
END
stty -F /dev/tty1 raw -echo
chroot $root /bin/bash "$CONTROL/command" </dev/null >/dev/tty1 2>&1
echo $? >"$root$CONTROL/status"
echo o >/proc/sysrq-trigger
sleep 60
