//! Redirects the calls of librdmacm: the slots of its global offset table that hold the
//! addresses of the functions in [`HOOKS`]. Nothing else of the process changes, so it
//! matters neither how it was loaded nor who else replaces these functions.
#![allow(
    unsafe_code,
    reason = "reads a loaded object's tables and writes its slots"
)]

use crate::interpose::{HOOKS, Hook};
use libc::{Elf64_Phdr, c_int, c_void, dl_phdr_info};
use std::ffi::CStr;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const SONAME: &CStr = c"librdmacm.so.1";

const PT_DYNAMIC: u32 = 2;
const PT_LOAD: u32 = 1;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const DT_PLTRELSZ: i64 = 2;
const DT_STRTAB: i64 = 5;
const DT_SYMTAB: i64 = 6;
const DT_RELA: i64 = 7;
const DT_RELASZ: i64 = 8;
const DT_SONAME: i64 = 14;
const DT_JMPREL: i64 = 23;

/// Kinds of relocation that store a function's address alone.
#[cfg(target_arch = "x86_64")]
const KINDS: &[u32] = &[6, 7]; // R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT
#[cfg(target_arch = "aarch64")]
const KINDS: &[u32] = &[1025, 1026]; // R_AARCH64_GLOB_DAT, R_AARCH64_JUMP_SLOT
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const KINDS: &[u32] = &[];

#[repr(C)]
struct Dyn {
    tag: i64,
    value: u64,
}

#[repr(C)]
struct Rela {
    offset: u64,
    info: u64,
    addend: i64,
}

#[repr(C)]
struct Sym {
    name: u32,
    info: u8,
    other: u8,
    section: u16,
    value: u64,
    size: u64,
}

/// Redirects every librdmacm that is loaded. Cheap when nothing was loaded since.
pub(crate) fn redirect() {
    /// Objects loaded so far, when all were last looked at.
    static SEEN: AtomicU64 = AtomicU64::new(0);
    if KINDS.is_empty() {
        return;
    }
    let mut loaded = 0u64;
    // SAFETY: the callback gets what it expects.
    unsafe { libc::dl_iterate_phdr(Some(count), (&raw mut loaded).cast()) };
    if SEEN.load(Ordering::Acquire) == loaded {
        return;
    }
    // Waits until another thread's dlopen has relocated it, and keeps it loaded.
    // SAFETY: a C string; nothing new is loaded.
    let kept = unsafe { libc::dlopen(SONAME.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if !kept.is_null() {
        // Not in the walk, whose lock is taken after that of dlsym elsewhere.
        for hook in HOOKS {
            // SAFETY: a C string.
            let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, hook.name.as_ptr()) };
            hook.usual.store(found as usize, Ordering::Release);
        }
        // SAFETY: the callback keeps to the contract; no data.
        unsafe { libc::dl_iterate_phdr(Some(visit), std::ptr::null_mut()) };
    }
    SEEN.store(loaded, Ordering::Release);
}

/// Stops at the first object, which knows how many there were.
unsafe extern "C" fn count(info: *mut dl_phdr_info, _size: usize, data: *mut c_void) -> c_int {
    // SAFETY: valid during the call; `data` is a number of the caller's.
    unsafe { *data.cast() = (*info).dlpi_adds };
    1
}

unsafe extern "C" fn visit(info: *mut dl_phdr_info, _size: usize, _data: *mut c_void) -> c_int {
    // SAFETY: valid during the call; a loaded object.
    if let Some(object) = unsafe { Object::new(&*info) } {
        // SAFETY: relocated, and kept.
        unsafe { object.redirect() };
    }
    0
}

/// A loaded librdmacm.
struct Object {
    base: u64,
    strings: u64,
    symbols: u64,
    /// Tables of relocations: address and bytes.
    relocations: [(u64, u64); 2],
    /// What the loader made read-only after relocation.
    relro: Range<u64>,
    /// All of it.
    span: Range<u64>,
}

impl Object {
    /// # Safety
    /// The information is about a loaded object.
    unsafe fn new(info: &dl_phdr_info) -> Option<Self> {
        if info.dlpi_phdr.is_null() {
            return None;
        }
        // SAFETY: as many program headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, info.dlpi_phnum.into()) };
        let base = info.dlpi_addr;
        let range = |h: &Elf64_Phdr| {
            let start = base.wrapping_add(h.p_vaddr);
            start..start.wrapping_add(h.p_memsz)
        };
        let find = |kind| headers.iter().find(|h| h.p_type == kind).map(range);
        let mut object = Self {
            base,
            strings: 0,
            symbols: 0,
            relocations: [(0, 0); 2],
            relro: find(PT_GNU_RELRO).unwrap_or(0..0),
            span: headers
                .iter()
                .filter(|h| h.p_type == PT_LOAD)
                .map(range)
                .reduce(|a, b| a.start.min(b.start)..a.end.max(b.end))?,
        };
        let mut soname = None;
        let mut at = find(PT_DYNAMIC)?.start as *const Dyn;
        loop {
            // SAFETY: the array ends with a null entry.
            let Dyn { tag, value } = *unsafe { &*at };
            match tag {
                0 => break,
                DT_STRTAB => object.strings = object.address(value),
                DT_SYMTAB => object.symbols = object.address(value),
                DT_JMPREL => object.relocations[0].0 = object.address(value),
                DT_PLTRELSZ => object.relocations[0].1 = value,
                DT_RELA => object.relocations[1].0 = object.address(value),
                DT_RELASZ => object.relocations[1].1 = value,
                DT_SONAME => soname = Some(value),
                _ => {}
            }
            // SAFETY: as above.
            at = unsafe { at.add(1) };
        }
        if object.strings == 0 || object.symbols == 0 {
            return None;
        }
        // SAFETY: an offset in the table of strings.
        let is_rdmacm = unsafe { object.string(soname?) } == SONAME;
        is_rdmacm.then_some(object)
    }

    /// Some loaders write the address over the offset. An object may be linked at an address
    /// above the one where it lies (the vDSO of User-Mode Linux), so that its base wraps.
    fn address(&self, value: u64) -> u64 {
        if self.span.contains(&value) {
            value
        } else {
            self.base.wrapping_add(value)
        }
    }

    /// # Safety
    /// `offset` lies in the table of strings.
    unsafe fn string(&self, offset: u64) -> &CStr {
        // SAFETY: the caller's promise; strings are terminated.
        unsafe { CStr::from_ptr((self.strings.wrapping_add(offset)) as *const _) }
    }

    /// # Safety
    /// The object is loaded and stays so.
    unsafe fn redirect(&self) {
        for (table, bytes) in self.relocations {
            if table == 0 {
                continue;
            }
            let count = bytes as usize / size_of::<Rela>();
            // SAFETY: the loader has read the same table.
            let entries = unsafe { std::slice::from_raw_parts(table as *const Rela, count) };
            for entry in entries {
                if !KINDS.contains(&(entry.info as u32)) || entry.addend != 0 {
                    continue;
                }
                let symbol = (self.symbols as *const Sym).wrapping_add((entry.info >> 32) as usize);
                // SAFETY: an index that the loader has followed.
                let name = unsafe { self.string(u64::from((*symbol).name)) };
                if let Some(hook) = HOOKS.iter().find(|hook| hook.name == name) {
                    // SAFETY: a slot of this object that holds that function's address.
                    unsafe { self.store(self.base.wrapping_add(entry.offset), hook) };
                }
            }
        }
    }

    /// # Safety
    /// `slot` is where calls of the hook's function find its address.
    unsafe fn store(&self, slot: u64, hook: &Hook) {
        // SAFETY: aligned as the linker aligns slots; other threads only load it.
        let place = unsafe { AtomicUsize::from_ptr(slot as *mut usize) };
        let (old, ours) = (place.load(Ordering::Acquire), (hook.ours)());
        if old == ours {
            return;
        }
        let Some(real) = self.resolved(old, hook) else {
            return;
        };
        // The first that was found serves all objects.
        let _ = hook
            .real
            .compare_exchange(0, real, Ordering::AcqRel, Ordering::Acquire);
        let page = page_size();
        let relro = self.relro.start & !(page - 1)..self.relro.end & !(page - 1);
        let protected = relro.contains(&slot);
        if protected && !protect(slot, page, libc::PROT_READ | libc::PROT_WRITE) {
            return;
        }
        place.store(ours, Ordering::Release);
        if protected {
            protect(slot, page, libc::PROT_READ);
        }
    }

    /// The function that a slot leads to. One that was never called leads to the object's
    /// own stub instead, which would write the slot anew.
    fn resolved(&self, address: usize, hook: &Hook) -> Option<usize> {
        if !self.span.contains(&(address as u64)) && address != 0 {
            return Some(address);
        }
        let usual = hook.usual.load(Ordering::Acquire);
        (usual != 0).then_some(usual)
    }
}

fn page_size() -> u64 {
    // SAFETY: touches no memory.
    unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.max(4096) as u64
}

fn protect(slot: u64, page: u64, protection: c_int) -> bool {
    let start = slot & !(page - 1);
    // SAFETY: the page of a slot, whose other slots stay readable.
    unsafe { libc::mprotect(start as *mut c_void, page as usize, protection) == 0 }
}
