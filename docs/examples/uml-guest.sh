#!/bin/sh
# The init of a guest that boots from the files of this machine, which it cannot write to.
# Give its path to User-Mode Linux as init=, with rootfstype=hostfs.
/bin/busybox mount -t proc proc /proc
/bin/busybox insmod \
    "/usr/lib/uml/modules/$(/bin/busybox uname -r)/kernel/drivers/virtio/virtio_balloon.ko"
exec /bin/busybox sh
