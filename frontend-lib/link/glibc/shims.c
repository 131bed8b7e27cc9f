/*
 * Functions that glibc has had only since after 2.17, or has only in the static part of
 * its development files. They are linked into the library and exported to nobody; the
 * linker drops those which nothing refers to.
 *
 * What Rust's standard library asks for by weak reference (gettid, statx, getrandom,
 * __cxa_thread_atexit_impl) must not stand here: it has its own ways without them, and
 * takes glibc's where there are any.
 */
#define _GNU_SOURCE
/* Newer headers declare it, with a type that older ones do not have. */
#define _dl_find_object declared_by_new_headers
#include <link.h>
#undef _dl_find_object
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* fcntl.h and sys/stat.h declare what is defined here, or make inline functions of it. */
#define AT_FDCWD (-100)
#define AT_SYMLINK_NOFOLLOW 0x100

/*
 * The kernel's struct stat is glibc's on 64-bit machines, and has one form only.
 * Before 2.33 these were inline functions of the headers.
 */
int fstatat64(int dir, const char *path, void *to, int flags)
{
	return syscall(SYS_newfstatat, dir, path, to, flags);
}

int stat64(const char *path, void *to)
{
	return fstatat64(AT_FDCWD, path, to, 0);
}

int lstat64(const char *path, void *to)
{
	return fstatat64(AT_FDCWD, path, to, AT_SYMLINK_NOFOLLOW);
}

int fstat64(int fd, void *to)
{
	return syscall(SYS_fstat, fd, to);
}

int fstatat(int dir, const char *path, void *to, int flags)
	__attribute__((alias("fstatat64")));
int stat(const char *path, void *to) __attribute__((alias("stat64")));
int lstat(const char *path, void *to) __attribute__((alias("lstat64")));
int fstat(int fd, void *to) __attribute__((alias("fstat64")));

/* Since 2.26. The offset's second half is for machines of 32 bits. */
ssize_t preadv2(int fd, const struct iovec *parts, int count, off_t offset, int flags)
{
	return syscall(SYS_preadv2, fd, parts, (long)count, offset, 0L, (long)flags);
}

/* The part of glibc that is always linked statically, as handlers belong to an object. */
extern void *__dso_handle __attribute__((visibility("hidden")));
extern int __register_atfork(void (*)(void), void (*)(void), void (*)(void), void *);

int pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
	return __register_atfork(prepare, parent, child, __dso_handle);
}

/*
 * Since 2.35; libgcc's unwinder looks nowhere else if it was built beside such a glibc.
 * It reads eh_frame only (dlfo_eh_dbase is for other machines).
 */
struct object {
	unsigned long long flags;
	void *start;
	void *end;
	struct link_map *map;
	void *eh_frame;
	unsigned long long reserved[7];
};

struct search {
	uintptr_t address;
	struct object *to;
};

static int contains(struct dl_phdr_info *info, size_t size, void *context)
{
	struct search *search = context;
	void *eh_frame = NULL;
	int inside = 0;

	(void)size;
	for (size_t i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
		uintptr_t start = info->dlpi_addr + segment->p_vaddr;

		if (segment->p_type == PT_GNU_EH_FRAME) {
			eh_frame = (void *)start;
		} else if (segment->p_type == PT_LOAD && search->address >= start &&
			   search->address - start < segment->p_memsz) {
			search->to->start = (void *)start;
			search->to->end = (void *)(start + segment->p_memsz);
			inside = 1;
		}
	}
	search->to->eh_frame = eh_frame;
	return inside;
}

int _dl_find_object(void *address, struct object *to)
{
	struct search search = { (uintptr_t)address, to };

	*to = (struct object){ 0 };
	if (!dl_iterate_phdr(contains, &search) || to->eh_frame == NULL)
		return -1;
	return 0;
}
