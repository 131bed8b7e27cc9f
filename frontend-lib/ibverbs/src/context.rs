//! Contexts: an opened device, which is a session with the backend.

use crate::device::Device;
use crate::lock::Lock;
use crate::stand_in::StandIns;
use crate::{cq, cq_ex, errno, mr, mw, pd, qp, qp_ex, query, recv, send, srq};
use libc::c_int;
use masq_driver::{DriverError, Session};
use masq_spec::command::Opcode;
use masq_spec::verbs::DeviceAttr;
use masq_verbs_abi::*;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::AtomicBool;

/// What lies around an `ibv_context`.
#[repr(C)]
pub(crate) struct Context {
    verbs: verbs_context,
    pub(crate) session: Session,
    /// What `cmd_fd` names: programs duplicate it, and find nothing behind it.
    _cmd: File,
    pub(crate) attr: DeviceAttr,
    /// Live objects by handle, for events to find. A pointer is removed before its
    /// object is freed.
    pub(crate) objects: Lock<Objects>,
    pub(crate) stand_ins: StandIns,
    /// DEVICE_FATAL was given out.
    pub(crate) fatal_told: AtomicBool,
    /// Empty polls in a row after which a poller offers its processor.
    pub(crate) polls_until_yield: u32,
}

/// Objects that events name.
#[derive(Default)]
pub(crate) struct Objects {
    pub(crate) cqs: HashMap<u32, *mut cq::Cq>,
    pub(crate) qps: HashMap<u32, *mut qp::Qp>,
    pub(crate) srqs: HashMap<u32, *mut srq::Srq>,
}

/// Removes an object whose handle the device may have given to a new one already.
pub(crate) fn forget<T>(table: &mut HashMap<u32, *mut T>, id: u32, object: *mut T) {
    if table.get(&id) == Some(&object) {
        table.remove(&id);
    }
}

impl Context {
    /// The context around an `ibv_context`.
    ///
    /// # Safety
    /// `context` came from `ibv_open_device` and is not closed.
    pub(crate) unsafe fn of<'a>(context: *mut ibv_context) -> &'a Self {
        let offset = std::mem::offset_of!(verbs_context, context);
        // SAFETY: `verbs` is the first field of a `Context`.
        unsafe { &*context.byte_sub(offset).cast::<Self>() }
    }

    fn new(device: *mut ibv_device, session: Session) -> Result<Box<Self>, DriverError> {
        let attr = session.command(Opcode::QueryDevice, &())?;
        let async_fd = session.async_events().fd();
        let cmd = File::open("/dev/null")?;
        Ok(Box::new(Self {
            verbs: verbs(device, cmd.as_raw_fd(), async_fd),
            session,
            _cmd: cmd,
            attr,
            objects: Lock::new(Objects::default()),
            stand_ins: StandIns::default(),
            fatal_told: AtomicBool::new(false),
            polls_until_yield: polls_until_yield(),
        }))
    }
}

/// With a processor for each poller and the NIC nobody has to yield; with few, polling
/// longer than about twenty times keeps the NIC from its work.
fn polls_until_yield() -> u32 {
    const FEW: usize = 3;
    let named = std::env::var("MASQ_POLL_YIELD").ok();
    if let Some(count) = named.and_then(|v| v.parse().ok()) {
        return count;
    }
    match std::thread::available_parallelism() {
        Ok(n) if n.get() > FEW => 0,
        _ => 20,
    }
}

fn ops() -> ibv_context_ops {
    ibv_context_ops {
        _compat_query_device: Some(query::ibv_query_device),
        _compat_query_port: Some(query::ibv_query_port),
        alloc_mw: Some(mw::alloc_mw),
        bind_mw: Some(mw::bind_mw),
        dealloc_mw: Some(mw::dealloc_mw),
        poll_cq: Some(cq::poll_cq),
        req_notify_cq: Some(cq::req_notify_cq),
        post_srq_recv: Some(recv::post_srq_recv),
        post_send: Some(send::post_send),
        post_recv: Some(recv::post_recv),
        ..ibv_context_ops::default()
    }
}

fn verbs(device: *mut ibv_device, cmd_fd: c_int, async_fd: c_int) -> verbs_context {
    let context = ibv_context {
        device,
        ops: ops(),
        cmd_fd,
        async_fd,
        num_comp_vectors: 1,
        mutex: libc::PTHREAD_MUTEX_INITIALIZER,
        abi_compat: VERBS_ABI_IS_EXTENDED,
    };
    verbs_context {
        newer: [None; 6],
        query_port: Some(query::query_port),
        advise_mr: Some(mr::advise_mr),
        alloc_null_mr: None,
        read_counters: None,
        attach_counters_point_flow: None,
        create_counters: None,
        destroy_counters: None,
        reg_dm_mr: None,
        alloc_dm: None,
        free_dm: None,
        modify_flow_action_esp: None,
        destroy_flow_action: None,
        create_flow_action_esp: None,
        modify_qp_rate_limit: None,
        alloc_parent_domain: Some(pd::alloc_parent_domain),
        dealloc_td: Some(pd::dealloc_td),
        alloc_td: Some(pd::alloc_td),
        modify_cq: None,
        post_srq_ops: None,
        destroy_rwq_ind_table: None,
        create_rwq_ind_table: None,
        destroy_wq: None,
        modify_wq: None,
        create_wq: None,
        query_rt_values: Some(query::query_rt_values),
        create_cq_ex: Some(cq_ex::create_cq_ex),
        priv_: std::ptr::null_mut(),
        query_device_ex: Some(query::query_device_ex),
        ibv_destroy_flow: None,
        ABI_placeholder2: None,
        ibv_create_flow: None,
        ABI_placeholder1: None,
        open_qp: None,
        create_qp_ex: Some(qp_ex::create_qp_ex),
        get_srq_num: None,
        create_srq_ex: Some(srq::create_srq_ex),
        open_xrcd: None,
        close_xrcd: None,
        _ABI_placeholder3: 0,
        sz: size_of::<verbs_context>(),
        context,
    }
}

/// Opens the device: a session of its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_open_device(device: *mut ibv_device) -> *mut ibv_context {
    // SAFETY: the caller's device.
    let path = &unsafe { Device::of(device) }.path;
    let opened = Session::open(path).and_then(|session| Context::new(device, session));
    match opened {
        Ok(context) => {
            let context = Box::into_raw(context);
            // SAFETY: just made; the field lies inside it.
            unsafe { &raw mut (*context).verbs.context }
        }
        Err(error) => {
            if let DriverError::Version { .. } = error {
                eprintln!("masq: {error}");
            }
            errno::null(error.errno())
        }
    }
}

/// Closes the device, and with the session all that the program left behind.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ibv_close_device(context: *mut ibv_context) -> c_int {
    let offset = std::mem::offset_of!(verbs_context, context);
    // SAFETY: made by `ibv_open_device` as a box, and the caller's last use.
    drop(unsafe { Box::from_raw(context.byte_sub(offset).cast::<Context>()) });
    0
}
