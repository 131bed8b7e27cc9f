//! What `/sys/class/infiniband/DEVICE` shows in a container: files of the names and forms
//! that the kernel's stable sysfs ABI of InfiniBand gives them.

use super::dir::{read_at_once, replace};
use crate::gid::{GidTable, TABLE_LEN};
use masq_spec::verbs::GidType;
use std::fs;
use std::io;
use std::path::Path;

/// Writes the directory of a device, or brings it up to date.
pub(super) fn write(device: &Path, gids: &GidTable) -> io::Result<()> {
    let port = device.join("ports/1");
    for dir in ["gids", "gid_attrs/types", "pkeys"] {
        fs::create_dir_all(port.join(dir))?;
    }
    let guid = groups(&gids.node_guid().to_be_bytes());
    let put = |name: &str, text: &str| line(&device.join(name), text);
    put("node_type", "1: CA")?;
    put("node_guid", &guid)?;
    put("sys_image_guid", &guid)?;
    put("node_desc", "masq")?;
    let put = |name: &str, text: &str| line(&port.join(name), text);
    put("state", "4: ACTIVE")?;
    put("phys_state", "5: LinkUp")?;
    put("rate", "100 Gb/sec (4X EDR)")?;
    put("link_layer", "Ethernet")?;
    put("lid", "0x0")?;
    put("sm_lid", "0x0")?;
    put("pkeys/0", "0xffff")?;
    let entries = gids.entries();
    for index in 0..TABLE_LEN {
        let entry = entries.get(index as usize);
        let gid = entry.map_or([0; 16], |entry| entry.gid);
        put(&format!("gids/{index}"), &groups(&gid))?;
        let kind = format!("gid_attrs/types/{index}");
        match entry {
            Some(entry) if entry.gid_type == GidType::RoceV2 as u32 => put(&kind, "RoCE v2")?,
            Some(_) => put(&kind, "IB/RoCE v1")?,
            // An index without a GID has no type.
            None => {
                let _ = fs::remove_file(port.join(kind));
            }
        }
    }
    Ok(())
}

/// Unless it says so already: most of it never changes.
fn line(path: &Path, text: &str) -> io::Result<()> {
    let wanted = format!("{text}\n");
    if read_at_once(path).is_ok_and(|is| is == wanted.as_bytes()) {
        return Ok(());
    }
    replace(path, wanted.as_bytes())
}

/// Hexadecimal, in groups of two bytes.
fn groups(bytes: &[u8]) -> String {
    let words = bytes.chunks(2).map(|pair| {
        let hex: String = pair.iter().map(|byte| format!("{byte:02x}")).collect();
        hex
    });
    words.collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use masq_policy::VirtualAddress;

    /// Takes a write lease, as a container's root may on what root owns.
    #[allow(unsafe_code)] // fcntl(F_SETLEASE), which no crate wraps
    fn lease(file: &fs::File) -> bool {
        use nix::libc;
        use std::os::fd::AsRawFd;
        /// Of fcntl(2), for want of it in the crate.
        const F_SETSIG: i32 = 10;
        let fd = file.as_raw_fd();
        // SAFETY: both commands take a number, and the descriptor is open.
        unsafe {
            // Instead of SIGIO, which would end the test.
            libc::fcntl(fd, F_SETSIG, libc::SIGURG) == 0
                && libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK) == 0
        }
    }

    #[test]
    fn a_lease_of_the_containers_holds_nobody_up() {
        let root = tempfile::tempdir().unwrap();
        let dir = super::super::ContainerDir::of(root.path(), "c1");
        dir.make().unwrap();
        let id = "blue/pod.x".parse().unwrap();
        let gids = |last| {
            let address = VirtualAddress::new([10, 0, 0, last].into());
            GidTable::new(&id, &[address])
        };
        dir.write_sysfs("masq0", &gids(1)).unwrap();
        let gid = dir.path().join("sys/masq0/ports/1/gids/3");
        let files = [gid.clone(), dir.path().join("dev/uverbs0")];
        let files = files.map(|path| fs::File::open(path).unwrap());
        if !files.iter().all(lease) {
            eprintln!("no leases here: left out");
            return;
        }
        let (done, is_done) = std::sync::mpsc::channel();
        let other = gids(2);
        std::thread::spawn(move || {
            dir.make().unwrap();
            dir.write_sysfs("masq0", &other).unwrap();
            done.send(()).unwrap();
        });
        // The kernel would take the lease away after 45 seconds.
        let patience = std::time::Duration::from_secs(20);
        is_done.recv_timeout(patience).expect("it waits");
        assert!(fs::read_to_string(gid).unwrap().ends_with("0a00:0002\n"));
    }

    #[test]
    fn gids_come_and_go_with_the_addresses() {
        let dir = tempfile::tempdir().unwrap();
        let device = dir.path().join("masq0");
        let id = "blue/pod.x".parse().unwrap();
        let address = VirtualAddress::new("10.0.0.1".parse().unwrap());
        write(&device, &GidTable::new(&id, &[address])).unwrap();
        let read = |name: &str| fs::read_to_string(device.join("ports/1").join(name));
        let mapped = "0000:0000:0000:0000:0000:ffff:0a00:0001\n";
        assert_eq!(read("gids/3").unwrap(), mapped);
        assert_eq!(read("gid_attrs/types/3").unwrap(), "RoCE v2\n");
        write(&device, &GidTable::new(&id, &[])).unwrap();
        assert_eq!(
            read("gids/3").unwrap(),
            mapped
                .replace("ffff", "0000")
                .replace("0a00:0001", "0000:0000")
        );
        assert!(read("gid_attrs/types/3").is_err());
    }
}
