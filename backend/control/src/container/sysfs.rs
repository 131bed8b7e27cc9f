//! What `/sys/class/infiniband/DEVICE` shows in a container: files of the names and forms
//! that the kernel's stable sysfs ABI of InfiniBand gives them.

use super::dir::replace;
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
    if fs::read(path).is_ok_and(|is| is == wanted.as_bytes()) {
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
