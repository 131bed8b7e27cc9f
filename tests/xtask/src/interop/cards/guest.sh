# Sourced in a guest: a masqd there, and what it and the kernel know.
# It is given host (the masqd's name) and options (what else masqd is started with).
share=/run/share
run=/run/masq

masq() { $share/masq --run-dir $run "$@"; }

# namespace_of_e0 ADDRESS: moves the interface. A kernel with rdma_rxe holds the UDP port of
# RoCE in its first namespace, with a device or without.
namespace_of_e0() {
    ip netns add host
    ip link set e0 netns host
    ip -n host link set lo up
    ip -n host address add "$1" dev e0
    ip -n host link set e0 up
}

# alive PID: nobody may have waited for it yet.
alive() { grep -qs '^State:.[^Z]' "/proc/$1/status"; }

# start_masqd: until it answers; what it says goes to /run/masqd.log.
start_masqd() {
    [ -e /run/policy.yaml ] || cp $share/policy.yaml /run/policy.yaml
    setsid $share/masqd --policy /run/policy.yaml --run-dir $run --host "$host" \
        $options </dev/null >>/run/masqd.log 2>&1 &
    echo $! >/run/masqd.pid
    for i in $(seq 200); do
        masq hosts >/dev/null 2>&1 && return 0
        alive "$(cat /run/masqd.pid)" || break
        sleep 0.05
    done
    echo "masqd did not come up" >&2
    tail -30 /run/masqd.log >&2
    return 1
}

# end_masqd SIGNAL: until it is gone.
end_masqd() {
    pid=$(cat /run/masqd.pid)
    kill -s "$1" "$pid"
    for i in $(seq 200); do
        alive "$pid" || return 0
        sleep 0.05
    done
    echo "masqd does not end" >&2
    return 1
}

# refused_start DEVICE: what a second masqd says, which must end by itself and fail.
refused_start() {
    timeout -k 1 15 $share/masqd --policy /run/policy.yaml --run-dir /run/masq-2 \
        --host "$host" --device "$1" </dev/null 2>&1
    case $? in 0 | 124 | 137) return 1 ;; 13[0-9]) return 1 ;; esac
    return 0
}

masqd_runs() { alive "$(cat /run/masqd.pid)"; }

# as ENDPOINT PROGRAM…
as() {
    name=$1
    shift
    exec $share/masq --run-dir $run run --endpoint "$name" \
        --library $share/libibverbs.so.1 -- "$@"
}
