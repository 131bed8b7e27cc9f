# Sourced in a guest: masq between two namespaces, rdma_rxe between the ends of another
# veth pair, the same programs over both.
share=/run/share
mtu=9000
perftest=18515

# rdma_rxe lives in the first namespace only, so both ends stay there, and packets between
# their addresses are forced over the wire.
set_up_rxe() {
    ip link add v0 mtu $mtu type veth peer name v1 mtu $mtu
    for n in 0 1; do
        for word in accept_local=1 rp_filter=0 arp_ignore=1 arp_announce=2; do
            echo "${word#*=}" >"/proc/sys/net/ipv4/conf/v$n/${word%=*}"
        done
        ip address add "10.79.0.$((n + 1))/24" dev v$n
        ip link set v$n up
    done
    echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
    ip rule add pref 100 lookup local
    ip rule del pref 0
    for n in 0 1; do
        own=10.79.0.$((n + 1)) other=10.79.0.$((2 - n))
        mac=$(cat "/sys/class/net/v$((1 - n))/address")
        ip rule add pref 10 iif lo from $own to $other lookup $((10 + n))
        ip route add $other dev v$n table $((10 + n))
        ip neigh replace $other lladdr "$mac" dev v$n nud permanent
        rdma link add rxe$n type rxe netdev v$n
    done
    sleep 1
}

set_up_masq() {
    for n in 0 1; do
        ip netns add h$n
        ip -n h$n link set lo up
    done
    ip link add m0 netns h0 mtu $mtu type veth peer name m0 netns h1 mtu $mtu
    for n in 0 1; do
        ip -n h$n address add "192.0.2.$((n + 1))/24" dev m0
        ip -n h$n link set m0 up
        ip netns exec h$n $share/masqd --policy $share/policy.yaml --run-dir /run/masq-$n \
            --host 192.0.2.$((n + 1)) --log warn >/run/masqd-$n.log 2>&1 &
    done
    for n in 0 1; do
        for i in $(seq 300); do
            $share/masq --run-dir /run/masq-$n hosts >/dev/null 2>&1 && break
            sleep 0.1
        done
    done
}

# The index of the RoCEv2 GID of the address of rxeN.
gid_of() {
    cd "/sys/class/infiniband/$1/ports/1"
    for index in $(seq 0 15); do
        [ "$(cat gid_attrs/types/$index 2>/dev/null)" = "RoCE v2" ] || continue
        case $(cat gids/$index) in *:ffff:*) echo $index && return ;; esac
    done
    echo "no GID of $1" >&2
    exit 1
}

# side rxe|masq NUMBER PROGRAM…: number 0 serves.
side() {
    kind=$1 n=$2
    shift 2
    case $1 in ibv_*) index=-g ;; *) index=-x ;; esac
    case $kind in
    rxe) "$@" -d rxe$n $index "$(gid_of rxe$n)" ;;
    masq)
        [ $n = 0 ] && name=blue/a || name=blue/b
        ip netns exec h$n $share/masq --run-dir /run/masq-$n run --endpoint $name \
            --library $share/libibverbs.so.1 -- "$@" $index 3
        ;;
    esac
}

# measure rxe|masq ITERATIONS PROGRAM…: nanoseconds from the start of the client to its end,
# which must have said that it made so many iterations.
measure() {
    of=$1 count=$2
    shift 2
    set -- "$@" -n "$count"
    case $of in
    rxe) inside='' server=10.79.0.1 ;;
    masq) inside='ip netns exec h0' server=192.0.2.1 ;;
    esac
    side $of 0 "$@" >/run/server.log 2>&1 &
    listens=":$(printf %04X $perftest) [0-9A-F]*:0000 0A "
    for i in $(seq 300); do
        $inside grep -qs "$listens" /proc/net/tcp /proc/net/tcp6 && break
        sleep 0.05
    done
    from=$(date +%s%N)
    failed=
    side $of 1 "$@" $server >/run/client.log 2>&1 || failed="the client: $?"
    to=$(date +%s%N)
    wait $! || failed="$failed the server: $?"
    grep -qE "^ *[0-9]+ +$count |^$count iters" /run/client.log || failed="$failed no row"
    if [ "$failed" ]; then
        cat /run/client.log /run/server.log /run/masqd-*.log >&2
        echo "failed: $failed" >&2
        exit 1
    fi
    echo $((to - from))
}
