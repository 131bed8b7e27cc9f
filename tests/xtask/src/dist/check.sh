#!/bin/sh
# Installs the package in the system at $1 (an empty Debian) and uses it there.
# Runs in mount and PID namespaces of its own, which take all with them at the end.
set -eu
root=$1

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"

in_root() {
	chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root \
		LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive "$@"
}
say() {
	echo "== $*"
}
fail() {
	echo "FAILED: $*"
	exit 1
}
# Waits until a command succeeds.
until_ok() {
	for _ in $(seq 100); do
		"$@" >/dev/null 2>&1 && return
		sleep 0.1
	done
	fail "in vain: $*"
}

say install
in_root apt-get install -y -q --no-install-recommends /masq.deb
in_root dpkg --verify masq
[ -z "$(in_root dpkg --audit)" ] || fail "dpkg --audit: $(in_root dpkg --audit)"

say versions
in_root masqd --version
in_root masq --version
[ "$(readlink "$root/usr/bin/masq-runtime")" = masq ] || fail "masq-runtime"
for page in masq.1 masqd.1 masq-runtime.1; do
	in_root test -s "/usr/share/man/man1/$page.gz" || fail "no manual page $page"
done
[ -L "$root/etc/systemd/system/multi-user.target.wants/masqd.service" ] ||
	fail "masqd.service is not enabled"

say policy
in_root masq policy check /etc/masq/policy.yaml

say library
# With nothing of the host but what is brought along.
container=/usr/lib/masq/container
loader=$(cd "$root$container" && echo ld-linux*)
in_root "$container/$loader" --library-path "/usr/lib/masq:$container" \
	"$container/bin/ibv_devices" | grep -q 'node GUID' || fail "ibv_devices"

say masqd
# As the unit starts it.
command=$(sed -n 's/^ExecStart=//p' "$root/lib/systemd/system/masqd.service")
chroot "$root" $command >"$root/masqd.log" 2>&1 &
masqd=$!
until_ok in_root masq ps
in_root masq cdi generate
in_root masq cdi list | grep -q 'default:pod' || fail "no CDI device default:pod"
in_root masq doctor || fail "masq doctor ended with $?"
in_root masq reload
kill "$masqd"
wait "$masqd" || { cat "$root/masqd.log"; fail "masqd ended with $?"; }

say reinstall
echo '# the administrator was here' >>"$root/etc/masq/policy.yaml"
in_root dpkg -i /masq.deb
grep -q 'the administrator' "$root/etc/masq/policy.yaml" || fail "the policy was overwritten"

say remove
in_root dpkg --remove masq
[ ! -e "$root/usr/bin/masqd" ] || fail "masqd is still there"
[ -e "$root/etc/masq/policy.yaml" ] || fail "the policy went with the package"
in_root dpkg --purge masq
for left in etc/masq etc/cdi/masq.json usr/lib/masq usr/share/doc/masq etc/systemd/system/multi-user.target.wants/masqd.service; do
	[ ! -e "$root/$left" ] && [ ! -L "$root/$left" ] || fail "/$left is left"
done
say done
