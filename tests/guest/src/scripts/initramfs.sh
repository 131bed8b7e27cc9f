#!/bin/busybox sh
# Loads the modules in order, mounts the root filesystem and leaves the rest to the agent.
/bin/busybox mount -t devtmpfs devtmpfs /dev
for module in /modules/*.ko; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t ext4 -o ro /dev/vda /new
/bin/busybox mount -t tmpfs tmpfs /new/mnt
/bin/busybox cp /agent.sh /new/mnt/agent.sh
exec /bin/busybox switch_root /new /bin/sh /mnt/agent.sh
