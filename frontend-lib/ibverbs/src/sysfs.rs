//! Reading sysfs, which librdmacm does through libibverbs.

use crate::errno;
use libc::{c_char, c_int, c_void};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::sync::OnceLock;

/// Where sysfs is mounted: `SYSFS_PATH`, unless the program is set-uid, or `/sys`.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_get_sysfs_path() -> *const c_char {
    static PATH: OnceLock<CString> = OnceLock::new();
    // As in `ibv_get_device_list`.
    masq_rdmacm::attach();
    PATH.get_or_init(|| {
        // SAFETY: these calls cannot fail and touch no memory.
        let plain = unsafe { libc::getuid() == libc::geteuid() };
        let named = std::env::var_os("SYSFS_PATH").filter(|_| plain);
        let mut path = named.map_or_else(|| b"/sys".to_vec(), |p| p.into_vec());
        while path.last() == Some(&b'/') {
            path.pop();
        }
        CString::new(path).unwrap_or_default()
    })
    .as_ptr()
}

/// Reads `dir/file` into `buf` and drops a newline at its end. Answers the length,
/// or -1 with errno; a content that leaves no room for the final NUL is an error.
///
/// # Safety
/// `dir` and `file` are C strings, `buf` has `size` writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_read_sysfs_file(
    dir: *const c_char,
    file: *const c_char,
    buf: *mut c_char,
    size: usize,
) -> c_int {
    masq_rdmacm::attach();
    // SAFETY: the caller's promise.
    let (dir, file) = unsafe { (CStr::from_ptr(dir), CStr::from_ptr(file)) };
    let path =
        Path::new(OsStr::from_bytes(dir.to_bytes())).join(OsStr::from_bytes(file.to_bytes()));
    if buf.is_null() || size == 0 {
        return errno::minus_one(libc::EINVAL);
    }
    // SAFETY: the caller's promise; the bytes are set before they are seen as such.
    let buf = unsafe {
        std::ptr::write_bytes(buf, 0, size);
        std::slice::from_raw_parts_mut(buf.cast::<u8>(), size)
    };
    match File::open(path).and_then(|mut f| f.read(buf)) {
        Ok(length) => terminate(buf, length),
        Err(error) => errno::minus_one(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn terminate(buf: &mut [u8], length: usize) -> c_int {
    let newline = length.checked_sub(1).and_then(|last| buf.get_mut(last));
    if let Some(byte) = newline.filter(|byte| **byte == b'\n') {
        *byte = 0;
        return length as c_int - 1;
    }
    match buf.get_mut(length) {
        Some(byte) => *byte = 0,
        None if length > 0 => return -1,
        None => {}
    }
    length as c_int
}

/// The provider's way to read sysfs: no device of ours has a directory there.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_read_ibdev_sysfs_file(
    _buf: *mut c_char,
    _size: usize,
    _device: *mut c_void,
    _format: *const c_char,
) -> c_int {
    errno::minus_one(libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &str, size: usize) -> (c_int, Vec<u8>) {
        let dir = std::env::temp_dir().join(format!("masq-sysfs-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = format!("f{}-{size}", content.len());
        std::fs::write(dir.join(&file), content).unwrap();
        let dir = CString::new(dir.to_str().unwrap()).unwrap();
        let file = CString::new(file).unwrap();
        let mut buf = vec![0xaau8; size];
        // SAFETY: strings and buffer live through the call.
        let n = unsafe {
            ibv_read_sysfs_file(dir.as_ptr(), file.as_ptr(), buf.as_mut_ptr().cast(), size)
        };
        (n, buf)
    }

    #[test]
    fn the_final_newline_is_dropped_and_the_text_terminated() {
        assert_eq!(read("12\n", 8), (2, b"12\0\0\0\0\0\0".to_vec()));
        assert_eq!(read("12", 3).0, 2);
    }

    #[test]
    fn a_text_that_leaves_no_room_for_the_nul_is_an_error() {
        assert_eq!(read("1234", 4).0, -1);
        assert_eq!(read("123\n", 4).0, 3);
    }

    #[test]
    fn a_missing_file_answers_enoent() {
        // SAFETY: literals, and a buffer of the length given.
        let n = unsafe {
            ibv_read_sysfs_file(
                c"/nonexistent".as_ptr(),
                c"x".as_ptr(),
                [0; 4].as_mut_ptr(),
                4,
            )
        };
        assert_eq!(n, -1);
        assert_eq!(errno::get(), libc::ENOENT);
    }
}
