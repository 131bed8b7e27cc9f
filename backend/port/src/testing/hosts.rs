//! Two hosts: network namespaces that a veth pair joins.

use std::fs::File;
use std::net::IpAddr;
use std::process::Command;

use nix::sched::{CloneFlags, setns, unshare};

/// The Ethernet addresses of both.
const MAC: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// The veth pair's name at both hosts.
pub(crate) const VETH: &str = "veth0";

pub(crate) struct Host {
    namespace: File,
    pub(crate) v4: IpAddr,
    pub(crate) v6: IpAddr,
}

impl Host {
    /// Runs something on this host, in a thread of its own.
    pub(crate) fn run<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(&self.namespace, CloneFlags::CLONE_NEWNET).unwrap();
                f()
            });
            thread
                .join()
                .unwrap_or_else(|e| std::panic::resume_unwind(e))
        })
    }

    /// Runs a program; says whether it succeeded.
    pub(crate) fn try_command(&self, words: &str) -> bool {
        let words: Vec<_> = words.split_whitespace().collect();
        self.run(|| {
            Command::new(words[0])
                .args(&words[1..])
                .output()
                .is_ok_and(|output| output.status.success())
        })
    }

    pub(crate) fn command(&self, words: &str) {
        assert!(self.try_command(words), "{words}");
    }

    /// Waits until the link is up and the addresses are local: the kernel does
    /// both in its own time, and drops packets meanwhile.
    fn wait_until_ready(&self) {
        let says = |words: &str, what: &str| {
            let words: Vec<_> = words.split(' ').collect();
            let output = self.run(|| Command::new("ip").args(words).output());
            String::from_utf8_lossy(&output.unwrap().stdout).contains(what)
        };
        let local = format!("local {} ", self.v6);
        for _ in 0..1000 {
            let up = says(&format!("link show {VETH}"), "state UP");
            if up && says("-6 route show table local", &local) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        panic!("the interface of {} does not come up", self.v4);
    }

    pub(crate) fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6 } else { self.v4 }
    }
}

/// Two hosts with the interface's MTU, or none where that is not permitted.
pub(crate) fn two_hosts(mtu: usize) -> Option<[Host; 2]> {
    let host = |number: u8| {
        let made = std::thread::spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).ok()?;
            File::open("/proc/thread-self/ns/net").ok()
        });
        Some(Host {
            namespace: made.join().ok()??,
            v4: IpAddr::from([10, 77, 0, number]),
            v6: IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)]),
        })
    };
    let Some((a, b)) = host(1).zip(host(2)) else {
        println!("skipped: network namespaces need CAP_SYS_ADMIN");
        return None;
    };
    let made = std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let other = &b;
        // iproute2 names a namespace by a thread in it.
        scope.spawn(move || {
            setns(&other.namespace, CloneFlags::CLONE_NEWNET).unwrap();
            tell.send(nix::unistd::gettid()).unwrap();
            let _ = stopped.recv();
        });
        let thread = told.recv().unwrap();
        let made = a.try_command(&format!(
            "ip link add {VETH} address {} type veth peer name {VETH} address {} netns {thread}",
            MAC[0], MAC[1],
        ));
        drop(stop);
        made
    });
    if !made {
        println!("skipped: no veth interfaces");
        return None;
    }
    for (host, other, mac) in [(&a, &b, MAC[1]), (&b, &a, MAC[0])] {
        host.command("ip link set lo up");
        host.command(&format!("ip link set {VETH} mtu {mtu} up"));
        host.command(&format!("ip addr add {}/24 dev {VETH}", host.v4));
        host.command(&format!("ip addr add {}/64 dev {VETH} nodad", host.v6));
        // Packets that wait for an answer to ARP may be lost.
        for address in [other.v4, other.v6] {
            host.command(&format!(
                "ip neigh add {address} lladdr {mac} dev {VETH} nud permanent"
            ));
        }
    }
    for host in [&a, &b] {
        host.wait_until_ready();
    }
    Some([a, b])
}
