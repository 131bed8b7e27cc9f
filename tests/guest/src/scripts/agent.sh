#!/bin/sh
# The first process of a guest: mounts what programs expect, then runs the command lines
# that come over the terminal named on the kernel's command line (masq_channel=/dev/…).
# src/channel.rs is its other end and describes the protocol.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/shm /dev/pts
for dir in /tmp /run /root /var/tmp /dev/shm; do mount -t tmpfs tmpfs $dir; done
mount -t devpts devpts /dev/pts 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
ip link set lo up
ulimit -l unlimited
ulimit -c 0

for word in $(cat /proc/cmdline); do
    case $word in masq_channel=*) channel=${word#*=} ;; esac
done
exec 3<>"$channel"
stty raw -echo <&3
jobs=/run/masq-jobs
mkdir $jobs

job() {
    mkdir "$jobs/$1"
    : >"$jobs/$1/out"
    : >"$jobs/$1/err"
    printf %s "$2" | base64 -d >"$jobs/$1/line"
    # A session of its own, so that all of it can be killed.
    setsid sh -c 'echo $$ >"$0/pid"; exec sh "$0/line"' "$jobs/$1" \
        </dev/null >"$jobs/$1/out" 2>"$jobs/$1/err" 3>&-
    echo "end $1 $?" >&3
}

printf '\nready\n' >&3
while read -r verb id word more <&3; do
    case $verb in
    start) job "$id" "$word" & ;;
    # So few bytes at a time because a terminal of User-Mode Linux stalls for ever once
    # its other end does not take all at once.
    read)
        chunk=$(tail -c "+$((more + 1))" "$jobs/$id/$word" | head -c 1500 | base64 -w0)
        echo "data $id $chunk" >&3
        ;;
    kill) [ -f "$jobs/$id/pid" ] && kill -s "$word" -- -"$(cat "$jobs/$id/pid")" ;;
    drop) rm -rf "${jobs:?}/$id" ;;
    off) break ;;
    esac
done
# reboot(LINUX_REBOOT_CMD_POWER_OFF); the smallest Debian has no program for it.
exec perl -e 'syscall(169, 0xfee1dead, 672274793, 0x4321fedc, 0)'
