//! The list of devices: the endpoint's one device, or none.

use crate::errno;
use libc::{c_char, c_int};
use masq_spec::device::{Config, Features};
use masq_verbs_abi::*;
use std::path::PathBuf;
use std::sync::OnceLock;

/// What `ibv_device *` points to.
#[repr(C)]
pub(crate) struct Device {
    abi: ibv_device,
    /// Vendor libraries look for a table of providers here, and must find no pointer.
    padding: [u8; 256],
    pub(crate) path: PathBuf,
    config: Config,
}

// SAFETY: the pointers in `abi` are NULL and stay so.
unsafe impl Send for Device {}
// SAFETY: as above; nothing changes after creation.
unsafe impl Sync for Device {}

/// The device keeps its address for the life of the process: librdmacm compares the
/// pointers of several lists.
static DEVICE: OnceLock<Device> = OnceLock::new();

fn copy_text(to: &mut [c_char], text: &[u8]) {
    let room = to.len().saturating_sub(1);
    for (to, from) in to.iter_mut().zip(text.iter().take(room)) {
        *to = *from as c_char;
    }
}

impl Device {
    fn new(path: PathBuf, config: Config, offered: Features) -> Self {
        let (node_type, transport_type) = match offered.contains(Features::IWARP) {
            true => (IBV_NODE_RNIC, IBV_TRANSPORT_IWARP),
            false => (IBV_NODE_CA, IBV_TRANSPORT_IB),
        };
        let mut abi = ibv_device {
            _ops: [None; 2],
            node_type,
            transport_type,
            name: [0; 64],
            dev_name: [0; 64],
            dev_path: [0; 256],
            ibdev_path: [0; 256],
        };
        let end = config.device_name.iter().position(|b| *b == 0);
        let name = &config.device_name[..end.unwrap_or(config.device_name.len())];
        let in_class = |class: &[u8], name: &[u8]| [b"/sys/class/", class, b"/", name].concat();
        copy_text(&mut abi.name, name);
        copy_text(&mut abi.dev_name, b"uverbs0");
        copy_text(
            &mut abi.dev_path,
            &in_class(b"infiniband_verbs", b"uverbs0"),
        );
        copy_text(&mut abi.ibdev_path, &in_class(b"infiniband", name));
        Self {
            abi,
            padding: [0; 256],
            path,
            config,
        }
    }

    /// The device of a pointer that `ibv_get_device_list` gave out.
    ///
    /// # Safety
    /// `device` came from there, or from a context's `device`.
    pub(crate) unsafe fn of<'a>(device: *mut ibv_device) -> &'a Self {
        // SAFETY: `abi` is the first field.
        unsafe { &*device.cast() }
    }
}

/// Finds the endpoint's device; a backend that does not answer is asked again later.
fn device() -> Option<&'static Device> {
    if let Some(device) = DEVICE.get() {
        return Some(device);
    }
    let path = masq_driver::socket_path()?;
    match masq_driver::probe(&path) {
        Ok((config, offered)) => Some(DEVICE.get_or_init(|| Device::new(path, config, offered))),
        Err(error @ masq_driver::DriverError::Version { .. }) => {
            eprintln!("masq: {error}");
            None
        }
        Err(_) => None,
    }
}

/// The devices of this process, NULL-terminated; the list is empty outside endpoints.
///
/// # Safety
/// As the C function: `num_devices` is NULL or writable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_get_device_list(num_devices: *mut c_int) -> *mut *mut ibv_device {
    // librdmacm may have been loaded since: it comes by here before it opens its device.
    masq_rdmacm::attach();
    let found = device();
    // SAFETY: plain allocation, zeroed: two pointers.
    let list: *mut *mut ibv_device =
        unsafe { libc::calloc(2, size_of::<*mut ibv_device>()) }.cast();
    if list.is_null() {
        return errno::null(libc::ENOMEM);
    }
    // SAFETY: the list has two places; `num_devices` is the caller's.
    unsafe {
        if let Some(device) = found {
            *list = std::ptr::from_ref(&device.abi).cast_mut();
        }
        if !num_devices.is_null() {
            *num_devices = found.is_some().into();
        }
    }
    list
}

/// Frees the list; the device stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_free_device_list(list: *mut *mut ibv_device) {
    // SAFETY: it came from calloc.
    unsafe { libc::free(list.cast()) }
}

/// Its name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_get_device_name(device: *mut ibv_device) -> *const c_char {
    // SAFETY: the caller's device.
    unsafe { (*device).name.as_ptr() }
}

/// Its index: there is one device.
#[unsafe(no_mangle)]
pub extern "C" fn ibv_get_device_index(_device: *mut ibv_device) -> c_int {
    0
}

/// Its node GUID, in network order.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_get_device_guid(device: *mut ibv_device) -> u64 {
    // SAFETY: the caller's device.
    unsafe { Device::of(device) }.config.node_guid.to_be()
}
