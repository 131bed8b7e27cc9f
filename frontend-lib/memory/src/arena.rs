//! The memfd of this process, and the registrations in it.
//!
//! One lock orders everything: registrations, their end, allocation and fork. It is held with all
//! signals of the thread blocked, since a handler may call fork, which takes it too.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::claims::Claims;
use crate::counts::RangeCounts;
use crate::error::RegError;
use crate::mover::{Mover, Stopped};
use crate::shared::SharedRegion;
use crate::slab::Slab;
use crate::span::{Span, page_size};
use crate::stacks::stack_spans;
use crate::survey::{Class, Piece, probe_devices, survey};
use crate::sys::{self, FileId, NumaPolicy, SignalsBlocked};
use crate::uffd::{self, StoreGuard};
use crate::vmflags::{self, VmFlags};
use crate::{fork, maps::Maps};

/// Bytes of the memfd: every address of a program, as an offset.
pub const ARENA_SIZE: usize = 1 << 47;

/// Bytes of the unit of sharing, whatever the size of pages is.
pub(crate) const SHARED_PAGE: usize = 4096;

/// The environment variable that turns moving off when it is `off`: registered memory then stays
/// where it is, and has stand-ins or is reached through `/proc/PID/mem`.
pub const MOVE_ENV: &str = "MASQ_MOVE";

/// How often memory is looked at that another registration may be moving.
const PROBES: u32 = 16;

/// Low descriptor numbers are left to the program, which may hold them in `select` sets.
const LOWEST_FD: i32 = 200;

/// Names a registration of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RegId {
    generation: u32,
    number: u64,
}

/// How the backend reaches a piece of registered memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentKind {
    /// In the memfd, at the offset equal to its address: the backend maps a window.
    Window,
    /// Not moved: the backend goes through `/proc/PID/mem`.
    Remote,
}

/// A piece of a registered range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte's virtual address.
    pub addr: usize,
    /// Bytes, at least one.
    pub len: usize,
    /// How it is reached.
    pub kind: SegmentKind,
}

/// A registered range: hand `id` to [`Arena::unregister`] when the backend has let go of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "the registration stays until it is unregistered"]
pub struct Registration {
    /// Its name.
    pub id: RegId,
    /// The range, whole and in ascending order; neighbours differ in kind.
    pub segments: Vec<Segment>,
}

/// The memfd of this process.
#[derive(Debug)]
pub struct Arena {
    fd: OwnedFd,
    pub(crate) file: FileId,
    generation: u32,
    moving: bool,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) arena: Option<&'static Arena>,
    /// Pages in the memfd that registrations and shared regions hold.
    pub(crate) counts: RangeCounts,
    pub(crate) claims: Claims,
    pub(crate) slab: Slab,
    registrations: BTreeMap<RegId, Vec<Span>>,
    last_number: u64,
    /// A NUMA policy was once set on the memfd: policies outlive the pages there.
    policy_set: bool,
    /// A second descriptor of the memfd. A forked child at its limit of descriptors gives it up to
    /// read its maps.
    pub(crate) spare: Option<OwnedFd>,
    /// Some pages could not be made private again and are still shared.
    pub(crate) lingering: bool,
}

impl State {
    pub(crate) const fn new() -> Self {
        Self {
            arena: None,
            counts: RangeCounts::new(),
            claims: Claims::new(),
            slab: Slab::new(),
            registrations: BTreeMap::new(),
            last_number: 0,
            policy_set: false,
            spare: None,
            lingering: false,
        }
    }
}

static STATE: Mutex<State> = Mutex::new(State::new());
/// Counts the forks that lead to this process.
pub(crate) static GENERATION: AtomicU32 = AtomicU32::new(0);

/// The lock, held with signals blocked. The fields drop in this order.
pub(crate) struct Locked {
    pub(crate) state: MutexGuard<'static, State>,
    _signals: SignalsBlocked,
}

pub(crate) fn lock() -> Locked {
    let signals = SignalsBlocked::new();
    // Nothing panics while the state is half changed.
    let state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    Locked {
        state,
        _signals: signals,
    }
}

pub(crate) fn try_lock() -> Option<Locked> {
    let signals = SignalsBlocked::new();
    let state = STATE.try_lock().ok()?;
    Some(Locked {
        state,
        _signals: signals,
    })
}

impl Arena {
    /// This process's arena, created on first use; a forked child gets one of its own.
    ///
    /// # Errors
    /// [`RegError::FileSizeLimit`] under a file size limit; [`RegError::System`] where the memfd
    /// cannot be made.
    pub fn global() -> Result<&'static Self, RegError> {
        fork::install_handlers()?;
        let mut locked = lock();
        if let Some(arena) = locked.state.arena {
            return Ok(arena);
        }
        let arena: &'static Self = Box::leak(Box::new(Self::create()?));
        locked.state.spare = arena
            .fd
            .try_clone()
            .ok()
            .map(|fd| sys::dup_above(fd, LOWEST_FD));
        locked.state.arena = Some(arena);
        Ok(arena)
    }

    fn create() -> Result<Self, RegError> {
        if sys::file_size_limited(ARENA_SIZE) {
            return Err(RegError::FileSizeLimit); // ftruncate would raise SIGXFSZ
        }
        let fd = sys::memfd(c"masq-memory").map_err(|error| error.during("memfd_create"))?;
        let fd = sys::dup_above(fd, LOWEST_FD);
        uffd::store_guard(); // asked while there are descriptors, since the answer is kept
        sys::truncate(fd.as_fd(), ARENA_SIZE).map_err(|error| error.during("ftruncate"))?;
        sys::add_seals(
            fd.as_fd(),
            libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL,
        )
        .map_err(|error| error.during("fcntl(F_ADD_SEALS)"))?;
        let file = sys::file_id(fd.as_fd()).map_err(|error| error.during("fstat"))?;
        let moving = std::env::var_os(MOVE_ENV).is_none_or(|value| value != "off");
        Ok(Self {
            fd,
            file,
            generation: GENERATION.load(Ordering::Relaxed),
            moving,
        })
    }

    /// The memfd, sealed against shrinking and growing, to pass to the backend.
    #[must_use]
    pub fn memfd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Whether registering moves memory; see [`MOVE_ENV`].
    #[must_use]
    pub fn moves(&self) -> bool {
        self.moving
    }

    /// How stores of other threads are guarded while their pages move.
    #[must_use]
    pub fn store_guard(&self) -> StoreGuard {
        uffd::store_guard()
    }

    /// The arena is this process's, and its descriptor still the memfd: programs that close every
    /// descriptor exist, and the number may be another file's by now.
    pub(crate) fn check_alive(&self) -> Result<(), RegError> {
        if self.generation != GENERATION.load(Ordering::Relaxed) {
            return Err(RegError::Forked);
        }
        match sys::file_id(self.fd.as_fd()) {
            Ok(id) if id == self.file => Ok(()),
            _ => Err(RegError::Lost),
        }
    }

    /// Looks for device memory, without the lock. Pages that another registration moves are
    /// nowhere meanwhile: what seems to be missing is looked for once more while nothing moves.
    fn probe(&self, maps: &mut Maps, range: Span, want_write: bool) -> Result<(), RegError> {
        let mut tries = 0;
        loop {
            let probed = probe_devices(maps, range, want_write, self.file);
            maps.restart();
            tries += 1;
            if probed.is_ok() || matches!(probed, Err(RegError::Device { .. })) || tries == PROBES {
                return probed;
            }
            let _locked = lock();
            survey(maps, range, want_write, self.file)?;
            maps.restart();
        }
    }

    /// Registers `len` bytes at `addr`: moves the whole pages inside that can be moved, and says
    /// how each piece is reached. `want_write`: the backend will write to it.
    ///
    /// # Errors
    /// Those of [`RegError`] that name an address, and [`RegError::NoMemory`]; nothing is
    /// registered then.
    #[doc(alias = "ibv_reg_mr")]
    pub fn register(
        &self,
        addr: usize,
        len: usize,
        want_write: bool,
    ) -> Result<Registration, RegError> {
        let range = Span::checked(addr, len)?;
        // Not under the lock: the first touch of a file's page may wait for its server.
        let mut maps = Maps::open().map_err(|error| error.during("open(/proc/self/maps)"))?;
        self.probe(&mut maps, range, want_write)?;

        let mut locked = lock();
        self.check_alive()?;
        let state = &mut *locked.state;
        let mut pieces = survey(&mut maps, range, want_write, self.file)?;
        if self.moving {
            self.move_pieces(state, &mut maps, range, &mut pieces)?;
        }

        let mut windows: Vec<Span> = Vec::new();
        let mut segments: Vec<Segment> = Vec::new();
        for piece in &pieces {
            let kind = match piece.class {
                Class::Window => SegmentKind::Window,
                _ => SegmentKind::Remote,
            };
            if kind == SegmentKind::Window {
                match windows.last_mut() {
                    Some(last) if last.end == piece.span.start => last.end = piece.span.end,
                    _ => windows.push(piece.span),
                }
            }
            let part = piece.span.intersect(range);
            match segments.last_mut() {
                Some(last) if last.kind == kind => last.len += part.len(),
                _ => segments.push(Segment {
                    addr: part.start,
                    len: part.len(),
                    kind,
                }),
            }
        }
        for window in &windows {
            state.counts.add(*window);
        }
        state.last_number += 1;
        let id = RegId {
            generation: self.generation,
            number: state.last_number,
        };
        state.registrations.insert(id, windows);
        Ok(Registration { id, segments })
    }

    /// Moves what can be moved; `pieces` then say where everything is.
    fn move_pieces(
        &self,
        state: &mut State,
        maps: &mut Maps,
        range: Span,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), RegError> {
        let inner = state.claims.own_pages(range);
        let movable = |piece: &Piece| {
            matches!(piece.class, Class::Movable | Class::Displaced { .. })
                && !piece.span.intersect(inner).is_empty()
        };
        let bytes: usize = pieces
            .iter()
            .filter(|p| movable(p))
            .map(|p| p.span.len())
            .sum();
        if bytes == 0 {
            return Ok(());
        }
        let flags = vmflags::flags_of(range.outer_pages(), bytes);
        let mut spared = stack_spans(maps);
        spared.extend(
            flags
                .iter()
                .filter(|(_, flags)| flags.pinned_in_place)
                .map(|(span, _)| *span),
        );
        spared.push(Span::new(ARENA_SIZE, usize::MAX));
        let mover = Mover::guarded(self.fd.as_fd()).map_err(|error| error.during("userfaultfd"))?;

        let mut result: Vec<Piece> = Vec::new();
        for piece in pieces.drain(..) {
            if !movable(&piece) {
                result.push(piece);
                continue;
            }
            let fixed = |span| Piece {
                span,
                class: Class::Fixed,
                ..piece
            };
            for (span, keep) in partition(piece.span, inner, &spared) {
                if keep {
                    result.push(fixed(span));
                    continue;
                }
                if let Class::Displaced { offset } = piece.class {
                    let at = offset + (span.start - piece.span.start);
                    if mover.move_out(span, at, piece.prot, &[], false).is_err() {
                        result.push(fixed(span));
                        continue;
                    }
                }
                self.carry_policy(state, span);
                let (reached, stopped) = mover.move_in(span, piece.prot, &flags);
                let moved = Span::new(span.start, reached);
                if !moved.is_empty() {
                    result.push(Piece {
                        span: moved,
                        class: Class::Window,
                        ..piece
                    });
                }
                if reached < span.end {
                    result.push(fixed(Span::new(reached, span.end)));
                }
                if stopped == Some(Stopped::NoMemory) {
                    let moved: Vec<Span> = result
                        .iter()
                        .filter(|piece| piece.class == Class::Window)
                        .flat_map(|piece| state.counts.unheld(piece.span))
                        .collect();
                    self.release(state, &moved);
                    return Err(RegError::NoMemory {
                        addr: range.start,
                        len: range.len(),
                    });
                }
            }
        }
        *pieces = result;
        Ok(())
    }

    /// Gives the memfd at `span` the NUMA policy of the memory there. A shared file keeps policies
    /// for itself, so a former one must go too.
    fn carry_policy(&self, state: &mut State, span: Span) {
        let policy = vmflags::numa_policy_of(span.start);
        if policy.is_none() && !state.policy_set {
            return;
        }
        if let Ok(view) = sys::OwnMapping::view(self.fd.as_fd(), span) {
            // A fresh mapping has the default policy already, so that asking it for the default
            // would not reach the file: another one comes first.
            let _ = policy.unwrap_or(NumaPolicy::LOCAL).apply(view.span());
            if policy.is_none() {
                let _ = NumaPolicy::DEFAULT.apply(view.span());
            }
            state.policy_set = true;
        }
    }

    /// Ends a registration. The backend must have let go of it: what it wrote later could be lost.
    /// Pages that no registration holds any more become private memory again.
    ///
    /// # Errors
    /// [`RegError::Unknown`] for an id that is not registered, [`RegError::Forked`] for one of the
    /// parent process.
    #[doc(alias = "ibv_dereg_mr")]
    pub fn unregister(&self, id: RegId) -> Result<(), RegError> {
        let mut locked = lock();
        self.check_alive()?;
        let state = &mut *locked.state;
        if id.generation != self.generation {
            return Err(RegError::Forked);
        }
        let windows = state.registrations.remove(&id).ok_or(RegError::Unknown)?;
        let freed: Vec<Span> = windows
            .into_iter()
            .flat_map(|span| state.counts.remove(span))
            .collect();
        self.release(state, &freed);
        Ok(())
    }

    /// Allocates `len` bytes (rounded up) that are born in the memfd, zeroed, for queues.
    ///
    /// # Errors
    /// [`RegError::BadRange`] for a length of zero, [`RegError::NoMemory`].
    pub fn alloc_shared(&'static self, len: usize) -> Result<SharedRegion, RegError> {
        SharedRegion::allocate(self, len, None)
    }

    /// Makes pages that nobody holds private again. What is mapped at them now is asked of the
    /// kernel: the program may have unmapped, reused or moved them.
    pub(crate) fn release(&self, state: &mut State, freed: &[Span]) {
        let (Some(first), Some(last)) = (freed.first(), freed.last()) else {
            return;
        };
        let (Ok(mut maps), Ok(mover)) = (Maps::open(), Mover::guarded(self.fd.as_fd())) else {
            state.lingering = true; // until it is registered and ended again
            return;
        };
        let bytes = freed.iter().map(|span| span.len()).sum();
        let flags = vmflags::flags_of(Span::new(first.start, last.end), bytes);
        let mut gone: Vec<Span> = Vec::new();
        for span in freed {
            let mut at = span.start;
            while at < span.end {
                let Ok(Some(vma)) = maps.covering_or_next(at) else {
                    gone.push(Span::new(at, span.end));
                    break;
                };
                let part = vma.span.intersect(*span);
                if at < part.start || part.is_empty() {
                    let next = if part.is_empty() {
                        span.end
                    } else {
                        part.start
                    };
                    gone.push(Span::new(at, next));
                    at = next;
                    continue;
                }
                if vma.offset_in(self.file) == Some(vma.span.start) {
                    if mover
                        .move_out(part, part.start, vma.prot, &flags, true)
                        .is_err()
                    {
                        state.lingering = true;
                    }
                } else {
                    gone.push(part);
                }
                at = part.end;
            }
        }
        self.forget(state, &mover, &mut maps, &gone, &flags);
    }

    /// Gives back the storage of pages that are mapped at their own address no more. If the
    /// program moved the mapping (`mremap`, as realloc does), its contents stay with it.
    fn forget(
        &self,
        state: &mut State,
        mover: &Mover<'_>,
        maps: &mut Maps,
        gone: &[Span],
        flags: &[(Span, VmFlags)],
    ) {
        if gone.is_empty() {
            return;
        }
        let mut at = 0;
        while let Ok(Some(vma)) = maps.covering_or_next(at) {
            at = vma.span.end;
            let Some(offset) = vma.offset_in(self.file).filter(|&at| at != vma.span.start) else {
                continue;
            };
            for lost in gone {
                let part = Span::new(offset, offset + vma.span.len()).intersect(*lost);
                if part.is_empty() {
                    continue;
                }
                let start = vma.span.start + (part.start - offset);
                let target = Span::new(start, start + part.len());
                if mover
                    .move_out(target, part.start, vma.prot, flags, false)
                    .is_err()
                {
                    state.lingering = true;
                    return; // better storage kept than contents lost
                }
            }
        }
        for lost in gone {
            let _ = sys::punch(self.fd.as_fd(), *lost);
        }
    }
}

/// Cuts `span` into the parts to keep in place (true) and those to move (false), in order.
fn partition(span: Span, inner: Span, spared: &[Span]) -> Vec<(Span, bool)> {
    let mut movable = vec![span.intersect(inner)];
    for spare in spared {
        movable = movable
            .into_iter()
            .flat_map(|part| part.without(*spare))
            .filter(|part| !part.is_empty())
            .collect();
    }
    let mut parts = Vec::new();
    let mut at = span.start;
    for part in movable {
        if at < part.start {
            parts.push((Span::new(at, part.start), true));
        }
        if !part.is_empty() {
            parts.push((part, false));
        }
        at = part.end;
    }
    if at < span.end {
        parts.push((Span::new(at, span.end), true));
    }
    parts
}

/// Whether this kernel can populate on request (5.14), which is how device memory is told apart.
pub(crate) fn can_populate() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        sys::OwnMapping::new(page_size())
            .is_ok_and(|page| sys::advise(page.span(), libc::MADV_POPULATE_READ).is_ok())
    })
}
