#!/bin/busybox sh
# The guest on its root file system: records each boot in a file, reports its disks and files on the
# serial console, and then watches disks come and go. Runs the command in a disk's first line.
busybox=/bin/busybox

say() {
    echo "bootvol guest: $*"
}

cd /boots || exit
number=1
found=
while [ -e boot-$number ]; do
    # Each file contains its own name.
    [ "$($busybox cat boot-$number)" = boot-$number ] || found="$found (damaged:)"
    found="$found boot-$number"
    number=$((number + 1))
done
echo boot-$number >boot-$number
$busybox sync
say "boot $number; found files:${found:- none}"

if $busybox findfs LABEL=config-2 >/dev/null 2>&1 || [ -b /dev/sr0 ]; then
    $busybox mount -t iso9660 -o ro /dev/sr0 /config && (
        cd /config || exit
        $busybox find . -type f | $busybox sort | while read -r file; do
            say "config ${file#./}: $($busybox cat "$file")"
        done
    )
fi

obey() {
    disk=$1
    line=$($busybox dd if=/dev/$disk bs=512 count=1 2>/dev/null | $busybox head -n 1)
    case $line in
    "bootvol: power off")
        say "powering off"
        $busybox sync
        $busybox poweroff -f
        ;;
    "bootvol: write")
        # Into the second sector.
        echo "written by boot $number" |
            $busybox dd of=/dev/$disk bs=512 seek=1 conv=notrunc,sync,fsync 2>/dev/null
        say "wrote to $disk"
        ;;
    "bootvol: chatter")
        say "chattering"
        $busybox yes "bootvol guest: this line has been written many times" &
        ;;
    esac
}

known=
ready=
while true; do
    now=
    for path in /sys/block/vd*; do
        disk=${path##*/}
        now="$now $disk"
        case " $known " in
        *" $disk "*)
            read -r sectors <$path/size
            eval former=\$sectors_$disk
            [ $sectors = $former ] || say "disk $disk becomes $((sectors * 512)) bytes"
            eval sectors_$disk=$sectors
            ;;
        *)
            read -r sectors <$path/size
            eval sectors_$disk=$sectors
            serial=$($busybox cat $path/serial)
            say "disk $disk: $((sectors * 512)) bytes, serial ${serial:-none}"
            obey $disk
            ;;
        esac
    done
    for disk in $known; do
        case " $now " in
        *" $disk "*) ;;
        *) say "disk $disk is gone" ;;
        esac
    done
    known=$now
    [ $ready ] || say "ready"
    ready=yes
    $busybox usleep 200000
done
